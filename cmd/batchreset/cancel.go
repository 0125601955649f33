package main

import (
	"context"

	"github.com/spf13/cobra"

	"batchreset/api/client"
)

func newCancelCommand(std *streams) *cobra.Command {
	var flags callerFlags
	cmd := &cobra.Command{
		Use:   "cancel JOB",
		Short: "Take back what a job has not begun",
		Long: `Cancels every instance of a job that waits, for its first attempt or for its next.
Attempts that are running end by themselves and are not repeated: a reset that was
sent cannot be called back. Prints the record as it is then.`,
		Example: "  batchreset cancel 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f",
		Args:    jobArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return change(cmd.Context(), std, &flags, args[0], (*client.Client).Cancel)
		},
	}
	flags.define(cmd.Flags())
	return cmd
}

// change changes one job and shows it.
func change(ctx context.Context, std *streams, flags *callerFlags, id string, how func(*client.Client, context.Context, string) (client.Job, error)) error {
	c, err := flags.connect(&notices{w: std.err})
	if err != nil {
		return err
	}
	defer c.Close()
	job, err := how(c, ctx, id)
	if err != nil {
		return err
	}
	if flags.output.json() {
		return writeJSON(std.out, job.Record)
	}
	return writeJob(std.out, job)
}
