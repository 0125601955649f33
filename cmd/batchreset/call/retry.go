package call

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

const retryHelp = `With the IDs of finished jobs, opens their instances that failed for another try, with a
new retry budget; with --state those in the states that it names: failed, unknown,
cancelled. Look at unknown ones first: their phone may have been reset, and this resets
it again. The others stay as they are. Prints the records as they are then, or with --wait
follows the jobs to their end. A run is tried again with 'batchreset run retry'.

With --label, --instance, --since or --until (as for 'batchreset jobs') it does so for
every job of your tenant that matches, has ended and has such instances. On a terminal it
asks before it begins.

With --failed-from, takes the result of 'submit --result' or 'run results' of another server
and submits those instances whose state is 'failed', and no others, as a new list, as
'submit' does: up to 32 as a job, more as a run. Unknown ones are included only with
--include-unknown. A file of jobs that this server has is refused: their records know what
has become of the instances since. The same file given again finds what it was submitted
as, and resets nothing twice; what has failed since is a matter of that job, or run.

` + exitCodes

const retryExamples = `  batchreset retry 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f
  batchreset retry 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f --state failed,cancelled --wait
  batchreset retry --label site=lab --since 1h
  batchreset retry --failed-from recall-7.csv --result recall-7-again.csv`

func newRetryCommand(std *terminal.Streams) *cobra.Command {
	var (
		flags  callerFlags
		filter jobsFilter
		states []string
	)
	r := fileRetry{submission: submission{std: std, output: &flags.output, followsRuns: true}}
	fromFile := pflag.NewFlagSet("", pflag.ContinueOnError)
	cmd := &cobra.Command{
		Use:     "retry JOB… | retry --label NAME=VALUE | retry --failed-from FILE",
		Short:   "Try again what jobs, or a list of another server, did not reset",
		Long:    retryHelp,
		Example: retryExamples,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			switch {
			case r.from != "" && len(args) > 0:
				return errors.New("a job and --failed-from do not go together")
			case r.from != "":
				if r.request.Labels, err = filter.asLabels(); err != nil {
					return err
				}
				return r.run(cmd.Context(), &flags)
			}
			if err := filter.checkArgs(cmd, args, false); err != nil {
				return err
			}
			fromFile.VisitAll(func(f *pflag.Flag) {
				if origin, _ := terminal.OriginOf(f); origin == terminal.FromCommandLine && f.Name != "wait" && f.Name != "yes" {
					err = fmt.Errorf("--%s goes with --failed-from, not with a job", f.Name)
				}
			})
			if err != nil {
				return err
			}
			jobs := jobRetry{&flags, &filter, states, r.wait, r.yes}
			return jobs.run(cmd.Context(), std, args)
		},
	}
	flags.define(cmd.Flags(), std)
	filter.define(cmd.Flags())
	cmd.Flags().Lookup("label").Usage = "only jobs with the label `name=value`, or with --failed-from one of what is submitted; may be repeated"
	r.define(fromFile)
	cmd.Flags().AddFlagSet(fromFile)
	cmd.Flags().StringSliceVarP(&states, "state", "s", nil, "open the job's items in these `states`: failed (the default), unknown, cancelled")
	cmd.Flags().StringVar(&r.from, "failed-from", "", "`file` of 'submit --result' of another server: submit again what failed")
	terminal.Yields(cmd.Flags(), "output", "result=-")
	terminal.Yields(cmd.Flags(), "failed-from", terminal.Arguments)
	terminal.Alternatives(cmd.Flags(), "failed-from", "state")
	for _, name := range []string{"instance", "since", "until"} {
		terminal.Yields(cmd.Flags(), name, terminal.Arguments)
		terminal.Alternatives(cmd.Flags(), "failed-from", name)
	}
	terminal.Yields(cmd.Flags(), "label", terminal.Arguments)
	terminal.Yields(cmd.Flags(), "failed-from", "label") // with a file of the command line, a label is for what is submitted
	return cmd
}

// checkStates checks what --state names, if it is given.
func checkStates(names []string) error {
	if names == nil {
		return nil
	}
	states := make([]tasks.ItemState, len(names))
	for i, name := range names {
		states[i] = tasks.ItemState(name)
	}
	if err := tasks.CheckRetryStates(states); err != nil {
		return fmt.Errorf("--state %w", err)
	}
	return nil
}

// fileRetry submits what failed, by a result of another server.
type fileRetry struct {
	submission
	from    string
	unknown bool
}

func (r *fileRetry) define(flags *pflag.FlagSet) {
	r.submission.define(flags)
	flags.IntVar(&r.maxFailures, "max-failures", 0, "stop the rest of a job once so many of its instances failed; 0 = never")
	flags.BoolVar(&r.unknown, "include-unknown", false, "also reset those again of which nobody knows whether they were reset")
}

func (r *fileRetry) run(ctx context.Context, flags *callerFlags) error {
	rows, err := readResult(r.from)
	if err != nil {
		return fmt.Errorf("--failed-from %s: %w", r.from, err)
	}
	if err := r.check(r.from, time.Now()); err != nil {
		return err
	}
	chosen, left := r.choose(rows)
	if len(chosen) == 0 {
		fmt.Fprintf(r.notices, "nothing to reset again (left alone: %s)\n", left)
		return errors.Join(r.showJob(following{errors: []jobError{}}), r.result.write(r.std.Out, nil))
	}
	r.request.IdempotencyKey = retryID(chosen)
	var instances []string
	for _, row := range chosen {
		instances = append(instances, row.InstanceID)
	}
	if err := r.take(instances, nil); err != nil {
		return err
	}
	service, err := flags.connect(r.notices)
	if err != nil {
		return err
	}
	defer service.Close()
	if err := checkElsewhere(ctx, service, chosen); err != nil {
		return fmt.Errorf("--failed-from %s: %w", r.from, err)
	}
	fmt.Fprintf(r.notices, "%s to reset again (left alone: %s)\n", terminal.Plural(len(chosen), "instance"), left)
	return r.submit(ctx, service)
}

// choose returns the rows that are to be reset again, and says what the others are.
func (r *fileRetry) choose(rows []resultRow) (chosen []resultRow, left string) {
	others := map[string]int{}
	for _, row := range rows {
		state := tasks.ItemState(row.State)
		if state == tasks.ItemFailed || state == tasks.ItemUnknown && r.unknown {
			chosen = append(chosen, row)
		} else {
			others[row.State]++
		}
	}
	return chosen, cmp.Or(statesInWords(others), "none")
}

// retryID is the key under which rows are submitted: made from what each says in a way that no
// later failure of its item has.
func retryID(rows []resultRow) string {
	h := sha256.New()
	for _, row := range rows {
		_, _ = fmt.Fprintf(h, "%s %d\n", row.ItemID, row.Attempts) // never fails
	}
	return fmt.Sprintf("retry-%x", h.Sum(nil))
}

// checkElsewhere refuses rows of jobs whose records the server has: those know what has become of
// the instances since.
func checkElsewhere(ctx context.Context, service *client.Client, rows []resultRow) error {
	named := map[string]bool{}
	for _, row := range rows {
		job, _, _ := tasks.ParseItemID(row.ItemID) // was checked
		named[job] = true
	}
	runs, jobs := map[string]bool{}, map[string]bool{}
	_, err := service.Read(ctx, slices.Sorted(maps.Keys(named)), func(job client.Job) {
		if job.RunID != "" {
			runs[job.RunID] = true
		} else {
			jobs[job.ID] = true
		}
	})
	var instead []string
	for _, run := range slices.Sorted(maps.Keys(runs)) {
		instead = append(instead, "'batchreset run retry "+run+"'")
	}
	if len(jobs) > 0 {
		instead = append(instead, "'batchreset retry "+terminal.SomeIDs(slices.Sorted(maps.Keys(jobs)))+"'")
	}
	if err != nil || instead == nil {
		return err
	}
	return fmt.Errorf("this server has the records of these instances, which know what has become of them since: use %s", strings.Join(instead, " and "))
}
