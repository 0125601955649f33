package main

import (
	"context"

	"github.com/spf13/cobra"

	"batchreset/api/client"
)

func newCancelCommand(std *streams) *cobra.Command {
	return newChangeCommand(std, (*client.Client).Cancel, &cobra.Command{
		Use:   "cancel JOB",
		Short: "Take back what a job has not begun",
		Long: `Cancels every instance of a job that waits, for its first attempt or for its next.
Attempts that are running end by themselves and are not repeated: a reset that was
sent cannot be called back. Prints the record as it is then.`,
		Example: "  batchreset cancel 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f",
	})
}

func newRetryCommand(std *streams) *cobra.Command {
	return newChangeCommand(std, (*client.Client).Retry, &cobra.Command{
		Use:   "retry JOB",
		Short: "Try again what a job did not reset",
		Long: `Opens the instances of a finished job that failed, are unknown or were cancelled for
another try, with a new retry budget. Look at unknown ones first: their phone may
have been reset, and this resets it again. Prints the record as it is then.`,
		Example: `  batchreset retry 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f
  batchreset watch 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f`,
	})
}

// newChangeCommand completes a command that changes one job and shows it.
func newChangeCommand(std *streams, change func(*client.Client, context.Context, string) (client.Job, error), cmd *cobra.Command) *cobra.Command {
	var flags callerFlags
	cmd.Args = jobArgs(1)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := flags.connect(&notices{w: std.err})
		if err != nil {
			return err
		}
		defer c.Close()
		job, err := change(c, cmd.Context(), args[0])
		if err != nil {
			return err
		}
		if flags.output.json() {
			return writeJSON(std.out, job.Record)
		}
		return writeJob(std.out, job)
	}
	flags.define(cmd.Flags())
	return cmd
}
