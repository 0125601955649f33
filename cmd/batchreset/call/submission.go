package call

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

const (
	// longestJob is how many instances become one job at most; a longer list becomes a run.
	longestJob = tasks.DefaultMaxInstances
	// interruptGrace is how long a request that is under way may take for its answer after
	// Ctrl-C, timeoutGrace after --timeout: only the answer says whether it was accepted.
	interruptGrace = 5 * time.Second
	timeoutGrace   = time.Second
)

// submission is a list that a command line wants to be reset, and what it says about that.
type submission struct {
	std     *terminal.Streams
	notices *notices
	// request is all of it for a run. A job has those of its fields that a batch has, too.
	request     client.RunRequest
	maxFailures int // of a job
	notBefore   string
	keyFlag     string // what gives the same key again; empty if the same command does by itself
	isRun       bool   // whatever its length
	dryRun      bool
	yes         bool
	wait        bool
	waitFlag    *pflag.Flag
	followsRuns bool // unless --wait=false
	output      *terminal.Output
	resultPath  string
	result      *resultFile // nil without one
}

// define adds the flags that every command has that submits a list.
func (s *submission) define(flags *pflag.FlagSet) {
	flags.StringVar(&s.notBefore, "not-before", "", "`time` at which the first reset may begin, such as 2026-01-02T15:04:05Z or 10m from now; until then 'batchreset cancel' or 'batchreset run cancel' takes all back")
	flags.StringVar(&s.request.Reason, "reason", "", "`text` that is kept in the record: why")
	flags.BoolVarP(&s.wait, "wait", "w", false, "follow the job or the run to its end")
	flags.StringVar(&s.resultPath, "result", "", "wait, and write a row for each instance to this `file`, a .csv or .jsonl, or a report: JUnit in an .xml, a summary in an .md; - is standard output, as CSV")
	flags.BoolVarP(&s.yes, "yes", "y", false, "do not ask")
	s.waitFlag = flags.Lookup("wait")
}

// check checks what define has flags for, and whether the result can be written. input is the file
// that the list is read from, if it is.
func (s *submission) check(input string, now time.Time) (err error) {
	s.notices = &notices{w: s.std.Err}
	if err := tasks.CheckReason(s.request.Reason); err != nil {
		return fmt.Errorf("--reason %w", err)
	}
	if err := tasks.CheckLabels(s.request.Labels); err != nil {
		return fmt.Errorf("--label %w", err)
	}
	if s.request.NotBefore, err = firstReset(s.notBefore, s.request.IdempotencyKey != "", now); err != nil {
		return err
	}
	s.result, err = newResultFile(s.resultPath, input, *s.output)
	s.wait = s.wait || s.result != nil
	return err
}

// firstReset is the time of --not-before, or zero. A command with a key is given again in the same words.
func firstReset(notBefore string, keyed bool, now time.Time) (time.Time, error) {
	if notBefore == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, notBefore); err == nil {
		return t.UTC(), nil // whether it is past is for the service to say, by its own clock
	}
	d, err := time.ParseDuration(notBefore)
	if err != nil {
		return time.Time{}, fmt.Errorf("--not-before must be a time such as 2026-01-02T15:04:05Z or a duration such as 10m, not %q", notBefore)
	}
	if keyed {
		return time.Time{}, fmt.Errorf("--not-before must be a time and not %q from now if there is a --run-id: the same command would be another request a moment later", notBefore)
	}
	t := now.Add(d).Truncate(time.Second) // easy to say again
	if err := tasks.CheckNotBefore(t, now); err != nil {
		return t, fmt.Errorf("--not-before %w", err)
	}
	return t.UTC(), nil
}

// take takes the list and decides what it becomes. It refuses what cannot be said of that.
func (s *submission) take(instances []string, generations map[string]int) error {
	s.request.InstanceIDs, s.request.Generation = instances, generations
	s.isRun = s.isRun || len(instances) > longestJob
	if s.isRun && s.followsRuns && !s.waitFlag.Changed {
		s.wait = true
	}
	switch {
	case s.maxFailures < 0:
		return errors.New("--max-failures must not be negative")
	case !s.isRun:
		return nil
	case s.maxFailures > 0:
		return fmt.Errorf("--max-failures stops a job, and more than %d instances, --run-id or --approval make a run, which pauses by a budget: "+
			"give it one with 'batchreset run submit --max-failures'", longestJob)
	}
	return nil
}

// submit makes a job or a run of the list, or tries that out. Its error gives the exit code.
func (s *submission) submit(ctx context.Context, service *client.Client) error {
	ids := s.request.InstanceIDs
	if s.dryRun {
		return s.tryOut(ctx, service)
	}
	if len(ids) > 1 && !s.yes && terminal.IsTerminal(s.std.In) {
		if err := askFirst(ctx, s.std, service, ids); err != nil {
			return err
		}
	}
	if ctx.Err() != nil { // while the list was read
		return fmt.Errorf("%w; nothing was sent", terminal.Cause(ctx))
	}
	if s.isRun {
		return s.makeRun(ctx, service)
	}
	return s.makeJob(ctx, service)
}

// askFirst has a person look once more at what is about to be destroyed, and whose it is. It
// fails unless the answer is yes.
func askFirst(ctx context.Context, std *terminal.Streams, c *client.Client, instances []string) error {
	who, err := c.WhoAmI(ctx)
	if err != nil {
		return err
	}
	return terminal.Confirm(ctx, std, fmt.Sprintf("%s: %s\nserver %s, tenant %s\nThis destroys the data on them. Go on?",
		terminal.Plural(len(instances), "instance"), terminal.SomeIDs(instances), c.Server(), tasks.Visible(who.Tenant)))
}

// patiently calls send with a context that outlives ctx for a while.
func patiently(ctx context.Context, send func(context.Context) error) error {
	sending, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace(ctx), abandon) })()
	return send(sending)
}

// grace is how long what is under way may take once ctx has ended.
func grace(ctx context.Context) time.Duration {
	if _, over := errors.AsType[*terminal.TimeoutError](context.Cause(ctx)); over {
		return timeoutGrace
	}
	return interruptGrace
}

// explained adds to why nothing was accepted, or not for certain, what can be done.
func (s *submission) explained(ctx context.Context, err error) error {
	e, answered := errors.AsType[*client.Error](err)
	switch {
	case answered && e.HTTPStatus == http.StatusNotFound && s.isRun:
		err = fmt.Errorf("the server has no runs, which more than %d instances, --run-id and --approval need: it is too old, or --server is wrong: %w", longestJob, err)
	case answered && e.Code == string(tasks.KeyReused) && s.keyFlag != "":
		err = fmt.Errorf("%s was used for another list or with other options: give those again, or another ID: %w", s.keyFlag, err)
	case answered && e.Code == string(tasks.KeyReused):
		err = fmt.Errorf("the file was retried with other options: give those again: %w", err)
	case errors.Is(err, client.ErrUncertain) && s.request.IdempotencyKey != "":
		err = fmt.Errorf("%w; or give %s: it finds what was accepted, or submits it", err, s.again())
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", terminal.Cause(ctx), err)
	}
	return err
}

// again is what to say to submit the same once more.
func (s *submission) again() string {
	var flags []string
	if s.keyFlag != "" {
		flags = append(flags, s.keyFlag+" "+s.request.IdempotencyKey)
	}
	if !s.request.NotBefore.IsZero() {
		flags = append(flags, "--not-before "+s.request.NotBefore.Format(time.RFC3339))
	}
	if flags == nil {
		return "the same command again"
	}
	return "the same command with " + strings.Join(flags, " ")
}
