package call

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
)

const submitHelp = `Asks the service to reset instances, named as arguments or in a file with one ID
per line; blank lines and lines that begin with # are skipped. The file can also be a
CSV with the column instance_id, or a .jsonl, in the form of 'fleet import' or of --result:
then every instance in it is reset, whatever the other columns say. An ID that is named
twice is reset once. The whole list is read and checked before anything is sent. The
service takes the whole list or nothing: if one instance is not yours, or is protected,
nothing is reset.

On a terminal it asks before it resets more than one instance, unless there is --yes.

Up to 32 instances become one job. Its ID is printed to standard output, and with --wait the
command follows it to its end.

More than 32 become a run: the service resets them as one thing, job by job, and nothing of
that depends on this machine. The command follows the run to its end; with --wait=false it
prints the ID of the run and ends. Ctrl-C and --timeout leave the run running, and the
command says how to watch, pause and cancel it. How careful a run is, with a canary, waves
and a budget of failures, is for 'batchreset run submit' to say.

With --approval the instances become a run whatever their number, and nothing begins
before somebody else has approved it ('batchreset run approve').

With --run-id they become a run whatever their number, too, and the command is safe to
repeat: if it was interrupted, or no answer came, the same command finds the run and
follows it. Another list, or other options, are refused under the same ID. This holds for
as long as the service keeps the record of the run (7 days after its end, unless it was
told otherwise).

With --result there is a row for each instance at the end, written as a whole:
instance_id, job_id, item_id, state, attempts, error_code, error_msg, started_at,
finished_at, evidence. The state is that of the item; accepted, if no more is known. If a
job is interrupted by Ctrl-C or --timeout, what is known until then is written; a run goes on,
and 'batchreset run watch --result' writes it at its end. In a CSV an apostrophe keeps a
spreadsheet from taking a cell for a formula. In a file called ….xml it is a report in
JUnit's form, in one called ….md a summary in Markdown (see 'run results').

A file with the column generation, such as 'batchreset fleet list --output csv' prints, is
meant for the users that the instances have now: an instance that is assigned to another
one before its reset begins is not reset, and ends as failed (RESET.1006).

--max-failures is about a job: a run has a budget instead.

With --dry-run nothing is reset: each instance is listed with would_reset, unknown
(not registered, or another tenant's), reassigned (it has another generation than the
file says), protected, or busy (it would wait for the reset that is under way). Exit code 0
then means that each would be reset, 2 that some would not.

` + exitCodes + `
Of a job without --wait, or a run with --wait=false, 0 means that it was accepted.`

const submitExamples = `  batchreset submit phone-1 phone-2 --wait
  batchreset submit --file phones.txt
  batchreset submit --file phones.txt --run-id recall-7 --result recall-7.csv
  batchreset submit --file phones.txt --dry-run
  batchreset submit --file phones.txt --not-before 10m --reason 'recall 7' --label site=lab
  batchreset submit --file fleet.csv --yes --timeout 2h
  grep ^lab- phones.txt | batchreset submit --file - --wait`

// submitCommand is a command line of submit or run submit.
type submitCommand struct {
	submission
	flags callerFlags
	file  string
}

func newSubmitCommand(std *terminal.Streams) *cobra.Command {
	c := submitCommand{submission: submission{followsRuns: true}}
	cmd := &cobra.Command{
		Use:     "submit [ID…]",
		Short:   "Reset instances, which destroys the data on them",
		Long:    submitHelp,
		Example: submitExamples,
		RunE: func(cmd *cobra.Command, args []string) error {
			c.isRun = c.request.IdempotencyKey != "" || c.request.Approval
			if err := c.read(args); err != nil {
				return err
			}
			return c.run(cmd.Context())
		},
	}
	c.define(cmd.Flags(), std)
	cmd.Flags().IntVar(&c.maxFailures, "max-failures", 0, "stop the rest of a job once so many of its instances failed; 0 = never")
	return cmd
}

func (c *submitCommand) define(flags *pflag.FlagSet, std *terminal.Streams) {
	c.std, c.output, c.keyFlag = std, &c.flags.output, "--run-id"
	c.flags.define(flags, std)
	c.submission.define(flags)
	flags.StringVarP(&c.file, "file", "f", "", "`file` with one instance ID per line, or a CSV with the column instance_id; - is standard input")
	flags.StringToStringVarP(&c.request.Labels, "label", "l", nil, "`name=value` that is kept in the record; may be repeated")
	flags.StringVar(&c.request.IdempotencyKey, "run-id", "", "`ID` of your own that makes this command safe to repeat: the run's idempotency key, 1 to 255 printable characters (default: a new one)")
	flags.BoolVar(&c.request.Approval, "approval", false, "begin nothing before somebody else has approved the run with 'batchreset run approve'")
	flags.BoolVar(&c.dryRun, "dry-run", false, "only say what would become of each instance")
	terminal.Yields(flags, "output", "result=-")
	terminal.Yields(flags, "file", terminal.Arguments)
	terminal.Yields(flags, "wait", "dry-run") // and not the other way round: a dry run stays one
	terminal.Yields(flags, "result", "dry-run")
}

// read checks the flags, and reads and checks the list.
func (c *submitCommand) read(args []string) error {
	if c.dryRun && (c.wait || c.resultPath != "") {
		return errors.New("--dry-run does not go together with --wait or --result: a dry run makes nothing to wait for")
	}
	if err := checkRunID(c.request.IdempotencyKey); err != nil {
		return err
	}
	if err := c.check(c.file, time.Now()); err != nil {
		return err
	}
	list, err := readInstances(args, c.file, c.std.In)
	if err != nil {
		return err
	}
	if list.repeats > 0 {
		fmt.Fprintf(c.notices, "%s folded: each instance is reset once\n", terminal.Plural(list.repeats, "repeated ID"))
	}
	return c.take(list.ids, list.generations)
}

// checkRunID checks what the service takes as an idempotency key.
func checkRunID(id string) error {
	const atMost = 255
	if len(id) > atMost || strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Errorf("--run-id must be 1 to %d printable ASCII characters, not %.80q", atMost, id)
	}
	return nil
}

// run does what the command line says.
func (c *submitCommand) run(ctx context.Context) error {
	service, err := c.flags.connect(c.notices)
	if err != nil {
		return err
	}
	defer service.Close()
	return c.submit(ctx, service)
}
