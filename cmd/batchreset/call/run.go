package call

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

func newRunCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Reset a list of any length as one thing",
		Long: `A run is a list of any length that the service resets as one thing: it makes the
jobs, one after the other, counts, and stops by itself when too much goes wrong. Nothing of
it depends on this machine: close your laptop, the run goes on.

A careful run begins with a canary, a few instances that must all succeed. Then come waves,
each larger than the one before, until --max-parallel instances are open at a time. When
more have failed than --max-failures allows, or one of the canary has, the run pauses and
waits for you: look why with 'run show' and 'run results', then 'run resume' or 'run cancel'.
What it did not reset is tried again with 'run retry'.

With --approval, or where your tenant's policy asks for it, nothing begins before somebody
else has approved the list: 'run approve', 'run reject'.`,
		Example: `  batchreset run submit --file phones.txt --canary 10 --soak 10m --max-failures 2% --wait
  batchreset run list --state paused
  batchreset run pause 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4`,
		Args: terminal.NoArgs,
	}
	cmd.AddCommand(
		newRunSubmitCommand(std), newRunListCommand(std), newRunShowCommand(std), newRunWatchCommand(std),
		newRunPauseCommand(std), newRunResumeCommand(std), newRunCancelCommand(std), newRunRetryCommand(std), newRunResultsCommand(std),
		newRunApproveCommand(std), newRunRejectCommand(std), newRunProofCommand(std),
	)
	return cmd
}

// runArg refuses anything but one run ID.
func runArg(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return fmt.Errorf("the run ID is missing (see '%s --help'; 'batchreset run list' lists your runs)", cmd.CommandPath())
	case len(args) > 1:
		return fmt.Errorf("unexpected argument %q (see '%s --help')", args[1], cmd.CommandPath())
	case !tasks.ValidJobID(args[0]):
		return fmt.Errorf("%.80q is not a run ID, which is 32 characters of 0-9 a-f", args[0])
	}
	return nil
}

func newRunListCommand(std *terminal.Streams) *cobra.Command {
	var (
		flags  callerFlags
		filter client.RunsFilter
		made   period
		bound  howMany
	)
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List your runs, newest first",
		Long: `Lists the runs of your tenant, newest first. Look here when a submit broke off
and you do not know whether the run was made. --since and --until are about the time at
which a run was made.`,
		Example: `  batchreset run list
  batchreset run list --state paused
  batchreset run list --label ticket=T-4711 --since 48h --output json`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkRunsFilter(&filter, made, time.Now()); err != nil {
				return err
			}
			limit, err := bound.read()
			if err != nil {
				return err
			}
			c, err := flags.connect(&notices{w: std.Err})
			if err != nil {
				return err
			}
			defer c.Close()
			runs, err := listRuns(cmd.Context(), c, filter, limit)
			if err != nil {
				return err
			}
			if len(runs) == 0 {
				fmt.Fprintln(std.Err, "no runs")
			}
			records := make([]json.RawMessage, 0, len(runs))
			for _, run := range runs {
				records = append(records, run.Record)
			}
			return flags.output.Show(std.Out, terminal.View{
				List: "runs", Rows: terminal.Each(records), Columns: runColumns,
				Table: func(w io.Writer) error { return writeRuns(w, runs) },
			})
		},
	}
	flags.define(cmd.Flags(), std)
	cmd.Flags().StringVarP(&filter.State, "state", "s", "", "only runs in this `state`: waiting, running, paused, succeeded, failed, partial, cancelled, rejected or expired")
	cmd.Flags().StringArrayVarP(&filter.Labels, "label", "l", nil, "only runs with the label `name=value`; may be repeated, and a run must have all")
	made.define(cmd.Flags(), "runs")
	bound.define(cmd.Flags(), "run")
	return cmd
}

// checkRunsFilter checks the flags that select runs, and reads the times.
func checkRunsFilter(f *client.RunsFilter, made period, now time.Time) (err error) {
	if f.State != "" && !slices.Contains(tasks.RunStates, tasks.RunState(f.State)) {
		return fmt.Errorf("--state must be one of %v, not %q", tasks.RunStates, f.State)
	}
	if err := tasks.CheckLabelFilter(f.Labels); err != nil {
		return fmt.Errorf("--label %w", err)
	}
	f.Since, f.Until, err = made.read(now)
	return err
}

// listRuns lists limit runs at most; all, if limit is negative.
func listRuns(ctx context.Context, c *client.Client, filter client.RunsFilter, limit int) ([]client.Run, error) {
	filter.Limit = pageOf(limit)
	return firstOf(c.Runs().List(ctx, filter), limit)
}

var runColumns = []string{
	"run_id", "name", "state", "stage", "created_at", "started_at", "finished_at", "total",
	"counts.pending", "counts.running", "counts.retrying", "counts.succeeded", "counts.failed", "counts.unknown", "counts.cancelled",
	"reason", "labels",
}

func writeRuns(w io.Writer, runs []client.Run) error {
	if len(runs) == 0 {
		return nil
	}
	t := terminal.NewTable(w, "RUN", "NAME", "STATE", "CREATED", "TOOK", "INSTANCES", "")
	for _, run := range runs {
		t.Row(run.ID, run.Name, stateOf(run), terminal.Clock(run.CreatedAt), terminal.Took(run.StartedAt, run.FinishedAt), strconv.Itoa(run.Total), countsInWords(run.Counts))
	}
	return t.Flush()
}

// stateOf is the state of a run, and how far it is.
func stateOf(run client.Run) string {
	if run.Stage == "" {
		return run.State
	}
	return run.State + " (" + run.Stage + ")"
}

func newRunShowCommand(std *terminal.Streams) *cobra.Command {
	return newRunRecordCommand(std, &cobra.Command{
		Use:   "show RUN",
		Short: "Show the record of a run",
		Long: `Shows a run as it is now: its state and stage, how many of its instances are in which
state, which errors were the most frequent, and how fast it goes. An instance that is not
yet in a job is pending. The exit code is 0 if the run exists, whatever became of it; 'run
watch' has one that tells.

With --output json the record is printed just as the service has it.`,
		Example: `  batchreset run show 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4
  batchreset run show 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 --output json | jq .counts`,
	}, client.Runs.Get)
}

func newRunPauseCommand(std *terminal.Streams) *cobra.Command {
	return newRunRecordCommand(std, &cobra.Command{
		Use:   "pause RUN",
		Short: "Begin nothing more of a run for now",
		Long: `Pauses a run: within a second nothing more of it begins. Attempts that are running go on
to their end. 'run resume' goes on with it, 'run cancel' ends it. Needs a token with the
scope cancel. Prints the record as it is then.`,
		Example: `  batchreset run pause 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4`,
	}, client.Runs.Pause)
}

func newRunCancelCommand(std *terminal.Streams) *cobra.Command {
	return newRunRecordCommand(std, &cobra.Command{
		Use:   "cancel RUN",
		Short: "Cancel what a run has not begun, for good",
		Long: `Cancels every instance of a run that has not begun. Attempts that are running end by
themselves and are not repeated: a reset that was sent cannot be called back. Unlike a
pause this cannot be undone. Needs a token with the scope cancel. Prints the record as
it is then.`,
		Example: `  batchreset run cancel 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4`,
	}, client.Runs.Cancel)
}

func newRunResumeCommand(std *terminal.Streams) *cobra.Command {
	var maxFailures string
	cmd := newRunRecordCommand(std, &cobra.Command{
		Use:   "resume RUN",
		Short: "Go on with a run that is paused",
		Long: `Goes on with a run that is paused, by somebody or because too many failed. A run that
has used up its budget pauses again at the next failure, unless --max-failures gives it a
new one. The new budget replaces the old one and counts from the start of the run: if 7
have failed already, --max-failures 10 leaves 3. Needs a token with the scope cancel.
Prints the record as it is then.`,
		Example: `  batchreset run resume 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4
  batchreset run resume 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 --max-failures 5%`,
	}, func(runs client.Runs, ctx context.Context, id string) (client.Run, error) {
		if _, err := tasks.ParseBudget(maxFailures); err != nil {
			return client.Run{}, fmt.Errorf("--max-failures %w", err)
		}
		return runs.Resume(ctx, id, client.Budget(maxFailures))
	})
	cmd.Flags().StringVar(&maxFailures, "max-failures", "", "new `budget`: a number, or a percentage such as 5% (default: the run's)")
	return cmd
}

// newRunRecordCommand completes a command that asks for a run and prints its record.
func newRunRecordCommand(std *terminal.Streams, cmd *cobra.Command, ask func(client.Runs, context.Context, string) (client.Run, error)) *cobra.Command {
	var flags callerFlags
	cmd.Args = runArg
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := flags.connect(&notices{w: std.Err})
		if err != nil {
			return err
		}
		defer c.Close()
		run, err := ask(c.Runs(), cmd.Context(), args[0])
		if err != nil {
			return err
		}
		return flags.output.Show(std.Out, runView(run))
	}
	flags.define(cmd.Flags(), std)
	return cmd
}

// runView shows one run.
func runView(run client.Run) terminal.View {
	return terminal.View{
		Document: run.Record, Rows: terminal.Each([]json.RawMessage{run.Record}), Columns: runColumns,
		Table: func(w io.Writer) error { return writeRuns(w, []client.Run{run}) },
		Text:  func(w io.Writer) error { return writeRun(w, run) },
	}
}

func writeRun(w io.Writer, run client.Run) error {
	t := terminal.NewTable(w, "Run", run.ID)
	row := func(name, value string) {
		if value != "" {
			t.Row(name, value)
		}
	}
	row("Name", run.Name)
	row("State", stateOf(run))
	row("Instances", strconv.Itoa(run.Total)+": "+countsInWords(run.Counts))
	if run.Round > 1 {
		row("Round", strconv.Itoa(run.Round))
	}
	row("Asked for by", run.Principal)
	approvalRows(row, run.Approval)
	row("Created", terminal.Clock(run.CreatedAt))
	if run.State == string(tasks.RunWaiting) {
		row("Begins", terminal.Clock(run.NotBefore))
	}
	row("Started", terminal.Clock(run.StartedAt))
	row("Finished", terminal.Clock(run.FinishedAt))
	if run.RatePerSecond > 0 {
		row("Pace", fmt.Sprintf("%.3g/s, until about %s", run.RatePerSecond, terminal.Clock(run.EstimatedFinishAt)))
	}
	if run.Held.Reason != "" {
		row("Waits", run.Held.Reason+", since "+terminal.Clock(run.Held.Since))
	}
	var failures []string
	for _, f := range run.Failures {
		failures = append(failures, fmt.Sprintf("%d %s", f.Count, f.Code))
	}
	row("Failures", strings.Join(failures, ", "))
	row("Options", runOptionsInWords(run))
	row("List", "sha256 "+run.ListSHA256)
	row("Request ID", run.RequestID)
	row("Reason", run.Reason)
	row("Labels", labelsInWords(run.Labels))
	return t.Flush()
}

// approvalRows tell what a run needs, if it needs any, and who has decided what.
func approvalRows(row func(name, value string), a client.Approval) {
	if a.Approvers == 0 {
		return
	}
	row("Approval", approvalInWords(a))
	for _, d := range a.Decisions {
		row("Decision", fmt.Sprintf("%s by %s, %s: %s", d.Decision, d.Principal, terminal.Clock(d.At), d.Comment))
	}
}

// approvalInWords tells how many have approved, and until when the others can.
func approvalInWords(a client.Approval) string {
	approved := 0
	for _, d := range a.Decisions {
		if d.Decision == string(tasks.Approved) {
			approved++
		}
	}
	words := fmt.Sprintf("%d of %d", approved, a.Approvers)
	if approved < a.Approvers {
		words += ", until " + terminal.Clock(a.ExpiresAt)
	}
	return words
}

// runOptionsInWords tells how a run goes on.
func runOptionsInWords(run client.Run) string {
	words := []string{fmt.Sprintf("max-parallel %d", run.MaxParallel)}
	if run.Canary > 0 {
		words = append(words, fmt.Sprintf("canary %d", run.Canary), fmt.Sprintf("growth %g", run.Growth))
	}
	if run.Soak != "" {
		words = append(words, "soak "+run.Soak)
	}
	if run.MaxFailures != "" {
		words = append(words, "max-failures "+string(run.MaxFailures))
	}
	return strings.Join(words, ", ")
}
