package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// What tokens and access keys have in common.

// grantFlags say what a new token or access key is good for.
type grantFlags struct {
	tenant, owner, name string
	ttl                 time.Duration
	scopes, addresses   []string
	labels              map[string]string
}

func (f *grantFlags) define(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.tenant, "tenant", "", "whose it is (required)")
	flags.StringVar(&f.owner, "owner", "", "which person or program has it, such as alice")
	flags.StringVar(&f.name, "name", "", "what it is for, such as nightly-resets")
	flags.DurationVar(&f.ttl, "ttl", tasks.DefaultTokenLife, "time until it expires; 0 = it never does")
	flags.StringSliceVar(&f.scopes, "scope", nil, "what it allows: "+terminal.Join(tasks.Scopes)+" (default "+terminal.Join(tasks.DefaultScopes)+")")
	flags.StringSliceVar(&f.addresses, "address", nil, "`network` or address that it may be used from, such as 10.2.0.0/16; may be repeated; none: from anywhere")
	flags.StringToStringVar(&f.labels, "instance-label", nil, "label `name=value` that an instance must have in the fleet to be reset with it; may be repeated, then all of them; none: any instance of the tenant")
}

// token is what the flags say, once they are checked.
func (f *grantFlags) token() (tasks.Token, error) {
	n, err := tasks.Grant{
		Tenant: f.tenant, Owner: f.owner, Name: f.name, Life: f.ttl, Scopes: f.scopes, Addresses: f.addresses, InstanceLabels: f.labels,
	}.Token()
	if wrong, ok := errors.AsType[*tasks.FieldError](err); ok {
		err = fmt.Errorf("--%s%s", strings.ReplaceAll(wrong.Field, "_", "-"), wrong.Why)
	}
	return n, err
}

// describe is a line about a token or access key.
func describe(t tasks.Token, now time.Time) string {
	text := t.ID + " for tenant " + t.Tenant
	if t.Owner != "" {
		text += " of " + t.Owner
	}
	text += ", scopes " + terminal.Join(t.Scopes)
	if len(t.Addresses) > 0 {
		text += ", from " + networks(t)
	}
	if len(t.InstanceLabels) > 0 {
		text += ", for instances with " + tasks.LabelText(t.InstanceLabels)
	}
	return text + ", " + expiry(t, now)
}

func expiry(t tasks.Token, now time.Time) string {
	switch {
	case !t.RevokedAt.IsZero():
		return "revoked " + terminal.Clock(t.RevokedAt.Time)
	case t.ExpiresAt.IsZero():
		return "never expires"
	case !now.Before(t.ExpiresAt.Time):
		return "expired " + terminal.Clock(t.ExpiresAt.Time)
	}
	return "expires " + terminal.Clock(t.ExpiresAt.Time)
}

func lastUse(t tasks.Token) string {
	if t.LastUsedAt.IsZero() {
		return "not yet"
	}
	return terminal.Clock(t.LastUsedAt.Time)
}

// networks are those that a token or access key may be used from.
func networks(t tasks.Token) string {
	texts := make([]string, len(t.Addresses))
	for i, network := range t.Addresses {
		texts[i] = network.String()
	}
	return terminal.Join(texts)
}

// limits are what a token or access key is good for, beside its scopes.
func limits(t tasks.Token) string {
	text := networks(t)
	if len(t.InstanceLabels) > 0 {
		if text != "" {
			text += "; "
		}
		text += tasks.LabelText(t.InstanceLabels)
	}
	return text
}

// credential is a kind of credential with what is its own.
type credential struct {
	kind tasks.CredentialKind
	noun string // what people call it
	a    string // noun with its article
	name string // of the command
	id   string // what its ID is called in a usage
	like string // an ID
	// keepsSecret says that Redis keeps the secret, which is sealed.
	keepsSecret bool
	// add makes one, and rotate makes one in place of another one. shown is what its owner is shown once.
	add    func(ctx context.Context, db *redisdb.DB, n tasks.Token, ttl time.Duration) (made tasks.Token, shown terminal.View, err error)
	rotate func(ctx context.Context, db *redisdb.DB, id string, overlap time.Duration) (made tasks.Token, shown terminal.View, err error)
}

// commands are those of one kind; add has the texts of the command that makes one.
func (c credential) commands(std *terminal.Streams, add *cobra.Command) []*cobra.Command {
	return []*cobra.Command{c.addCommand(std, add), c.listCommand(std), c.rotateCommand(std), c.revokeCommand(std)}
}

func (c credential) addCommand(std *terminal.Streams, cmd *cobra.Command) *cobra.Command {
	var (
		op    operation
		grant grantFlags
	)
	cmd.Args = terminal.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		n, err := grant.token()
		if err != nil {
			return err
		}
		return op.run(cmd, func(db *redisdb.DB) error {
			made, shown, err := c.add(cmd.Context(), db, n, grant.ttl)
			if err != nil {
				return err
			}
			fmt.Fprintf(std.Err, "%s %s\n", c.noun, describe(made, db.Redis.Now()))
			return op.output.Show(std.Out, shown)
		})
	}
	c.define(cmd, &op)
	grant.define(cmd)
	return cmd
}

func (c credential) define(cmd *cobra.Command, op *operation) {
	op.define(cmd)
	if c.keepsSecret {
		op.defineSeals(cmd.Flags())
	}
}

func (c credential) rotateCommand(std *terminal.Streams) *cobra.Command {
	var (
		op      operation
		overlap overlapFlag
	)
	cmd := &cobra.Command{
		Use:   "rotate " + c.id,
		Short: "Make one in place of another one and print it, once",
		Long: "Makes one with the tenant, owner, scopes and limits of another " + c.noun + `, which lives as long as
that was to live. The old one is good for --overlap more, so that callers can change to the
new one without a break. With --overlap 0 it ends at once: others may know it.`,
		Example: fmt.Sprintf("  batchreset %[1]s rotate %[2]s\n  batchreset %[1]s rotate %[2]s --overlap 0", c.name, c.like),
		Args:    terminal.ArgsFromUsage,
		PreRunE: overlap.check,
		RunE: func(cmd *cobra.Command, args []string) error {
			return op.run(cmd, func(db *redisdb.DB) error {
				if err := c.isOurs(cmd.Context(), db, args[0], "rotate"); err != nil {
					return err
				}
				made, shown, err := c.rotate(cmd.Context(), db, args[0], overlap.d)
				if err != nil {
					return c.notThere(args[0], err)
				}
				fmt.Fprintf(std.Err, "%s %s; %s is good for %s more\n", c.noun, describe(made, db.Redis.Now()), args[0], overlap.d)
				return op.output.Show(std.Out, shown)
			})
		},
	}
	c.define(cmd, &op)
	overlap.define(cmd)
	return cmd
}

func (c credential) listCommand(std *terminal.Streams) *cobra.Command {
	return newListCommand(std, list[tasks.Token]{
		name:    c.name + "s",
		columns: []string{"token_id", "tenant", "owner", "name", "scopes", "addresses", "instance_labels", "created_at", "expires_at", "revoked_at", "last_used_at"},
		read: func(ctx context.Context, db *redisdb.DB, _ []string) ([]tasks.Token, error) {
			all, err := db.Tokens.List(ctx)
			return slices.DeleteFunc(all, func(t tasks.Token) bool { return t.Kind != c.kind }), err
		},
		head: []string{"ID", "TENANT", "OWNER", "NAME", "SCOPES", "LIMITS", "CREATED", "LAST USED", "STATE"},
		row: func(t tasks.Token, now time.Time) []string {
			return []string{t.ID, t.Tenant, t.Owner, t.Name, terminal.Join(t.Scopes), limits(t), terminal.Clock(t.CreatedAt.Time), lastUse(t), expiry(t, now)}
		},
	}, &cobra.Command{
		Use:     "list",
		Short:   "List the " + c.noun + "s, without their secrets",
		Long:    "Lists the " + c.noun + "s without their secrets. When one was used last is noted about once a minute.",
		Example: "  batchreset " + c.name + " list --output json",
		Args:    terminal.NoArgs,
	})
}

func (c credential) revokeCommand(std *terminal.Streams) *cobra.Command {
	var op operation
	cmd := &cobra.Command{
		Use:     "revoke " + c.id,
		Short:   "Revoke the " + c.noun + " with this ID, at once and for good",
		Example: "  batchreset " + c.name + " revoke " + c.like,
		Args:    terminal.ArgsFromUsage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return op.run(cmd, func(db *redisdb.DB) error {
				if err := c.isOurs(cmd.Context(), db, args[0], "revoke"); err != nil {
					return err
				}
				found, err := db.Tokens.Revoke(cmd.Context(), args[0], terminal.Actor(""))
				if err == nil && !found {
					err = tasks.ErrNoToken
				}
				if err != nil {
					return c.notThere(args[0], err)
				}
				return op.output.Said(std, map[string]any{"token_id": args[0], "revoked": true}, "revoked %s", args[0])
			})
		},
	}
	op.define(cmd)
	return cmd
}

// notThere gives an error about one that there is not its text and exit code.
func (c credential) notThere(id string, err error) error {
	if errors.Is(err, tasks.ErrNoToken) {
		return terminal.WithCode(terminal.ExitRefused, fmt.Errorf("there is no %s with the ID %q (see 'batchreset %s list')", c.noun, id, c.name))
	}
	return err
}

// isOurs refuses an ID that is one of the other kind, and names the command for that.
func (c credential) isOurs(ctx context.Context, db *redisdb.DB, id, verb string) error {
	kind, found, err := db.Tokens.Kind(ctx, id)
	if err != nil || !found || kind == c.kind {
		return err
	}
	other := tokens
	if kind == tasks.KindKey {
		other = keys
	}
	return terminal.WithCode(terminal.ExitRefused, fmt.Errorf("there is no %s with the ID %q, but %s: 'batchreset %s %s %s' is for that", c.noun, id, other.a, other.name, verb, id))
}

// overlapFlag is how long what is replaced is good beside what replaces it.
type overlapFlag struct{ d time.Duration }

func (f *overlapFlag) define(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.d, "overlap", tasks.DefaultOverlap, "how long the old one is good beside the new one")
}

func (f *overlapFlag) check(*cobra.Command, []string) error {
	if f.d < 0 {
		return errors.New("--overlap must not be negative")
	}
	return nil
}
