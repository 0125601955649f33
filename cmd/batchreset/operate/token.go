package operate

import (
	"context"
	"time"

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
	cmd.AddCommand(tokens.commands(std, &cobra.Command{
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
	})...)
	return cmd
}

// tokens are what callers present as X-Auth-Token.
var tokens = credential{
	kind: tasks.KindToken, noun: "token", a: "a token", name: "token", id: "ID", like: "3fa1c09b7e55d210",
	add: func(ctx context.Context, db *redisdb.DB, n tasks.Token, ttl time.Duration) (tasks.Token, terminal.View, error) {
		secret := tasks.NewTokenSecret()
		made, err := db.Tokens.Add(ctx, secret, n, ttl, terminal.Actor(""))
		return made, newToken{made, secret}.view(), err
	},
	rotate: func(ctx context.Context, db *redisdb.DB, id string, overlap time.Duration) (tasks.Token, terminal.View, error) {
		secret := tasks.NewTokenSecret()
		made, err := db.Tokens.Rotate(ctx, id, secret, overlap, terminal.Actor(""))
		return made, newToken{made, secret}.view(), err
	},
}

// newToken is a token with its secret, which is shown once.
type newToken struct {
	tasks.Token
	Secret string `json:"token"`
}

func (t newToken) view() terminal.View {
	return terminal.View{Document: t, Text: terminal.Line(t.Secret)}
}
