package call

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

const runSubmitHelp = `Makes a run of instances, named as arguments or in a file as for 'submit': one ID per
line, a CSV with the column instance_id, or a .jsonl. They go in this order. An ID that is
named twice is reset once. The service takes the whole list or nothing: if one instance
is not yours, or is protected, nothing is reset.

On a terminal it asks before it resets more than one instance, unless there is --yes.

How careful the run is, is yours to say:

  --canary 10        these go first, and all must succeed; otherwise the run pauses
  --soak 10m         then wait, so that somebody can look
  --growth 2         then waves of 20, 40, 80, … instances
  --max-parallel 320 never more than so many open at a time
  --max-failures 2%  pause once more have failed, or are unknown: a number (0 = none
                     may), or a percentage of those that have ended, which counts once
                     20 have

The run ID is printed to standard output as soon as it is known. With --wait the command
follows the run, as 'run watch' does. Ctrl-C and --timeout leave the run running.

With --idempotency-key the command is safe to repeat: the same list and options under the
same key are the same run. Another list, or other options, are refused. Without one it
makes one up, and says it if no answer comes.

With --dry-run nothing is reset or kept: each instance is listed with would_reset, unknown
(not registered, or another tenant's), protected, or busy (it would wait for the reset that
is under way). Exit code 0 then means that none would be refused, 2 that some would.

` + exitCodes + `
Without --wait, 0 means that the run was made.`

// runSubmitCommand is a command line of run submit.
type runSubmitCommand struct {
	std       *terminal.Streams
	flags     callerFlags
	request   client.RunRequest
	soak      time.Duration
	budget    string
	notBefore string
	file      string
	result    string
	wait      bool
	dryRun    bool
	yes       bool
}

func newRunSubmitCommand(std *terminal.Streams) *cobra.Command {
	c := runSubmitCommand{std: std}
	cmd := &cobra.Command{
		Use:   "submit [ID…]",
		Short: "Reset a list of any length, which destroys the data on the instances",
		Long:  runSubmitHelp,
		Example: `  batchreset run submit --file phones.txt
  batchreset run submit --file phones.txt --name 'recall 7' --canary 10 --soak 10m --max-failures 2% --wait
  batchreset run submit --file phones.txt --idempotency-key recall-7 --result recall-7.csv
  batchreset run submit --file phones.txt --dry-run --output csv`,
		RunE: c.run,
	}
	c.define(cmd.Flags())
	return cmd
}

func (c *runSubmitCommand) define(flags *pflag.FlagSet) {
	r := &c.request
	c.flags.define(flags, c.std)
	flags.StringVarP(&c.file, "file", "f", "", "`file` with one instance ID per line, or a CSV with the column instance_id; - is standard input")
	flags.StringVar(&r.Name, "name", "", "`name` for people, up to 128 characters")
	flags.IntVar(&r.Canary, "canary", 0, "how many instances go first; all of them must succeed; 0 = none")
	flags.DurationVar(&c.soak, "soak", 0, "how long to wait after the canary, such as 30s or 10m")
	flags.Float64Var(&r.Growth, "growth", 0, "how many times as large each wave after the canary is as the one before (default 2)")
	flags.IntVar(&r.MaxParallel, "max-parallel", tasks.DefaultMaxParallel, "how many instances may be open at a time")
	flags.StringVar(&c.budget, "max-failures", "", "`budget`: pause the run once more than so many have failed or are unknown: a number, or a percentage such as 2% (default: any number may)")
	flags.StringVar(&c.notBefore, "not-before", "", "`time` at which the first reset may begin, such as 2026-01-02T15:04:05Z or 10m from now; until then 'batchreset run cancel' takes all back")
	flags.StringVar(&r.Reason, "reason", "", "`text` that is kept in the record: why")
	flags.StringToStringVarP(&r.Labels, "label", "l", nil, "`name=value` that is kept in the record; may be repeated")
	flags.StringVar(&r.IdempotencyKey, "idempotency-key", "", "`key` that makes this command safe to repeat: 1 to 255 printable characters")
	flags.BoolVar(&c.dryRun, "dry-run", false, "only say what would become of each instance")
	flags.BoolVarP(&c.wait, "wait", "w", false, "follow the run to its end")
	flags.StringVar(&c.result, "result", "", "wait, and write a row for each instance to this `file`, a .csv or .jsonl; - is standard output, as CSV")
	flags.BoolVarP(&c.yes, "yes", "y", false, "do not ask")
	terminal.Yields(flags, "output", "result=-")
	terminal.Yields(flags, "file", terminal.Arguments)
	terminal.Yields(flags, "wait", "dry-run")
	terminal.Yields(flags, "result", "dry-run")
}

func (c *runSubmitCommand) run(cmd *cobra.Command, args []string) error {
	if c.dryRun && (c.wait || c.result != "") {
		return errors.New("--dry-run does not go together with --wait or --result: a dry run makes no run")
	}
	result, err := newResultFile(c.result, c.file, c.flags.output)
	if err != nil {
		return err
	}
	list, err := readInstances(args, c.file, c.std.In)
	if err != nil {
		return err
	}
	if len(list.generations) > 0 { // to leave them out would reset what was assigned to others
		return fmt.Errorf("--file %s has the column %s, which a run cannot look at yet: leave the column out, or use 'batchreset submit'", c.file, generationColumn)
	}
	c.request.InstanceIDs = list.ids
	if err := c.check(cmd.Flags().Changed("growth"), time.Now()); err != nil {
		return err
	}
	notices := &notices{w: c.std.Err}
	service, err := c.flags.connect(notices)
	if err != nil {
		return err
	}
	defer service.Close()
	if list.repeats > 0 {
		fmt.Fprintf(notices, "%s folded: each instance is reset once\n", terminal.Plural(list.repeats, "repeated ID"))
	}
	if c.dryRun {
		return c.tryOut(cmd.Context(), service)
	}
	if len(list.ids) > 1 && !c.yes && terminal.IsTerminal(c.std.In) {
		if err := askFirst(cmd.Context(), c.std, service, list.ids); err != nil {
			return err
		}
	}
	run, err := c.submit(cmd.Context(), service)
	if err != nil {
		return err
	}
	if c.wait || result != nil {
		fmt.Fprintf(notices, "run %s: %s\n", run.ID, terminal.Plural(run.Total, "instance"))
		f := runFollower{service, notices, c.std.Out, c.flags.output, result}
		return f.follow(cmd.Context(), run.ID)
	}
	v := runView(run)
	v.Text = func(w io.Writer) error { return terminal.Line(tasks.Visible(run.ID))(w) }
	return c.flags.output.Show(c.std.Out, v)
}

// check checks the options and completes the request.
func (c *runSubmitCommand) check(growthGiven bool, now time.Time) error {
	r := &c.request
	if err := tasks.CheckRunName(r.Name); err != nil {
		return fmt.Errorf("--name %w", err)
	}
	if err := tasks.CheckReason(r.Reason); err != nil {
		return fmt.Errorf("--reason %w", err)
	}
	if err := tasks.CheckLabels(r.Labels); err != nil {
		return fmt.Errorf("--label %w", err)
	}
	budget, err := tasks.ParseBudget(c.budget)
	if err != nil {
		return fmt.Errorf("--max-failures %w", err)
	}
	r.MaxFailures = client.Budget(c.budget)
	o := tasks.RunOptions{MaxParallel: r.MaxParallel, Canary: r.Canary, Soak: tasks.Duration(c.soak), Growth: r.Growth, MaxFailures: budget}
	switch {
	case growthGiven && r.Growth < 1:
		return fmt.Errorf("--growth must be from 1 to %d", tasks.MaxGrowth)
	case !growthGiven && r.Canary > 0:
		o.Growth = tasks.DefaultGrowth
	}
	if err := o.Check(len(r.InstanceIDs)); err != nil { // a sentence that begins with the option
		return fmt.Errorf("--%s", strings.Replace(err.Error(), "max_parallel", "max-parallel", 1))
	}
	if c.soak > 0 {
		r.Soak = c.soak.String()
	}
	safe := ""
	if r.IdempotencyKey != "" {
		safe = "an --idempotency-key"
	}
	r.NotBefore, err = firstReset(c.notBefore, safe, now)
	return err
}

func (c *runSubmitCommand) tryOut(ctx context.Context, service *client.Client) error {
	var all []client.Verdict
	for verdict, err := range service.Runs().DryRun(ctx, c.request) {
		if err != nil {
			return err
		}
		all = append(all, verdict)
	}
	return showVerdicts(c.std.Out, all, c.flags.output)
}

// submit makes the run. If nobody can say whether it was made, the error says how to find out.
func (c *runSubmitCommand) submit(ctx context.Context, service *client.Client) (client.Run, error) {
	c.request.IdempotencyKey = cmp.Or(c.request.IdempotencyKey, newRunID())
	run, err := service.Runs().Submit(ctx, c.request)
	if errors.Is(err, client.ErrUncertain) {
		again := "--idempotency-key " + c.request.IdempotencyKey
		if !c.request.NotBefore.IsZero() {
			again += " --not-before " + c.request.NotBefore.Format(time.RFC3339)
		}
		err = fmt.Errorf("%w; or give the same command with %s: it finds the run, or makes it", err, again)
	}
	return run, err
}
