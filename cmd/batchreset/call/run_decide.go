package call

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

func newRunRetryCommand(std *terminal.Streams) *cobra.Command {
	var (
		flags     callerFlags
		states    []string
		wait, yes bool
	)
	cmd := &cobra.Command{
		Use:   "retry RUN",
		Short: "Try again what a run did not reset",
		Long: `Opens the instances of a run that has ended and that failed for another round, under the
same options: with the canary again, if there was one. With --state it opens those in the
states that it names: failed, unknown, cancelled. Look at unknown ones first: their phone may
have been reset, and this resets it again. Needs a token with the scope submit.

On a terminal it asks before it begins, unless there is --yes. Prints the record as it is then, or
with --wait follows the run to its end, as 'run watch' does.

` + exitCodes,
		Example: `  batchreset run retry 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 --wait
  batchreset run retry 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 --state failed,cancelled`,
		Args: runArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkStates(states); err != nil {
				return err
			}
			n := &notices{w: std.Err}
			c, err := flags.connect(n)
			if err != nil {
				return err
			}
			defer c.Close()
			if !yes && terminal.IsTerminal(std.In) {
				if err := askToRetry(cmd.Context(), std, c, args[0], states); err != nil {
					return err
				}
			}
			run, err := c.Runs().Retry(cmd.Context(), args[0], states...)
			if err != nil {
				return err
			}
			if wait {
				f := runFollower{service: c, notices: n, out: std.Out, output: flags.output}
				return f.follow(cmd.Context(), run.ID)
			}
			return flags.output.Show(std.Out, runView(run))
		},
	}
	flags.define(cmd.Flags(), std)
	cmd.Flags().StringSliceVarP(&states, "state", "s", nil, "open the instances in these `states`: failed (the default), unknown, cancelled")
	cmd.Flags().BoolVarP(&wait, "wait", "w", false, "follow the run to its end")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// askToRetry has a person look at how many instances are about to be reset again.
func askToRetry(ctx context.Context, std *terminal.Streams, c *client.Client, id string, states []string) error {
	run, err := c.Runs().Get(ctx, id)
	if err != nil {
		return err
	}
	return terminal.Confirm(ctx, std, fmt.Sprintf("run %s: %s to reset again\nThis destroys the data on them. Go on?",
		id, terminal.Plural(inStates(run.Counts, states), "instance")))
}

func newRunApproveCommand(std *terminal.Streams) *cobra.Command {
	var (
		flags         callerFlags
		comment, list string
		yes           bool
	)
	cmd := &cobra.Command{
		Use:   "approve RUN",
		Short: "Let a run begin that somebody else has asked for",
		Long: `Approves a run that waits for approval. It shows what that is: who asked for it, how many
instances it has, its options, and the SHA-256 of its list; and it asks, unless there is --yes.
What is approved is that very list, in any case: 'LC_ALL=C sort -u phones.txt | sha256sum' says
whether it is the one that you think it is.

--list-sha256 says which list you expect, and then nothing is asked. Any other is refused.

Nobody approves a run of their own, or the same run twice. Needs a token with the scope approve and
an owner ('batchreset token add --owner'). Prints the record as it is then.`,
		Example: `  batchreset run approve 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 --comment 'recall 7, checked with the lab'
  batchreset run approve 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 --comment CHG-42 --list-sha256 $(LC_ALL=C sort -u phones.txt | sha256sum | cut -c1-64)`,
		Args: runArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkComment(comment); err != nil {
				return err
			}
			if list != "" && !tasks.ValidListHash(list) {
				return fmt.Errorf("--list-sha256 must be 64 characters of 0-9 a-f, not %.80q", list)
			}
			if list == "" && !yes && !terminal.IsTerminal(std.In) {
				return errors.New("there is no terminal to ask on: say with --list-sha256 which list you approve, or --yes to approve whatever it is")
			}
			c, err := flags.connect(&notices{w: std.Err})
			if err != nil {
				return err
			}
			defer c.Close()
			if list == "" {
				if list, err = lookAtList(cmd.Context(), std, c, args[0], !yes); err != nil {
					return err
				}
			}
			run, err := c.Runs().Approve(cmd.Context(), args[0], list, comment)
			if err != nil {
				return err
			}
			return flags.output.Show(std.Out, runView(run))
		},
	}
	flags.define(cmd.Flags(), std)
	cmd.Flags().StringVar(&comment, "comment", "", "`text` that is kept in the record: why")
	cmd.Flags().StringVar(&list, "list-sha256", "", "`hash` of the list that you approve; do not ask")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// lookAtList shows what a run is, asks about it if that is wanted, and returns the hash of the list that was shown.
func lookAtList(ctx context.Context, std *terminal.Streams, c *client.Client, id string, ask bool) (string, error) {
	run, err := c.Runs().Get(ctx, id)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	if err := writeRun(&text, run); err != nil {
		return "", err
	}
	if !ask {
		_, err := io.WriteString(std.Err, text.String())
		return run.ListSHA256, err
	}
	return run.ListSHA256, terminal.Confirm(ctx, std, text.String()+"This destroys the data on "+terminal.Plural(run.Total, "instance")+". Approve it?")
}

func newRunRejectCommand(std *terminal.Streams) *cobra.Command {
	var comment string
	cmd := newRunRecordCommand(std, &cobra.Command{
		Use:   "reject RUN",
		Short: "End a run that waits for approval",
		Long: `Rejects a run that waits for approval: nothing of it ever begins. Needs a token with the scope
approve and an owner. Prints the record as it is then.`,
		Example: `  batchreset run reject 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 --comment 'the list of last week'`,
	}, func(runs client.Runs, ctx context.Context, id string) (client.Run, error) {
		if err := checkComment(comment); err != nil {
			return client.Run{}, err
		}
		return runs.Reject(ctx, id, comment)
	})
	cmd.Flags().StringVar(&comment, "comment", "", "`text` that is kept in the record: why")
	return cmd
}

func checkComment(comment string) error {
	if comment == "" {
		return errors.New("--comment is missing: it says why")
	}
	if err := tasks.CheckComment(comment); err != nil {
		return fmt.Errorf("--comment %w", err)
	}
	return nil
}
