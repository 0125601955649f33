package operate

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/redisdb"
)

func newSecretCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secret",
		Short: "Seal the secrets that Redis keeps",
		Long: `Redis keeps the secrets of access keys, of webhooks and of operators' second factors, because
it takes them to verify and to sign. With --secret-key-file they are sealed (AES-256-GCM): who reads Redis, or a copy of its
disk, does not have them.`,
	}
	cmd.AddCommand(newSecretSealCommand(std))
	return cmd
}

func newSecretSealCommand(std *terminal.Streams) *cobra.Command {
	var op operation
	cmd := &cobra.Command{
		Use:   "seal --secret-key-file FILE",
		Short: "Seal every secret with the newest key",
		Long: `Seals what is not sealed yet, or with an older key. Processes do so with each secret of a key or
webhook that they meet; this command does it with all, and says how many there are.

To change the key: put a new one on top of the file, give that to every api, worker and
command, run this command, and take the old key out of the file.

A secret that cannot be opened is named and left as it is; the rest is sealed, and the exit
code is not 0. Of keys that have ended nobody will ask: theirs are left without a word.`,
		Example: `  openssl rand -base64 32 > secret.key
  batchreset secret seal --secret-key-file secret.key`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !op.seals.Given() {
				return errors.New("--secret-key-file is missing")
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				done, err := db.Secrets.SealAll(cmd.Context())
				if err != nil {
					return err
				}
				left := []map[string]string{}
				for _, u := range done.NotSealed {
					left = append(left, map[string]string{"kind": u.Kind, "id": u.ID, "why": u.Err.Error()})
					fmt.Fprintf(std.Err, "not sealed: %s %s: %v\n", u.Kind, u.ID, u.Err)
				}
				rest := "the others were sealed with the newest key before"
				if len(left) > 0 {
					rest += ", or are named above"
				}
				err = op.output.Said(std, map[string]any{"secrets": done.All, "sealed": done.Sealed, "not_sealed": left},
					"sealed %d of %d secrets; %s", done.Sealed, done.All, rest)
				if err == nil && len(left) > 0 {
					err = fmt.Errorf("%s could not be sealed: with the key that has sealed them in --secret-key-file, run this again, or replace what they belong to", terminal.Plural(len(left), "secret"))
				}
				return err
			})
		},
	}
	op.define(cmd)
	op.seals.Define(cmd.Flags())
	return cmd
}
