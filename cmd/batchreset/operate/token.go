package operate

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func newTokenCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke callers' tokens",
		Long: `A caller presents a token as X-Auth-Token; it says whose instances the caller may reset,
and what else is allowed. Redis keeps only its SHA-256.`,
	}
	cmd.AddCommand(newTokenAddCommand(std), newTokenListCommand(std), newTokenRevokeCommand(std))
	return cmd
}

func newTokenAddCommand(std *terminal.Streams) *cobra.Command {
	var (
		tenant string
		owner  string
		ttl    time.Duration
		scopes []string
		op     operation
	)
	cmd := &cobra.Command{
		Use:   "add --tenant TENANT",
		Short: "Make a token and print it, once",
		Long: `Makes a token for a tenant. The token is the last line of the output and is shown
only now; what is needed to list and revoke it goes to standard error.

--owner says which person or program has it. Nobody approves a run that they have asked for
themselves, whatever token they take, and one owner counts once: so give every token that
submits or approves runs an owner. The scope approve needs one.`,
		Example: `  batchreset token add --tenant acme
  batchreset token add --tenant acme --owner alice --scope read,approve
  TOKEN=$(batchreset token add --tenant acme --ttl 720h --scope read)`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			granted, err := parseScopes(scopes)
			if err != nil {
				return err
			}
			switch {
			case tenant == "":
				return fmt.Errorf("--tenant is missing")
			case ttl < 0:
				return fmt.Errorf("--ttl must not be negative")
			}
			if err := tasks.CheckTenant(tenant); err != nil {
				return fmt.Errorf("--tenant: %w", err)
			}
			if err := checkOwner(owner, granted); err != nil {
				return fmt.Errorf("--owner: %w", err)
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				secret := "brt_" + rand.Text() + rand.Text()
				token, err := db.Tokens.Add(cmd.Context(), secret, tasks.Token{Tenant: tenant, Owner: owner, Scopes: granted}, ttl, terminal.Actor(""))
				if err != nil {
					return err
				}
				fmt.Fprintf(std.Err, "token %s for tenant %s%s, scopes %s, %s\n", token.ID, token.Tenant, ofOwner(token), terminal.Join(token.Scopes), expiry(token, db.Redis.Now()))
				return op.output.Show(std.Out, terminal.View{Document: newToken{token, secret}, Text: terminal.Line(secret)})
			})
		},
	}
	op.define(cmd)
	cmd.Flags().StringVar(&tenant, "tenant", "", "whose token it is (required)")
	cmd.Flags().StringVar(&owner, "owner", "", "which person or program has it, such as alice")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "time until it expires; 0 = it does not")
	cmd.Flags().StringSliceVar(&scopes, "scope", nil, "what it allows: "+terminal.Join(tasks.Scopes)+" (default "+terminal.Join(tasks.DefaultScopes)+")")
	return cmd
}

// checkOwner says what is wrong with an owner, or nil.
func checkOwner(owner string, scopes []tasks.Scope) error {
	if owner != "" {
		return tasks.CheckOperatorName(owner)
	}
	if slices.Contains(scopes, tasks.ScopeApprove) {
		return fmt.Errorf("is missing: a token with the scope %s needs an owner, who decides by name", tasks.ScopeApprove)
	}
	return nil
}

func ofOwner(t tasks.Token) string {
	if t.Owner == "" {
		return ""
	}
	return " of " + t.Owner
}

// newToken is a token with its secret, which is shown once.
type newToken struct {
	tasks.Token
	Secret string `json:"token"`
}

func parseScopes(names []string) ([]tasks.Scope, error) {
	if len(names) == 0 {
		return tasks.DefaultScopes, nil
	}
	var scopes []tasks.Scope
	for _, name := range names {
		scope := tasks.Scope(name)
		if !slices.Contains(tasks.Scopes, scope) {
			return nil, fmt.Errorf("--scope must be of %s, not %q", terminal.Join(tasks.Scopes), name)
		}
		scopes = append(scopes, scope)
	}
	return scopes, nil
}

func expiry(t tasks.Token, now time.Time) string {
	switch {
	case !t.RevokedAt.IsZero():
		return "revoked " + terminal.Clock(t.RevokedAt.Time)
	case t.ExpiresAt.IsZero():
		return "does not expire"
	case !now.Before(t.ExpiresAt.Time):
		return "expired " + terminal.Clock(t.ExpiresAt.Time)
	}
	return "expires " + terminal.Clock(t.ExpiresAt.Time)
}

func newTokenListCommand(std *terminal.Streams) *cobra.Command {
	return newListCommand(std, list[tasks.Token]{
		name:    "tokens",
		columns: []string{"token_id", "tenant", "owner", "scopes", "created_at", "expires_at", "revoked_at"},
		read: func(ctx context.Context, db *redisdb.DB, _ []string) ([]tasks.Token, error) {
			return db.Tokens.List(ctx)
		},
		head: []string{"ID", "TENANT", "OWNER", "SCOPES", "CREATED", "STATE"},
		row: func(t tasks.Token, now time.Time) []string {
			return []string{t.ID, t.Tenant, t.Owner, terminal.Join(t.Scopes), terminal.Clock(t.CreatedAt.Time), expiry(t, now)}
		},
	}, &cobra.Command{
		Use:     "list",
		Short:   "List the tokens, without their secrets",
		Example: "  batchreset token list --output json",
		Args:    terminal.NoArgs,
	})
}

func newTokenRevokeCommand(std *terminal.Streams) *cobra.Command {
	var op operation
	cmd := &cobra.Command{
		Use:     "revoke ID",
		Short:   "Revoke a token, at once and for good",
		Example: "  batchreset token revoke 3fa1c09b7e55d210",
		Args:    terminal.ArgsFromUsage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return op.run(cmd, func(db *redisdb.DB) error {
				found, err := db.Tokens.Revoke(cmd.Context(), args[0], terminal.Actor(""))
				if err != nil {
					return err
				}
				if !found {
					return terminal.WithCode(terminal.ExitRefused, fmt.Errorf("there is no token with the ID %q (see 'batchreset token list')", args[0]))
				}
				return op.output.Said(std, map[string]any{"token_id": args[0], "revoked": true}, "revoked %s", args[0])
			})
		},
	}
	op.define(cmd)
	return cmd
}
