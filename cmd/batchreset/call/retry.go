package call

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// retryFlags are those of a retry from a result.
type retryFlags struct {
	batchOptions
	from    string
	unknown bool
}

const retryHelp = `With the IDs of finished jobs, opens their instances that failed for another try, with a
new retry budget; with --state those in the states that it names: failed, unknown,
cancelled. Look at unknown ones first: their phone may have been reset, and this resets
it again. The others stay as they are. Prints the records as they are then, or with --wait
follows the jobs to their end.

With --label, --instance, --since or --until (as for 'batchreset jobs') it does so for
every job of your tenant that matches, has ended and has such instances. On a terminal it
asks before it begins.

With --failed-from, takes the result of 'submit --result' and submits those instances
whose state is 'failed', and no others, as new jobs, as 'submit' does. Unknown ones are
included only with --include-unknown. The record on the server decides, not the file: if
an instance was retried since, its newest record counts. So the same file can be given
again: a command that was interrupted goes on, an instance that failed again is tried
again, and one that was reset since is not reset again. The result has a row for each
instance that is retried. On a terminal it asks before it begins.

` + exitCodes

const retryExamples = `  batchreset retry 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f
  batchreset retry 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f --state failed,cancelled --wait
  batchreset retry --label site=lab --since 1h
  batchreset retry --failed-from recall-7.csv --result recall-7-again.csv`

func newRetryCommand(std *terminal.Streams) *cobra.Command {
	var flags callerFlags
	var r retryFlags
	var filter jobsFilter
	var states []string
	fromFile := pflag.NewFlagSet("", pflag.ContinueOnError)
	cmd := &cobra.Command{
		Use:     "retry JOB… | retry --label NAME=VALUE | retry --failed-from FILE",
		Short:   "Try again what a job, or a whole list, did not reset",
		Long:    retryHelp,
		Example: retryExamples,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			switch {
			case r.from != "" && len(args) > 0:
				return errors.New("a job and --failed-from do not go together")
			case r.from != "":
				if r.labels, err = filter.asLabels(); err != nil {
					return err
				}
				return r.submit(cmd.Context(), std, &flags)
			}
			if err := filter.checkArgs(cmd, args, false); err != nil {
				return err
			}
			fromFile.VisitAll(func(f *pflag.Flag) {
				if f.Changed && !terminal.FromEnvironment(f) && f.Name != "wait" {
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
	cmd.Flags().Lookup("label").Usage = "only jobs with the label `name=value`, or with --failed-from one that the new jobs have; may be repeated"
	r.define(fromFile)
	fromFile.BoolVar(&r.unknown, "include-unknown", false, "also reset those again of which nobody knows whether they were reset")
	cmd.Flags().StringSliceVarP(&states, "state", "s", nil, "open the job's items in these `states`: failed (the default), unknown, cancelled")
	cmd.Flags().StringVar(&r.from, "failed-from", "", "`file` of 'submit --result': submit again what failed")
	cmd.Flags().BoolVarP(&r.yes, "yes", "y", false, "do not ask")
	cmd.Flags().AddFlagSet(fromFile)
	terminal.Yields(cmd.Flags(), "output", "result=-")
	terminal.Yields(cmd.Flags(), "failed-from", terminal.Arguments)
	terminal.Alternatives(cmd.Flags(), "failed-from", "state")
	for _, name := range []string{"instance", "since", "until"} {
		terminal.Yields(cmd.Flags(), name, terminal.Arguments)
		terminal.Alternatives(cmd.Flags(), "failed-from", name)
	}
	terminal.Yields(cmd.Flags(), "label", terminal.Arguments)
	terminal.Yields(cmd.Flags(), "failed-from", "label") // with a file of the command line, a label is for the new jobs
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
