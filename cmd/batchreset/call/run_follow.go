package call

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// mostTold is how many instances the summary of a run names: a list of all that failed may be long.
const mostTold = 20

func newRunWatchCommand(std *terminal.Streams) *cobra.Command {
	var (
		flags callerFlags
		path  string
	)
	cmd := &cobra.Command{
		Use:   "watch RUN",
		Short: "Follow a run to its end",
		Long: `Follows a run until it is final. On a terminal a progress bar shows how far it is;
otherwise there is a line now and then. Progress goes to standard error; the record, and the
first instances that were not reset, to standard output. A run that pauses is followed
further: somebody may resume it. --timeout bounds that.

If the server goes away, it waits until the server is back. Ctrl-C and --timeout end the
watching, not the run.

With --result there is a row for each instance at the end, as 'run results' has it. In a
file called ….xml it is a report in JUnit's form, in one called ….md a summary in Markdown:
the same as --output junit and markdown.

` + exitCodes,
		Example: `  batchreset run watch 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4
  batchreset run watch 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 --result recall-7.csv --timeout 12h
  batchreset run watch 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 --output markdown >> "$GITHUB_STEP_SUMMARY"`,
		Args: runArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			result, err := newResultFile(path, "", flags.output)
			if err != nil {
				return err
			}
			n := &notices{w: std.Err}
			c, err := flags.connect(n)
			if err != nil {
				return err
			}
			defer c.Close()
			f := runFollower{c, n, std.Out, flags.output, result}
			return f.follow(cmd.Context(), args[0])
		},
	}
	flags.define(cmd.Flags(), std, reportNames...)
	cmd.Flags().StringVar(&path, "result", "", "write a row for each instance to this `file`, a .csv or .jsonl, or a report: JUnit in an .xml, a summary in an .md; - is standard output, as CSV")
	terminal.Yields(cmd.Flags(), "output", "result=-")
	return cmd
}

// runFollower follows a run and shows what becomes of it.
type runFollower struct {
	service *client.Client
	notices *notices
	out     io.Writer
	output  terminal.Output
	result  *resultFile
}

// follow waits until the run has ended, and shows it. Its error gives the exit code.
func (f runFollower) follow(ctx context.Context, id string) error {
	run, err := f.wait(ctx, id)
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("%w; the run goes on; 'batchreset run watch %[2]s' follows it, 'run pause %[2]s' stops it for now, 'run cancel %[2]s' takes back what has not begun",
			terminal.Cause(ctx), id)
	case err != nil:
		return err
	}
	if err := f.result.writeEach(f.out, reportOfRun(run), runRows(ctx, f.service, id)); err != nil {
		return fmt.Errorf("%w; the run has ended: 'batchreset run results %s' has its rows", err, id)
	}
	if !f.result.onOutput() {
		v := runView(run)
		v.Text = func(w io.Writer) error { return f.writeSummary(ctx, w, run) }
		v.Others = reportForms(reportOfRun(run), runRows(ctx, f.service, id))
		if err := f.output.Show(f.out, v); err != nil {
			return err
		}
	}
	if run.State != string(tasks.RunSucceeded) {
		return &terminal.ExitError{Code: terminal.ExitSome}
	}
	return nil
}

// wait shows how far the run is, and each change of its state.
func (f runFollower) wait(ctx context.Context, id string) (client.Run, error) {
	latest := newTally(nil)
	changed, stop := showProgress(f.notices, latest)
	defer stop()
	last := ""
	return f.service.Runs().Wait(ctx, id, func(run client.Run) {
		latest.update(client.Job{ID: run.ID, State: run.State, Total: run.Total, Counts: run.Counts, Held: run.Held})
		if state := stateOf(run); state != last {
			last = state
			fmt.Fprintf(f.notices, "run %s: %s\n", id, tasks.Visible(state))
			switch {
			case run.State == string(tasks.RunPaused):
				fmt.Fprintf(f.notices, "it waits for somebody: 'batchreset run show %[1]s' tells why, 'run resume %[1]s' goes on, 'run cancel %[1]s' ends it\n", id)
			case run.Stage == "approval":
				fmt.Fprintf(f.notices, "it waits for somebody else: 'batchreset run approve %[1]s' lets it begin, 'run reject %[1]s' ends it\n", id)
			}
		}
		changed()
	})
}

// writeSummary shows the record and the first instances that were not reset.
func (f runFollower) writeSummary(ctx context.Context, w io.Writer, run client.Run) error {
	if err := writeRun(w, run); err != nil || ended(run.Counts) == run.Counts.Succeeded {
		return err
	}
	fmt.Fprintln(w)
	t := terminal.NewTable(w, "INSTANCE", "STATE", "ATTEMPTS", "CODE", "MESSAGE")
	told := 0
	states := []string{string(tasks.ItemFailed), string(tasks.ItemUnknown)}
	for row, err := range f.service.Runs().Results(ctx, run.ID, states...) {
		if err != nil {
			return err
		}
		if told++; told > mostTold {
			break
		}
		t.Row(row.InstanceID, row.State, strconv.Itoa(row.Attempts), row.Code, row.Message)
	}
	if told == 0 { // they were cancelled
		return nil
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if told > mostTold {
		fmt.Fprintf(w, "\nmore: batchreset run results %s --state failed,unknown\n", run.ID)
	}
	return nil
}

func newRunResultsCommand(std *terminal.Streams) *cobra.Command {
	var (
		flags  callerFlags
		states []string
	)
	cmd := &cobra.Command{
		Use:   "results RUN",
		Short: "List the instances of a run and what became of each",
		Long: `Prints a row for each instance of a run, in the order of its list, as they are now:
instance_id, job_id, item_id, state, attempts, error_code, error_msg, started_at,
finished_at, evidence. An instance that is not yet in a job is pending. A run that waits has
no rows.

With --output csv or jsonl the rows are printed as they come, however many there are; in a
CSV an apostrophe keeps a spreadsheet from taking a cell for a formula. The other forms
are made as a whole.

--output junit is for CI systems: a test for each instance. One that failed is a failure, one
that is unknown or has not ended is an error, one that was cancelled was skipped. It needs a
run that has ended, or is paused. If it breaks off, its last line is missing and the exit code
is not 0. --output markdown is a summary of the whole run as it is now: counts, and the
failures by code with the first instances of each.`,
		Example: `  batchreset run results 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 --state failed,unknown
  batchreset run results 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 --output junit > recall-7.xml
  batchreset run results 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 --output csv > recall-7.csv`,
		Args: runArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, state := range states {
				if !slices.Contains(tasks.ItemStates, tasks.ItemState(state)) {
					return fmt.Errorf("--state must be some of %v, not %q", tasks.ItemStates, state)
				}
			}
			c, err := flags.connect(&notices{w: std.Err})
			if err != nil {
				return err
			}
			defer c.Close()
			if slices.Contains(reportNames, flags.output.String()) {
				return reportResults(cmd.Context(), std.Out, c, flags.output, args[0], states)
			}
			return showResults(std.Out, flags.output, c.Runs().Results(cmd.Context(), args[0], states...))
		},
	}
	flags.define(cmd.Flags(), std, reportNames...)
	cmd.Flags().StringSliceVarP(&states, "state", "s", nil, "only instances in these `states`, such as failed,unknown")
	return cmd
}

// showResults prints rows as they come. If there are none because of an error, nothing is printed.
func showResults(out io.Writer, output terminal.Output, results iter.Seq2[client.RunResult, error]) error {
	next, stop := iter.Pull2(results)
	defer stop()
	row, err, more := next()
	if err != nil {
		return err
	}
	return output.Show(out, terminal.View{
		List: "instances", Columns: resultColumns,
		Rows: func(add func(any) error) error {
			for ; more; row, err, more = next() {
				if err != nil {
					return err
				}
				if err := add(row); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// reportResults prints a report of a run, and of its instances in some states if any are named.
func reportResults(ctx context.Context, out io.Writer, c *client.Client, output terminal.Output, id string, states []string) error {
	if output == formMarkdown && len(states) > 0 {
		return errors.New("--state and --output markdown do not go together: a summary is of the whole run")
	}
	run, err := c.Runs().Get(ctx, id)
	if err != nil {
		return err
	}
	if output == formJUnit && !run.Final() && run.State != string(tasks.RunPaused) {
		return terminal.WithCode(terminal.ExitRefused, fmt.Errorf(
			"the run is %s: a report in JUnit's form is of a run that has ended, or is paused; 'batchreset run watch %s --output junit' waits for its end", run.State, id))
	}
	return output.Show(out, terminal.View{Others: reportForms(reportOfRun(run).only(states), runRows(ctx, c, id, states...))})
}

// runRows are the rows of a run's results, or of those in some states, as they come.
func runRows(ctx context.Context, c *client.Client, id string, states ...string) eachRow {
	return func(add func(resultRow) error) error {
		for row, err := range c.Runs().Results(ctx, id, states...) {
			if err != nil {
				return err
			}
			if err := add(resultRow(row)); err != nil {
				return err
			}
		}
		return nil
	}
}
