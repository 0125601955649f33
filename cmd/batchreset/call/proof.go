package call

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/proof"
)

func newProofCommand(std *terminal.Streams) *cobra.Command {
	var flags callerFlags
	cmd := &cobra.Command{
		Use:   "proof JOB",
		Short: "Get a signed proof of what became of a job, or check one of a job or a run",
		Long: `Prints what became of a job that has ended, signed by the service: who asked for
it, when, for which instances, what every attempt came to, and what was seen of each
instance afterwards. Keep it: the record itself is forgotten after some days, and a
proof can be checked for as long as somebody has the service's keys. 'run proof' gets that
of a run.

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

func newRunProofCommand(std *terminal.Streams) *cobra.Command {
	var flags callerFlags
	cmd := &cobra.Command{
		Use:   "proof RUN",
		Short: "Get a signed proof of what became of a run",
		Long: `Prints what became of a run that has ended, signed by the service: who asked for it, who
approved it, with which options, what became of each instance, and what was seen of it
afterwards. It is lines of JSON: the run, each instance, and a signature. 'proof verify'
checks it. If it breaks off, what was printed is no proof.

Keep it: the record itself is forgotten after some days. A retry of the run makes another
proof; the first one stays true of its time.`,
		Example: `  batchreset run proof 9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4 > run.jsonl
  batchreset proof verify run.jsonl --keys keys.json`,
		Args: runArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !flags.output.IsText() && flags.output != "jsonl" {
				return fmt.Errorf("--output must be jsonl, not %s: the proof of a run has no other form", flags.output)
			}
			c, err := flags.connect(&notices{w: std.Err})
			if err != nil {
				return err
			}
			defer c.Close()
			out := bufio.NewWriter(std.Out)
			return errors.Join(c.Runs().Proof(cmd.Context(), args[0], out), out.Flush())
		},
	}
	flags.define(cmd.Flags(), std)
	return cmd
}

func newProofNewKeyCommand(std *terminal.Streams) *cobra.Command {
	var output terminal.Output
	cmd := &cobra.Command{
		Use:   "new-key FILE",
		Short: "Make a key for the service to sign proofs with",
		Long: `Makes an Ed25519 key for --proof-key-file of 'batchreset api', in a file that only
you can read (mode 0600). A file that is there already is never overwritten.

To change keys, put the new key before the old one in one file, and restart every api:
the first key signs, and proofs that the others have signed can still be checked.`,
		Example:           "  batchreset proof new-key proof-key.pem",
		Args:              terminal.ArgsFromUsage,
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(_ *cobra.Command, args []string) error {
			text, id, err := proof.NewKey()
			if err != nil {
				return err
			}
			if err := writeNew(args[0], text); err != nil {
				return err
			}
			return output.Said(std, map[string]string{"file": args[0], "key_id": id}, "wrote the key %s to %s", id, args[0])
		},
	}
	output.Define(cmd.Flags())
	return cmd
}

// writeNew writes a file for nobody else to read, unless there is one.
func writeNew(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already, and is not overwritten", path)
	} else if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		err = errors.Join(err, os.Remove(path))
	}
	return terminal.WithCode(terminal.ExitOther, err)
}
