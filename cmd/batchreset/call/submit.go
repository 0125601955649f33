package call

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

const submitHelp = `Asks the service to reset instances, named as arguments or in a file with one ID
per line; blank lines and lines that begin with # are skipped. The file can also be a
CSV with the column instance_id, or a .jsonl, in the form of 'fleet import' or of --result:
then every instance in it is reset, whatever the other columns say. An ID that is named
twice is reset once. The whole list is read and checked before anything is sent.

On a terminal it asks before it resets more than one instance, unless there is --yes.

One request takes up to --chunk instances, so a long list becomes several jobs. The
job IDs are printed to standard output, one per line, as soon as they are known;
everything else goes to standard error. If the server answers 429 the command waits. If
the server cannot be reached in the middle, it waits for a minute.

A run of several requests has an ID, which is printed when it begins and is kept in the
jobs as the label run_id. If the run is interrupted, for whatever reason, give the same
command again with --run-id: it finds what was accepted, does not reset it again, and
sends the rest. Another list, or other options, are refused under the same ID. This holds
for as long as the service keeps the records of the jobs (7 days, unless it was told
otherwise).

If a request is refused because of its instances (not yours, protected), all of its
instances are listed and the other requests go on. Given again under the same run ID,
the command tries them once more. After any other failure nothing more is sent.

With --result there is a row for each instance at the end, written as a whole:
instance_id, job_id, item_id, state, attempts, error_code, error_msg, started_at,
finished_at, evidence. The state is that of the item, or: refused (because of the
instances of its request), not_accepted (never sent, or error_code says why not),
uncertain (no answer tells whether it was accepted), accepted (and no more is known).
Ctrl-C writes what is known until then, and so does --timeout. In a CSV an apostrophe
keeps a spreadsheet from taking a cell for a formula.

A file with the column generation, such as 'batchreset fleet list --output csv' prints, is
meant for the users that the instances have now: an instance that is assigned to another
one before its reset begins is not reset, and ends as failed (RESET.1006).

With --dry-run nothing is reset: each instance is listed with would_reset, unknown
(not registered, or another tenant's), reassigned (it has another generation than the
file says), protected, or busy (it would wait for the reset that is under way). Exit code 0 then means that none would be refused, 2 that
some would.

` + exitCodes + `
Without --wait, 0 means that every instance was accepted.`

const submitExamples = `  batchreset submit phone-1 phone-2
  batchreset submit --file phones.txt --wait
  batchreset submit --file phones.txt --run-id recall-7 --result recall-7.csv
  batchreset submit --file phones.txt --dry-run
  batchreset submit --file phones.txt --not-before 10m --reason 'recall 7' --label site=lab
  batchreset submit --file fleet.csv --yes --wait --timeout 2h
  grep ^lab- phones.txt | batchreset submit --file - | xargs batchreset watch`

// submitCommand is a command line of submit.
type submitCommand struct {
	std     *terminal.Streams
	flags   callerFlags
	options batchOptions
	file    string
	runID   string
	dryRun  bool
}

func newSubmitCommand(std *terminal.Streams) *cobra.Command {
	c := submitCommand{std: std}
	cmd := &cobra.Command{
		Use:     "submit [ID…]",
		Short:   "Reset instances, which destroys the data on them",
		Long:    submitHelp,
		Example: submitExamples,
		RunE:    c.run,
	}
	c.flags.define(cmd.Flags(), std)
	c.options.define(cmd.Flags())
	cmd.Flags().StringToStringVarP(&c.options.labels, "label", "l", nil, "`name=value` that is kept in the record; may be repeated")
	cmd.Flags().BoolVarP(&c.options.yes, "yes", "y", false, "do not ask")
	cmd.Flags().StringVarP(&c.file, "file", "f", "", "`file` with one instance ID per line, or a CSV with the column instance_id; - is standard input")
	cmd.Flags().StringVar(&c.runID, "run-id", "", "`ID` that makes this command safe to repeat: 1 to 240 of A-Z a-z 0-9 . _ : ~ + - (default: a new one)")
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "only say what would become of each instance")
	terminal.Yields(cmd.Flags(), "output", "result=-")
	terminal.Yields(cmd.Flags(), "file", terminal.Arguments)
	terminal.Yields(cmd.Flags(), "wait", "dry-run") // and not the other way round: a dry run stays one
	terminal.Yields(cmd.Flags(), "result", "dry-run")
	return cmd
}

func (c *submitCommand) run(cmd *cobra.Command, args []string) error {
	batch, err := c.options.read(c.runID, time.Now())
	if err != nil {
		return err
	}
	if c.dryRun && (c.options.wait || c.options.result != "") {
		return errors.New("--dry-run does not go together with --wait or --result: a dry run has no job")
	}
	result, err := newResultFile(c.options.result, c.file, c.flags.output)
	if err != nil {
		return err
	}
	list, err := readInstances(args, c.file, c.std.In)
	if err != nil {
		return err
	}
	instances := list.ids
	batch.Generation = list.generations
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
		return tryOut(cmd.Context(), c.std.Out, service, chunks(batch, instances, c.options.chunk), c.flags.output)
	}
	if len(instances) > 1 && !c.options.yes && terminal.IsTerminal(c.std.In) {
		if err := askFirst(cmd.Context(), c.std, service, instances); err != nil {
			return err
		}
	}
	s := submission{
		runID: c.runID, instances: instances, result: result, wait: c.options.wait,
		output: c.flags.output, out: c.std.Out, notices: notices,
	}
	return s.run(cmd.Context(), service, batch, c.options)
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
