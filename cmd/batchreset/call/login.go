package call

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

func newLoginCommand(std *terminal.Streams) *cobra.Command {
	var (
		output       terminal.Output
		kept         contexts
		name         string
		tokenFile    string
		certificates certificateFlags
	)
	cmd := &cobra.Command{
		Use:   "login URL",
		Short: "Keep a server and your token for it, under a name",
		Long: `Asks for your token, or reads it from standard input if that is no terminal, checks it
with the server, and keeps both as a context, which becomes the current one: other
commands then need neither --server nor --token. The command line and the environment
win over the context, and its token is never sent to another server. It also keeps where the files
of --ca-file, --cert-file and --key-file are.

A context is a file that only you can read (mode 0600), below --config-dir. Log in again
under the same name to give it another token.`,
		Example: `  batchreset login https://reset.example
  batchreset login https://reset-lab.example --name lab < lab-token.txt`,
		Args: terminal.ArgsFromUsage,
		RunE: func(cmd *cobra.Command, args []string) error {
			s := savedContext{Name: name, Server: strings.TrimRight(args[0], "/")}
			if name == "" {
				s.Name = nameOf(s.Server)
			}
			err := kept.checkNew(s)
			if err != nil {
				return err
			}
			if s.Token, err = readToken(std, tokenFile); err != nil {
				return err
			}
			who, err := whoIs(cmd.Context(), s, &certificates, &notices{w: std.Err})
			if err != nil {
				return err
			}
			if err = certificates.keep(&s); err != nil {
				return err
			}
			if err = kept.save(s); err == nil {
				err = kept.use(s.Name)
			}
			if err != nil {
				return err
			}
			return output.Said(std, identity{s.Server, s.Name, who}, "logged in to %s as tenant %s; the context %s is the current one now",
				s.Server, tasks.Visible(who.Tenant), s.Name)
		},
	}
	output.Define(cmd.Flags())
	kept.define(cmd.Flags(), std)
	certificates.define(cmd.Flags())
	cmd.Flags().StringVar(&name, "name", "", "`name` of the context (default: the host of the URL)")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "read the token from this `file`")
	return cmd
}

// nameOf makes the name of a context from the host of its server.
func nameOf(server string) string {
	u, err := url.Parse(server)
	if err != nil {
		return "" // which is no name
	}
	return strings.Trim(regexp.MustCompile(`[^A-Za-z0-9._-]+`).ReplaceAllString(u.Host, "-"), "-._")
}

// checkNew refuses a context that cannot be kept, before anything is asked. One that there is
// already can have another token but not another server, because commands name it.
func (c contexts) checkNew(s savedContext) error {
	if u, err := url.Parse(s.Server); err == nil && u.User != nil {
		return errors.New("the URL has a user or a password in it, which lists of contexts would show")
	}
	// What is wrong with the server is said first: the name may be made from it.
	if _, err := client.New(s.Server, "none"); err != nil {
		return err
	}
	if err := checkContextName(s.Name); err != nil {
		return fmt.Errorf("--name: %w", err)
	}
	names, err := c.names()
	if err != nil || !slices.Contains(names, s.Name) {
		return err
	}
	before, err := c.read(s.Name)
	if err == nil && before.Server != s.Server {
		err = fmt.Errorf("the context %s is of %s; give --name, or 'batchreset context remove %s' first", s.Name, before.Server, s.Name)
	}
	return err
}

// readToken reads a token from a file, a terminal or standard input.
func readToken(std *terminal.Streams, file string) (string, error) {
	if file != "" {
		token, err := terminal.ReadSecret(file)
		if err != nil {
			return "", fmt.Errorf("--token-file: %w", err)
		}
		return token, nil
	}
	var typed string
	var err error
	if tty, ok := std.In.(*os.File); ok && term.IsTerminal(int(tty.Fd())) {
		typed, err = terminal.AskSecret(std, tty, "Token: ")
	} else {
		typed, err = bufio.NewReader(io.LimitReader(std.In, 64<<10)).ReadString('\n')
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if typed = strings.TrimSpace(typed); typed == "" {
		return "", errors.New("there is no token: type it, give it on standard input, or in a file with --token-file")
	}
	return typed, nil
}

func whoIs(ctx context.Context, to savedContext, certificates *certificateFlags, notices *notices) (client.Identity, error) {
	c, err := newClient(to, certificates, notices)
	if err != nil {
		return client.Identity{}, err
	}
	defer c.Close()
	return c.WhoAmI(ctx)
}

// identity is who a token is, and where.
type identity struct {
	Server  string `json:"server"`
	Context string `json:"context,omitempty"`
	client.Identity
}

func newWhoamiCommand(std *terminal.Streams) *cobra.Command {
	var flags callerFlags
	cmd := &cobra.Command{
		Use:   "whoami",
		Short: "Show which server commands ask, and as whom",
		Long: `Asks the server whose token the commands use, and shows the server and the context that
follow from the command line, the environment and the contexts.`,
		Example: `  batchreset whoami
  batchreset whoami --context lab --output json`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			to, err := flags.target()
			if err != nil {
				return err
			}
			who, err := whoIs(cmd.Context(), to, &flags.certificates, &notices{w: std.Err})
			if err != nil {
				return err
			}
			me := identity{to.Server, to.Name, who}
			return flags.output.Show(std.Out, terminal.View{
				Document: me, Text: me.write,
				Columns: []string{"server", "context", "tenant", "token_id", "scopes", "created_at", "expires_at"},
			})
		},
	}
	flags.define(cmd.Flags(), std)
	return cmd
}

func (i identity) write(w io.Writer) error {
	t := terminal.NewTable(w, "Server", i.Server)
	t.Row("Context", cmp.Or(i.Context, "-"))
	t.Row("Tenant", i.Tenant)
	t.Row("Token", i.TokenID)
	t.Row("Scopes", strings.Join(i.Scopes, ","))
	expires := "never"
	if !i.ExpiresAt.IsZero() {
		expires = i.ExpiresAt.UTC().Format(time.RFC3339)
	}
	t.Row("Expires", expires)
	return t.Flush()
}

func newLogoutCommand(std *terminal.Streams) *cobra.Command {
	var (
		output terminal.Output
		kept   contexts
		name   string
	)
	cmd := &cobra.Command{
		Use:   "logout",
		Short: "Forget the token of the current context",
		Long: `Removes the current context, or the one that --context names, with its token. The token
itself stays good until it expires or an operator revokes it.`,
		Example: `  batchreset logout
  batchreset logout --context lab`,
		Args: terminal.NoArgs,
		RunE: func(*cobra.Command, []string) (err error) {
			if name == "" {
				if name, err = kept.current(); err != nil {
					return err
				}
			}
			if name == "" {
				return errors.New("there is no current context; --context names another one")
			}
			return kept.forget(std, output, name)
		},
	}
	output.Define(cmd.Flags())
	kept.define(cmd.Flags(), std)
	cmd.Flags().StringVar(&name, "context", "", "`name` of the context (default: the current one)")
	return cmd
}

// forget removes a context and says so.
func (c contexts) forget(std *terminal.Streams, output terminal.Output, name string) error {
	if err := c.remove(name); err != nil {
		return err
	}
	return output.Said(std, map[string]any{"context": name, "removed": true}, "the context %s is removed", name)
}

func newContextCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "context",
		Short: "List, choose and remove what 'batchreset login' has kept",
		Long: `A context is a server and a token for it, under a name. Commands use the current one
unless --context, BATCHRESET_CONTEXT, or their other flags say otherwise.`,
	}
	named := func(use, short, example string, do func(kept contexts, output terminal.Output, name string) error) *cobra.Command {
		var (
			output terminal.Output
			kept   contexts
		)
		sub := &cobra.Command{
			Use: use, Short: short, Example: example, Args: terminal.ArgsFromUsage,
			RunE: func(_ *cobra.Command, args []string) error { return do(kept, output, args[0]) },
		}
		output.Define(sub.Flags())
		kept.define(sub.Flags(), std)
		return sub
	}
	cmd.AddCommand(
		newContextListCommand(std),
		named("use NAME", "Make a context the current one", "  batchreset context use lab", func(kept contexts, output terminal.Output, name string) error {
			if err := kept.use(name); err != nil {
				return err
			}
			return output.Said(std, map[string]any{"context": name, "current": true}, "the context %s is the current one now", name)
		}),
		named("remove NAME", "Forget a context with its token", "  batchreset context remove lab", func(kept contexts, output terminal.Output, name string) error {
			return kept.forget(std, output, name)
		}))
	return cmd
}

// listedContext is a context without its token.
type listedContext struct {
	Name    string `json:"name"`
	Server  string `json:"server,omitempty"` // empty if the context cannot be read
	Current bool   `json:"current"`
}

func newContextListCommand(std *terminal.Streams) *cobra.Command {
	var (
		output terminal.Output
		kept   contexts
	)
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the contexts, without their tokens",
		Example: "  batchreset context list --output json",
		Args:    terminal.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			list, err := kept.list()
			return errors.Join(err, output.Show(std.Out, terminal.View{
				List: "contexts", Rows: terminal.Each(list), Columns: []string{"name", "server", "current"},
				Table: func(w io.Writer) error {
					table := terminal.NewTable(w, "CURRENT", "NAME", "SERVER")
					for _, c := range list {
						table.Row(map[bool]string{true: "*", false: " "}[c.Current], c.Name, c.Server)
					}
					return table.Flush()
				},
			}))
		},
	}
	output.Define(cmd.Flags())
	kept.define(cmd.Flags(), std)
	return cmd
}

// list are all contexts; the error says which ones cannot be read.
func (c contexts) list() (all []listedContext, err error) {
	names, err := c.names()
	current, unread := c.current()
	err = errors.Join(err, unread)
	for _, name := range names {
		s, unread := c.read(name)
		err = errors.Join(err, unread)
		all = append(all, listedContext{name, s.Server, name == current})
	}
	return all, err
}
