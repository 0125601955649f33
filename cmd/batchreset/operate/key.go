package operate

import (
	"context"
	"time"

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
	cmd.AddCommand(keys.commands(std, &cobra.Command{
		Use:   "add --tenant TENANT",
		Short: "Make an access key and print it with its secret, once",
		Long: `Makes an access key for a tenant. The last two lines of the output are the key and its
secret, which is shown only now. The flags mean what they mean for 'token add'.`,
		Example: `  batchreset key add --tenant acme --owner fleet-manager --secret-key-file secret.key
  batchreset key add --tenant acme --owner fleet-manager --output json | jq -r '.access_key, .secret_key'`,
	})...)
	return cmd
}

// keys are what callers sign requests with.
var keys = credential{
	kind: tasks.KindKey, noun: "access key", a: "an access key", name: "key", id: "ACCESS-KEY", like: "4ZK2JQ6ZR7MA3XW5BQ2C", keepsSecret: true,
	add: func(ctx context.Context, db *redisdb.DB, n tasks.Token, ttl time.Duration) (tasks.Token, terminal.View, error) {
		access, secret := tasks.NewAccessKey()
		made, err := db.Tokens.AddKey(ctx, access, secret, n, ttl, terminal.Actor(""))
		return made, newKey{made, access, secret}.view(), err
	},
	rotate: func(ctx context.Context, db *redisdb.DB, id string, overlap time.Duration) (tasks.Token, terminal.View, error) {
		access, secret := tasks.NewAccessKey()
		made, err := db.Tokens.RotateKey(ctx, id, access, secret, overlap, terminal.Actor(""))
		return made, newKey{made, access, secret}.view(), err
	},
}

// newKey is an access key with its secret, which is shown once.
type newKey struct {
	tasks.Token
	Access string `json:"access_key"`
	Secret string `json:"secret_key"`
}

func (k newKey) view() terminal.View {
	return terminal.View{Document: k, Text: terminal.Line("access key  " + k.Access + "\nsecret key  " + k.Secret)}
}
