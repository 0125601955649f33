package operate

import (
	"errors"

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
command, run this command, and take the old key out of the file.`,
		Example: `  openssl rand -base64 32 > secret.key
  batchreset secret seal --secret-key-file secret.key`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !op.seals.Given() {
				return errors.New("--secret-key-file is missing")
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				keys, sealedKeys, err := db.Tokens.SealAll(cmd.Context())
				if err != nil {
					return err
				}
				webhooks, sealedWebhooks, err := db.Endpoints.SealAll(cmd.Context())
				if err != nil {
					return err
				}
				factors, sealedFactors, err := db.Operators.SealAll(cmd.Context())
				if err != nil {
					return err
				}
				all, sealed := keys+webhooks+factors, sealedKeys+sealedWebhooks+sealedFactors
				return op.output.Said(std, map[string]any{"secrets": all, "sealed": sealed},
					"sealed %d of %d secrets; the others were sealed with the newest key before", sealed, all)
			})
		},
	}
	op.define(cmd)
	op.seals.Define(cmd.Flags())
	return cmd
}
