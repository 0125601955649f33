package call

import (
	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
)

func newProofCommand(std *terminal.Streams) *cobra.Command {
	var flags callerFlags
	cmd := &cobra.Command{
		Use:   "proof JOB",
		Short: "Get a signed proof of what became of a job, or check one",
		Long: `Prints what became of a job that has ended, signed by the service: who asked for
it, when, for which instances, what every attempt came to, and what was seen of each
instance afterwards. Keep it: the record itself is forgotten after some days, and a
proof can be checked for as long as somebody has the service's keys.

The service needs a key for that (--proof-key-file of 'batchreset api').`,
		Example: `  batchreset proof 8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f > job.jws
  batchreset proof verify job.jws --keys keys.json`,
		Args: jobArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := flags.connect(&notices{w: std.Err})
			if err != nil {
				return err
			}
			defer c.Close()
			compact, err := c.Proof(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return flags.output.Show(std.Out, terminal.View{
				Document: map[string]string{"job_id": args[0], "proof": compact}, Text: terminal.Line(compact),
			})
		},
	}
	flags.define(cmd.Flags(), std)
	cmd.AddCommand(newProofVerifyCommand(std), newProofNewKeyCommand(std))
	return cmd
}
