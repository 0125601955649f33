package operate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"batchreset/api/ops/login"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/registry"
)

func newOperatorCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "operator",
		Short: "Say who may log in to the operators' site",
		Long: `Operators log in to the site on --ops-listen. What they may do there is their role:
viewers look at everything, approvers also decide about runs that wait for approval,
operators also stop and start work, admins also say who may do what. While there is no operator, the site is closed; each api or worker
that starts then prints a link, with which the first operator can also be made in a browser,
if its Redis user may write operators.`,
	}
	cmd.AddCommand(newOperatorAddCommand(std), newOperatorListCommand(std), newOperatorPasswordCommand(std), newOperatorRoleCommand(std), newOperatorTOTPResetCommand(std), newOperatorRemoveCommand(std))
	return cmd
}

func newOperatorAddCommand(std *terminal.Streams) *cobra.Command {
	var (
		op       operation
		password passwordFlag
		role     string
	)
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add somebody",
		Long: `Adds somebody. The password has 12 to 72 characters and is asked for twice, or read from
a file. Redis keeps its bcrypt hash.`,
		Example: `  batchreset operator add alice --role operator
  batchreset operator add wallboard --role viewer --password-file /run/secrets/wallboard`,
		Args: terminal.ArgsFromUsage,
		RunE: func(cmd *cobra.Command, args []string) error {
			o := tasks.Operator{Name: args[0], Role: tasks.Role(role)}
			if err := tasks.CheckOperatorName(o.Name); err != nil {
				return err
			}
			if err := checkRole(o.Role); err != nil {
				return fmt.Errorf("--role %w", err)
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				o.CreatedAt.Time = db.Redis.Now()
				if _, found, err := db.Operators.Operator(cmd.Context(), o.Name); err != nil {
					return err
				} else if found {
					return operatorIsThere(o.Name)
				}
				var err error
				if o.PasswordHash, err = password.hash(std); err != nil {
					return err
				}
				added, err := db.Operators.Add(cmd.Context(), o, terminal.Actor(""))
				if err != nil {
					return err
				}
				if !added {
					return operatorIsThere(o.Name)
				}
				return op.output.Said(std, o, "%s may log in as %s", o.Name, o.Role)
			})
		},
	}
	op.define(cmd)
	password.define(cmd.Flags())
	cmd.Flags().StringVar(&role, "role", string(tasks.RoleViewer), "what they may do: "+terminal.Join(tasks.Roles))
	return cmd
}

func newOperatorPasswordCommand(std *terminal.Streams) *cobra.Command {
	var (
		op       operation
		password passwordFlag
	)
	cmd := &cobra.Command{
		Use:     "passwd NAME",
		Short:   "Give somebody a new password, which ends their sessions",
		Example: "  batchreset operator passwd alice",
		Args:    terminal.ArgsFromUsage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return op.run(cmd, func(db *redisdb.DB) error {
				_, found, err := db.Operators.Operator(cmd.Context(), args[0])
				if err == nil && found {
					var hash string
					if hash, err = password.hash(std); err == nil {
						found, err = db.Operators.SetPassword(cmd.Context(), args[0], hash, terminal.Actor(""))
					}
				}
				if err != nil {
					return err
				}
				if !found {
					return noOperator(args[0])
				}
				return op.output.Said(std, map[string]any{"name": args[0], "new_password": true}, "%s has a new password", args[0])
			})
		},
	}
	op.define(cmd)
	password.define(cmd.Flags())
	return cmd
}

func newOperatorRoleCommand(std *terminal.Streams) *cobra.Command {
	var (
		op    operation
		force forceFlags
	)
	cmd := &cobra.Command{
		Use:   "role NAME ROLE",
		Short: "Give somebody another role, which ends their sessions",
		Long: `Gives somebody another role, which ends their sessions. The only admin with a password
keeps theirs, unless there is --force with a --reason.`,
		Example:   "  batchreset operator role alice admin",
		Args:      terminal.ArgsFromUsage,
		ValidArgs: terminal.Strings(tasks.Roles),
		RunE: func(cmd *cobra.Command, args []string) error {
			role := tasks.Role(args[1])
			if err := errors.Join(force.check(), named("ROLE", checkRole(role))); err != nil {
				return err
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				found, err := force.on(db).SetRole(cmd.Context(), args[0], role, terminal.Actor(force.reason))
				if err != nil {
					return lastAdmin(err)
				}
				if !found {
					return noOperator(args[0])
				}
				return op.output.Said(std, map[string]any{"name": args[0], "role": role}, "%s may log in as %s", args[0], role)
			})
		},
	}
	op.define(cmd)
	force.define(cmd.Flags())
	return cmd
}

func newOperatorTOTPResetCommand(std *terminal.Streams) *cobra.Command {
	var op operation
	cmd := &cobra.Command{
		Use:   "totp-reset NAME",
		Short: "Take away somebody's second factor, which ends their sessions",
		Long: `Takes away the second factor of somebody who has lost it. They log in with their password
alone then, and can set up another one on the site.`,
		Example: "  batchreset operator totp-reset alice",
		Args:    terminal.ArgsFromUsage,
		RunE: func(cmd *cobra.Command, args []string) error {
			return op.run(cmd, func(db *redisdb.DB) error {
				found, err := db.Operators.Unenrol(cmd.Context(), args[0], terminal.Actor(""))
				if err != nil {
					return err
				}
				if !found {
					return noOperator(args[0])
				}
				return op.output.Said(std, map[string]any{"name": args[0], "second_factor": false}, "%s logs in with the password alone", args[0])
			})
		},
	}
	op.define(cmd)
	return cmd
}

// forceFlags are for what would leave no admin.
type forceFlags struct {
	force  bool
	reason string
}

func (f *forceFlags) define(flags *pflag.FlagSet) {
	flags.BoolVar(&f.force, "force", false, "even if that is the only admin; needs a --reason")
	flags.StringVar(&f.reason, "reason", "", "why, for the audit trail")
}

func (f *forceFlags) check() error {
	if f.force && strings.TrimSpace(f.reason) == "" {
		return errors.New("--force needs a --reason")
	}
	return named("--reason", tasks.CheckReason(f.reason))
}

// on are the operators of a DB, of whom the flags say whether the last admin stays.
func (f *forceFlags) on(db *redisdb.DB) *registry.Operators {
	if f.force {
		return db.Operators.Forced()
	}
	return db.Operators
}

// lastAdmin says what to do where a command leaves the last admin alone.
func lastAdmin(err error) error {
	if errors.Is(err, tasks.ErrLastAdmin) {
		return terminal.WithCode(terminal.ExitRefused, errors.New("this is the only admin with a password: first make somebody else an admin, or use --force with a --reason"))
	}
	return err
}

// named has what is wrong with something begin with its name.
func named(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %w", what, err)
}

func checkRole(role tasks.Role) error {
	if !slices.Contains(tasks.Roles, role) {
		return fmt.Errorf("must be of %s, not %q", terminal.Join(tasks.Roles), role)
	}
	return nil
}

func operatorIsThere(name string) error {
	return terminal.WithCode(terminal.ExitRefused, fmt.Errorf("%s is there already; 'batchreset operator passwd' gives a new password", name))
}

func noOperator(name string) error {
	return terminal.WithCode(terminal.ExitRefused, fmt.Errorf("there is no operator %.80q (see 'batchreset operator list')", name))
}

func newOperatorListCommand(std *terminal.Streams) *cobra.Command {
	return newListCommand(std, list[tasks.Operator]{
		name:    "operators",
		columns: []string{"name", "role", "created_at"},
		read: func(ctx context.Context, db *redisdb.DB, _ []string) ([]tasks.Operator, error) {
			return db.Operators.List(ctx)
		},
		head: []string{"NAME", "ROLE", "ADDED"},
		row: func(o tasks.Operator, _ time.Time) []string {
			return []string{o.Name, string(o.Role), terminal.Clock(o.CreatedAt.Time)}
		},
	}, &cobra.Command{
		Use:     "list",
		Short:   "List who may log in",
		Example: "  batchreset operator list",
		Args:    terminal.NoArgs,
	})
}

func newOperatorRemoveCommand(std *terminal.Streams) *cobra.Command {
	var (
		op    operation
		force forceFlags
	)
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Remove somebody, and end their sessions",
		Long: `Removes somebody, and ends the sessions of everybody who has this name. The only admin with
a password is not removed, unless there is --force with a --reason.`,
		Example: "  batchreset operator remove alice",
		Args:    terminal.ArgsFromUsage,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := force.check(); err != nil {
				return err
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				found, err := force.on(db).Remove(cmd.Context(), args[0], terminal.Actor(force.reason))
				if err != nil {
					return lastAdmin(err)
				}
				if !found {
					return noOperator(args[0])
				}
				return op.output.Said(std, map[string]any{"name": args[0], "removed": true}, "%s is removed", args[0])
			})
		},
	}
	op.define(cmd)
	force.define(cmd.Flags())
	return cmd
}

// hash reads a password and returns what Redis keeps of it.
func (f *passwordFlag) hash(std *terminal.Streams) (string, error) {
	password, err := f.read(std)
	if err != nil {
		return "", terminal.WithCode(terminal.ExitUsage, err)
	}
	return login.HashPassword(password)
}

// passwordFlag says where a password comes from: a file, or the terminal.
type passwordFlag struct{ file string }

func (f *passwordFlag) define(flags *pflag.FlagSet) {
	flags.StringVar(&f.file, "password-file", "", "read the password from this `file`; otherwise it is asked for")
}

func (f *passwordFlag) read(std *terminal.Streams) (string, error) {
	if f.file != "" {
		password, err := terminal.ReadSecret(f.file)
		if err != nil {
			return "", fmt.Errorf("--password-file: %w", err)
		}
		if err := tasks.CheckPassword(password); err != nil {
			return "", fmt.Errorf("--password-file: the password %w", err)
		}
		return password, nil
	}
	tty, ok := std.In.(*os.File)
	if !ok || !term.IsTerminal(int(tty.Fd())) {
		return "", errors.New("--password-file is missing, and there is no terminal to ask on")
	}
	password, err := terminal.AskSecret(std, tty, "Password: ")
	if err != nil {
		return "", err
	}
	if err := tasks.CheckPassword(password); err != nil {
		return "", fmt.Errorf("the password %w", err)
	}
	again, err := terminal.AskSecret(std, tty, "Once more: ")
	if err == nil && again != password {
		err = errors.New("the passwords differ")
	}
	return password, err
}
