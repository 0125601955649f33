package operate

import (
	"fmt"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func newKeyCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make, list, rotate and revoke access keys, with which callers sign requests",
		Long: `An access key (AK) and its secret (SK) are what Huawei Cloud's SDKs are given: they sign each
request with SDK-HMAC-SHA256. With a key of this service, a program that was written for
KooPhone changes its endpoint and its key, and nothing else. A key says whose instances the
caller may reset, and what else is allowed, as a token does.

Redis keeps the secret, because it takes the secret to verify a signature: give
--secret-key-file, here and to 'batchreset api', so that Redis has it sealed.`,
	}
	cmd.AddCommand(newKeyAddCommand(std), newCredentialListCommand(std, tasks.KindKey), newKeyRotateCommand(std), newCredentialRevokeCommand(std, tasks.KindKey))
	return cmd
}

// newKey is an access key with its secret, which is shown once.
type newKey struct {
	tasks.Token
	Access string `json:"access_key"`
	Secret string `json:"secret_key"`
}

// show prints a new key.
func (k newKey) show(std *terminal.Streams, output terminal.Output) error {
	return output.Show(std.Out, terminal.View{Document: k, Text: terminal.Line("access key  " + k.Access + "\nsecret key  " + k.Secret)})
}

func newKeyAddCommand(std *terminal.Streams) *cobra.Command {
	var (
		op    operation
		grant grantFlags
	)
	cmd := &cobra.Command{
		Use:   "add --tenant TENANT",
		Short: "Make an access key and print it with its secret, once",
		Long: `Makes an access key for a tenant. The last two lines of the output are the key and its
secret, which is shown only now. The flags mean what they mean for 'token add'.`,
		Example: `  batchreset key add --tenant acme --owner fleet-manager --secret-key-file secret.key
  batchreset key add --tenant acme --owner fleet-manager --output json | jq -r '.access_key, .secret_key'`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := grant.token()
			if err != nil {
				return err
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				access, secret := tasks.NewAccessKey()
				token, err := db.Tokens.AddKey(cmd.Context(), access, secret, n, grant.ttl, terminal.Actor(""))
				if err != nil {
					return err
				}
				fmt.Fprintf(std.Err, "access key %s\n", describe(token, db.Redis.Now()))
				return newKey{token, access, secret}.show(std, op.output)
			})
		},
	}
	op.define(cmd)
	op.seals.Define(cmd.Flags())
	grant.define(cmd)
	return cmd
}

func newKeyRotateCommand(std *terminal.Streams) *cobra.Command {
	var (
		op      operation
		overlap overlapFlag
	)
	cmd := &cobra.Command{
		Use:   "rotate ACCESS-KEY",
		Short: "Make an access key in place of another one and print it, once",
		Long: `Makes an access key with the tenant, owner, scopes and limits of another one, which lives as
long as that was to live. The old one is good for --overlap more, so that callers can change
to the new one without a break. With --overlap 0 it ends at once.`,
		Example: `  batchreset key rotate 4ZK2JQ6ZR7MA3XW5BQ2C
  batchreset key rotate 4ZK2JQ6ZR7MA3XW5BQ2C --overlap 0`,
		Args:    terminal.ArgsFromUsage,
		PreRunE: overlap.check,
		RunE: func(cmd *cobra.Command, args []string) error {
			return op.run(cmd, func(db *redisdb.DB) error {
				access, secret := tasks.NewAccessKey()
				token, err := db.Tokens.RotateKey(cmd.Context(), args[0], access, secret, overlap.d, terminal.Actor(""))
				if err != nil {
					return notThere(tasks.KindKey, args[0], err)
				}
				fmt.Fprintf(std.Err, "access key %s; %s is good for %s more\n", describe(token, db.Redis.Now()), args[0], overlap.d)
				return newKey{token, access, secret}.show(std, op.output)
			})
		},
	}
	op.define(cmd)
	op.seals.Define(cmd.Flags())
	overlap.define(cmd)
	return cmd
}
