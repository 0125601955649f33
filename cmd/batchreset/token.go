package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func newTokenCommand(std *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Make, list and revoke callers' tokens",
		Long: `A caller presents a token as X-Auth-Token; it says whose instances the caller may reset,
and what else is allowed. Redis keeps only its SHA-256.`,
	}
	cmd.AddCommand(newTokenAddCommand(std), newTokenListCommand(std), newTokenRevokeCommand(std))
	return cmd
}

func newTokenAddCommand(std *streams) *cobra.Command {
	var (
		redis  redisFlags
		tenant string
		ttl    time.Duration
		scopes []string
		output outputFlag
	)
	cmd := &cobra.Command{
		Use:   "add --tenant TENANT",
		Short: "Make a token and print it, once",
		Long: `Makes a token for a tenant. The token is the last line of the output and is shown
only now; what is needed to list and revoke it goes to standard error.`,
		Example: `  batchreset token add --tenant acme
  TOKEN=$(batchreset token add --tenant acme --ttl 720h --scope read)`,
		Args: noArgs,
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
			return withRedis(cmd, redis, func(db *redisdb.DB) error {
				secret := "brt_" + rand.Text() + rand.Text()
				token, err := db.AddToken(cmd.Context(), secret, tenant, granted, ttl, actor(""))
				if err != nil {
					return err
				}
				fmt.Fprintf(std.err, "token %s for tenant %s, scopes %s, %s\n", token.ID, token.Tenant, join(token.Scopes), expiry(token, db.Now()))
				return output.show(std.out, view{document: newToken{token, secret}, text: line(secret)})
			})
		},
	}
	redis.define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	output.define(cmd.Flags())
	cmd.Flags().StringVar(&tenant, "tenant", "", "whose token it is (required)")
	cmd.Flags().DurationVar(&ttl, "ttl", 0, "time until it expires; 0 = it does not")
	cmd.Flags().StringSliceVar(&scopes, "scope", nil, "what it allows: "+join(tasks.Scopes)+" (default "+join(tasks.DefaultScopes)+")")
	return cmd
}

// newToken is a token with its secret, which is shown once.
type newToken struct {
	tasks.Token
	Secret string `json:"token"`
}

// line is the text of a view that is one line.
func line(text string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := fmt.Fprintln(w, text)
		return err
	}
}

func parseScopes(names []string) ([]tasks.Scope, error) {
	if len(names) == 0 {
		return tasks.DefaultScopes, nil
	}
	var scopes []tasks.Scope
	for _, name := range names {
		scope := tasks.Scope(name)
		if !slices.Contains(tasks.Scopes, scope) {
			return nil, fmt.Errorf("--scope must be of %s, not %q", join(tasks.Scopes), name)
		}
		scopes = append(scopes, scope)
	}
	return scopes, nil
}

// join lists names as flags do.
func join[S ~string](names []S) string { return strings.Join(words(names), ",") }

func expiry(t tasks.Token, now time.Time) string {
	switch {
	case !t.RevokedAt.IsZero():
		return "revoked " + clock(t.RevokedAt.Time)
	case t.ExpiresAt.IsZero():
		return "does not expire"
	case !now.Before(t.ExpiresAt.Time):
		return "expired " + clock(t.ExpiresAt.Time)
	}
	return "expires " + clock(t.ExpiresAt.Time)
}

func newTokenListCommand(std *streams) *cobra.Command {
	var (
		redis  redisFlags
		output outputFlag
	)
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the tokens, without their secrets",
		Example: "  batchreset token list --output json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withRedis(cmd, redis, func(db *redisdb.DB) error {
				tokens, err := db.Tokens(cmd.Context())
				if err != nil {
					return err
				}
				return output.show(std.out, view{
					list: "tokens", rows: each(tokens),
					columns: []string{"token_id", "tenant", "scopes", "created_at", "expires_at", "revoked_at"},
					table: func(w io.Writer) error {
						table := newTable(w, "ID", "TENANT", "SCOPES", "CREATED", "STATE")
						for _, t := range tokens {
							table.row(t.ID, t.Tenant, join(t.Scopes), clock(t.CreatedAt.Time), expiry(t, db.Now()))
						}
						return table.flush()
					},
				})
			})
		},
	}
	redis.define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	output.define(cmd.Flags())
	return cmd
}

func newTokenRevokeCommand(std *streams) *cobra.Command {
	var (
		redis  redisFlags
		output outputFlag
	)
	cmd := &cobra.Command{
		Use:     "revoke ID",
		Short:   "Revoke a token, at once and for good",
		Example: "  batchreset token revoke 3fa1c09b7e55d210",
		Args:    asUsed,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withRedis(cmd, redis, func(db *redisdb.DB) error {
				found, err := db.RevokeToken(cmd.Context(), args[0], actor(""))
				if err != nil {
					return err
				}
				if !found {
					return withCode(exitRefused, fmt.Errorf("there is no token with the ID %q (see 'batchreset token list')", args[0]))
				}
				return output.said(std, map[string]any{"token_id": args[0], "revoked": true}, "revoked %s", args[0])
			})
		},
	}
	redis.define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	output.define(cmd.Flags())
	return cmd
}

// withRedis runs an operator's command on the Redis of the flags.
func withRedis(cmd *cobra.Command, flags redisFlags, do func(*redisdb.DB) error) error {
	return withRedisAnd(cmd, flags, redisdb.Options{}, do)
}

func withRedisAnd(cmd *cobra.Command, flags redisFlags, opts redisdb.Options, do func(*redisdb.DB) error) error {
	opts.Audited = sayWhatIsMissing(cmd.ErrOrStderr())
	opts.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)) // what a list leaves out
	db, err := flags.open(cmd.Context(), opts)
	if _, unreachable := errors.AsType[net.Error](err); unreachable {
		return fmt.Errorf("%w; --redis or --redis-file name another one, and 'batchreset dev' prints the URL of the one inside it", err)
	} else if err != nil {
		return err
	}
	err = do(db)
	if closing := db.Close(); err == nil {
		err = closing
	}
	return redisFailed(err)
}
