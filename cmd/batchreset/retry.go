package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"batchreset/api/client"
	"batchreset/tasks"
)

// retryFlags are those of a retry from a result.
type retryFlags struct {
	batchOptions
	from    string
	unknown bool
	yes     bool
}

func newRetryCommand(std *streams) *cobra.Command {
	var flags callerFlags
	var r retryFlags
	var filter jobsFilter
	var states []string
	fromFile := pflag.NewFlagSet("", pflag.ContinueOnError)
	cmd := &cobra.Command{
		Use:   "retry JOB… | retry --label NAME=VALUE | retry --failed-from FILE",
		Short: "Try again what a job, or a whole list, did not reset",
		Long: `With the IDs of finished jobs, opens their instances that failed for another try, with a
new retry budget; with --state those in the states that it names: failed, unknown,
cancelled. Look at unknown ones first: their phone may have been reset, and this resets
it again. The others stay as they are. Prints the records as they are then, or with --wait
follows the jobs to their end.

With --label, --instance, --since or --until, which mean what they do for
'batchreset jobs', it does so for every job of your tenant that has ended, fits and has
such instances. On a terminal it asks before it begins.

With --failed-from, takes the result of 'submit --result' and submits those instances
whose state is 'failed', and no others, as new jobs, as 'submit' does. Unknown ones
belong to them only with --include-unknown. One whose record says something else by now
is left alone. The run ID is made from the rows: the same file can be given again if
this breaks off, and resets nothing twice. What fails once more is in the result of this
command. On a terminal it asks before it begins.

` + exitCodes,
		Example: `  batchreset retry 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f
  batchreset retry 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f --state failed,cancelled --wait
  batchreset retry --label site=lab --since 1h
  batchreset retry --failed-from recall-7.csv --result recall-7-again.csv`,
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
				if f.Changed && !isFromEnvironment(f) && f.Name != "wait" {
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
	flags.define(cmd.Flags())
	filter.define(cmd.Flags())
	cmd.Flags().Lookup("label").Usage = "only jobs with the label `name=value`, or with --failed-from one that the new jobs have; may be repeated"
	r.define(fromFile)
	fromFile.BoolVar(&r.unknown, "include-unknown", false, "also reset those again of which nobody knows whether they were reset")
	cmd.Flags().StringSliceVarP(&states, "state", "s", nil, "open the job's items in these `states`: failed (which is meant unless this is given), unknown, cancelled")
	cmd.Flags().StringVar(&r.from, "failed-from", "", "`file` of 'submit --result': submit again what failed")
	cmd.Flags().BoolVarP(&r.yes, "yes", "y", false, "do not ask")
	cmd.Flags().AddFlagSet(fromFile)
	yields(cmd.Flags(), "output", "result=-")
	yields(cmd.Flags(), "failed-from", arguments)
	alternatives(cmd.Flags(), "failed-from", "state")
	for _, name := range []string{"instance", "since", "until"} {
		yields(cmd.Flags(), name, arguments)
		alternatives(cmd.Flags(), "failed-from", name)
	}
	yields(cmd.Flags(), "label", arguments)
	yields(cmd.Flags(), "failed-from", "label") // with a file of the command line, a label is for the new jobs
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

// submit resets the failed rows of the file again.
func (r *retryFlags) submit(ctx context.Context, std *streams, flags *callerFlags) error {
	rows, err := readResult(r.from)
	if err != nil {
		return fmt.Errorf("--failed-from %s: %w", r.from, err)
	}
	chosen, left := r.choose(rows)
	if len(chosen) == 0 {
		fmt.Fprintf(std.err, "nothing to reset again (left alone: %s)\n", left)
		return nil
	}
	runID := "retry-" + digest(failures(chosen))
	batch, err := r.read(runID, time.Now())
	if err != nil {
		return err
	}
	result, err := newResultFile(r.result, r.from, flags.output)
	if err != nil {
		return err
	}
	notices := &notices{w: std.err}
	c, err := flags.connect(notices)
	if err != nil {
		return err
	}
	defer c.Close()
	instances, err := unchanged(ctx, c, chosen)
	if err != nil {
		return err
	}
	if n := len(chosen) - len(instances); n > 0 {
		fmt.Fprintf(notices, "%s left alone: the record is no longer what the file says, or is not kept any more\n", plural(n, "instance"))
	}
	if len(instances) == 0 {
		return errors.New("nothing was reset")
	}
	fmt.Fprintf(notices, "%s to reset again (left alone: %s)\n", plural(len(instances), "instance"), left)
	if !r.yes && isTerminal(std.in) {
		if err := confirm(ctx, std, "This destroys the data on them. Go on?"); err != nil {
			return err
		}
	}
	s := submission{
		runID: runID, instances: instances, result: result, wait: r.wait,
		output: flags.output, out: std.out, notices: notices,
	}
	return s.run(ctx, c, batch, r.batchOptions)
}

// choose returns the rows that are to be reset again, and says what the others are.
func (r *retryFlags) choose(rows []resultRow) (chosen []resultRow, left string) {
	others := map[string]int{}
	for _, row := range rows {
		switch state := tasks.ItemState(row.State); {
		case state == tasks.ItemFailed, state == tasks.ItemUnknown && r.unknown:
			chosen = append(chosen, row)
		default:
			others[row.State]++
		}
	}
	if left = statesInWords(others); left == "" {
		left = "none"
	}
	return chosen, left
}

// failures names what each row says in a way that no later failure of its item has.
func failures(rows []resultRow) (all []string) {
	for _, row := range rows {
		all = append(all, fmt.Sprintf("%s %d", row.ItemID, row.Attempts))
	}
	return all
}

// unchanged returns the instances of those rows that are still what their record says:
// the others may have been retried since, and reset.
func unchanged(ctx context.Context, c *client.Client, rows []resultRow) (instances []string, err error) {
	jobs := map[string]bool{}
	for _, row := range rows {
		job, _, _ := tasks.ParseItemID(row.ItemID) // was checked
		jobs[job] = true
	}
	now := map[string]client.Item{}
	if _, err := c.Read(ctx, slices.Sorted(maps.Keys(jobs)), func(job client.Job) {
		for _, it := range job.Items {
			now[it.ItemID] = it
		}
	}); err != nil {
		return nil, err
	}
	for _, row := range rows {
		if it := now[row.ItemID]; it.InstanceID == row.InstanceID && it.State == row.State && it.Attempts == row.Attempts {
			instances = append(instances, row.InstanceID)
		}
	}
	return instances, nil
}

func isTerminal(in io.Reader) bool {
	f, ok := in.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// confirm asks a question, and fails unless the answer is yes.
func confirm(ctx context.Context, std *streams, question string) error {
	fmt.Fprintf(std.prompts(), "%s [y/N] ", question)
	answered := make(chan string, 1)
	go func() { // reading from a terminal cannot be ended; the process is what ends
		answer, _ := bufio.NewReader(std.in).ReadString('\n') // no answer is no
		answered <- strings.ToLower(strings.TrimSpace(answer))
	}()
	select {
	case answer := <-answered:
		if answer == "y" || answer == "yes" {
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(std.err)
	}
	return errors.New("nothing was reset")
}
