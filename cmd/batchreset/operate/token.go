package operate

import (
	"crypto/rand"
	"fmt"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func newTokenCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list, rotate and revoke callers' tokens",
		Long: `A caller presents a token as X-Auth-Token; it says whose instances the caller may reset,
and what else is allowed. Redis keeps only its SHA-256.`,
	}
	cmd.AddCommand(newTokenAddCommand(std), newCredentialListCommand(std, tasks.KindToken), newTokenRotateCommand(std), newCredentialRevokeCommand(std, tasks.KindToken))
	return cmd
}

func newTokenSecret() string { return "brt_" + rand.Text() + rand.Text() }

func newTokenAddCommand(std *terminal.Streams) *cobra.Command {
	var (
		op    operation
		grant grantFlags
	)
	cmd := &cobra.Command{
		Use:   "add --tenant TENANT",
		Short: "Make a token and print it, once",
		Long: `Makes a token for a tenant. The token is the last line of the output and is shown
only now; what is needed to list and revoke it goes to standard error.

It expires after 90 days, unless --ttl says something else. 'token rotate' replaces it.

--owner says which person or program has it. Nobody approves a run that they have asked for
themselves, whatever token they take, and one owner counts once: so give every token that
submits or approves runs an owner. The scope approve needs one.

--address and --instance-label limit what a stolen token is good for: to callers from some
networks, and to instances with some labels in the fleet.`,
		Example: `  batchreset token add --tenant acme --owner alice
  batchreset token add --tenant acme --owner alice --scope read,approve
  batchreset token add --tenant acme --name ci --address 10.2.0.0/16 --instance-label rack=7
  TOKEN=$(batchreset token add --tenant acme --ttl 720h --scope read)`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := grant.token()
			if err != nil {
				return err
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				secret := newTokenSecret()
				token, err := db.Tokens.Add(cmd.Context(), secret, n, grant.ttl, terminal.Actor(""))
				if err != nil {
					return err
				}
				fmt.Fprintf(std.Err, "token %s\n", describe(token, db.Redis.Now()))
				return op.output.Show(std.Out, terminal.View{Document: newToken{token, secret}, Text: terminal.Line(secret)})
			})
		},
	}
	op.define(cmd)
	grant.define(cmd)
	return cmd
}

// newToken is a token with its secret, which is shown once.
type newToken struct {
	tasks.Token
	Secret string `json:"token"`
}

func newTokenRotateCommand(std *terminal.Streams) *cobra.Command {
	var (
		op      operation
		overlap overlapFlag
	)
	cmd := &cobra.Command{
		Use:   "rotate ID",
		Short: "Make a token in place of another one and print it, once",
		Long: `Makes a token with the tenant, owner, scopes and limits of another one, which lives as long
as that was to live. The old one is good for --overlap more, so that callers can change to the
new one without a break. With --overlap 0 it ends at once, for a token that others may know.`,
		Example: `  batchreset token rotate 3fa1c09b7e55d210
  batchreset token rotate 3fa1c09b7e55d210 --overlap 0`,
		Args:    terminal.ArgsFromUsage,
		PreRunE: overlap.check,
		RunE: func(cmd *cobra.Command, args []string) error {
			return op.run(cmd, func(db *redisdb.DB) error {
				secret := newTokenSecret()
				token, err := db.Tokens.Rotate(cmd.Context(), args[0], secret, overlap.d, terminal.Actor(""))
				if err != nil {
					return notThere(tasks.KindToken, args[0], err)
				}
				fmt.Fprintf(std.Err, "token %s; %s is good for %s more\n", describe(token, db.Redis.Now()), args[0], overlap.d)
				return op.output.Show(std.Out, terminal.View{Document: newToken{token, secret}, Text: terminal.Line(secret)})
			})
		},
	}
	op.define(cmd)
	overlap.define(cmd)
	return cmd
}
