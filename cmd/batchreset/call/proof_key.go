package call

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/proof"
)

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
