package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/serve"
	"batchreset/cmd/batchreset/terminal"
)

func newConfigCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check a file of settings, and show which ones hold",
		Long: `A file of settings has a line NAME: VALUE for each flag --NAME of api, worker and dev. What
stands in a part 'api:', 'worker:' or 'dev:' is for that process alone, and wins over what
stands before:

  redis-file: /etc/batchreset/redis-url
  tls-cert: /etc/batchreset/tls.crt
  tls-key: /etc/batchreset/tls.key
  api:
    listen: ":8443"
    cors-origins: [https://app.example, https://lab.example]
  worker:
    drivers: /etc/batchreset/drivers.yaml

Processes read it with --config FILE or BATCHRESET_CONFIG. The command line and environment
variables win over it. Operators' commands take from it what they have in common with the
processes, such as redis-file and secret-key-file. Names of files in it are as a command
line has them: from the directory in which the process is started.`,
	}
	cmd.AddCommand(newConfigCheckCommand(std), newConfigPrintCommand(std))
	return cmd
}

// configurable are the processes that have a part of the file.
var configurable = []string{"api", "worker", "dev"}

// configured is a process as the file, the environment and its defaults make it.
func configured(std *terminal.Streams, name, file string) (*cobra.Command, error) {
	cmd, _, err := newRootCommand(std).Find([]string{name})
	if err != nil {
		return nil, err
	}
	variables := maps.Clone(std.Environment)
	if variables == nil {
		variables = map[string]string{}
	}
	variables[terminal.EnvironmentVariable(terminal.ConfigFlag)] = file
	return cmd, terminal.Fill(cmd, nil, variables)
}

// configArgs defines --config, and reads the names of processes.
type configArgs struct{ file string }

func (a *configArgs) define(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.file, terminal.ConfigFlag, "", "the `file` of settings")
	cmd.ValidArgs = configurable
}

func checkServices(names []string) error {
	for _, name := range names {
		if !slices.Contains(configurable, name) {
			return fmt.Errorf("%.80q is no process: they are %s", name, strings.Join(configurable, ", "))
		}
	}
	return nil
}

func newConfigCheckCommand(std *terminal.Streams) *cobra.Command {
	var (
		args   configArgs
		output terminal.Output
	)
	cmd := &cobra.Command{
		Use:   "check [PROCESS...]",
		Short: "Say whether processes can start with a file of settings",
		Long: `Reads the file, refuses names that are no settings and values of the wrong kind, and then
checks all that a process checks before it connects to anything, with the files that the
settings name. Without PROCESS it checks those that have a part in the file; if none has, the
api, and a worker if a driver is named. The environment counts as it does for the process.`,
		Example: `  batchreset config check --config batchreset.yaml
  batchreset config check --config batchreset.yaml worker`,
		RunE: func(_ *cobra.Command, names []string) error {
			if args.file == "" {
				return errors.New("--config is missing")
			}
			if err := checkServices(names); err != nil {
				return err
			}
			commands := map[string]*cobra.Command{}
			for _, name := range configurable { // every value must fit, whoever it is for
				cmd, err := configured(std, name, args.file)
				if err != nil {
					return err
				}
				commands[name] = cmd
			}
			if len(names) == 0 {
				parts, err := terminal.PartsOf(args.file, newRootCommand(std))
				if err != nil {
					return err
				}
				names = parts
			}
			if len(names) == 0 {
				names = []string{"api"}
				if serve.HasDriver(commands["worker"].Flags()) {
					names = append(names, "worker")
				}
			}
			for _, name := range names {
				if err := commands[name].PreRunE(commands[name], nil); err != nil {
					return fmt.Errorf("%s: %s: %w", args.file, name, err)
				}
			}
			return output.Show(std.Out, terminal.View{
				Document: map[string]any{"file": args.file, "good_for": names},
				Text:     terminal.Line(fmt.Sprintf("%s is good for %s", args.file, strings.Join(names, ", "))),
			})
		},
	}
	args.define(cmd)
	output.Define(cmd.Flags())
	return cmd
}

// heldSetting is a setting that holds.
type heldSetting struct {
	Process string `json:"process"`
	Name    string `json:"name"`
	Value   string `json:"value"`
	From    string `json:"from"`
}

func newConfigPrintCommand(std *terminal.Streams) *cobra.Command {
	var (
		args   configArgs
		output terminal.Output
		all    bool
	)
	cmd := &cobra.Command{
		Use:   "print [PROCESS...]",
		Short: "Show the settings that hold, and where each is from",
		Long: `Shows the settings of processes, all three unless they are named, as they are with the file,
the environment and the defaults, and where each is from. Passwords in URLs are not shown;
what is in a file is not read.`,
		Example: `  batchreset config print --config batchreset.yaml api
  batchreset config print --all worker --output yaml`,
		RunE: func(_ *cobra.Command, names []string) error {
			if err := checkServices(names); err != nil {
				return err
			}
			if len(names) == 0 {
				names = configurable
			}
			held := []heldSetting{}
			for _, name := range names {
				cmd, err := configured(std, name, args.file)
				if err != nil {
					return err
				}
				cmd.Flags().VisitAll(func(f *pflag.Flag) {
					origin, where := terminal.OriginOf(f)
					if f.Name == terminal.ConfigFlag || f.Name == "help" || origin == terminal.FromDefault && !all {
						return
					}
					if origin == terminal.FromDefault {
						where = "default"
					}
					held = append(held, heldSetting{name, f.Name, masked(f), where})
				})
			}
			return output.Show(std.Out, terminal.View{
				List: "settings", Rows: terminal.Each(held), Columns: []string{"process", "name", "value", "from"},
				Text: func(w io.Writer) error {
					if len(held) == 0 {
						_, err := fmt.Fprintln(w, "nothing is set: all settings have their defaults (--all shows them)")
						return err
					}
					return (&output).Show(w, terminal.View{List: "settings", Rows: terminal.Each(held), Columns: []string{"process", "name", "value", "from"}})
				},
			})
		},
	}
	args.define(cmd)
	output.Define(cmd.Flags())
	cmd.Flags().BoolVar(&all, "all", false, "show those with their defaults, too")
	return cmd
}

// hidden stands for what is not shown.
const hidden = "xxxxx"

// masked is the value of a flag without the passwords in it.
func masked(f *pflag.Flag) string {
	value := f.Value.String()
	if kind, _ := pflag.UnquoteUsage(f); kind == "file" || !strings.ContainsAny(value, "@?") {
		return value
	}
	masked, ok := maskedURL(value)
	if !ok {
		return "(not shown)" // it may have a password in it, and it is not known where
	}
	return masked
}

// maskedURL is a URL as it stands there, but for its password and what in its query may be a secret. It is not ok where a
// password could be elsewhere: one with a /, ? or # in it ends what has the password for who reads the URL.
func maskedURL(value string) (masked string, ok bool) {
	u, err := url.Parse(value)
	if err != nil {
		return "", false
	}
	before, query, queried := strings.Cut(value, "?")
	scheme, rest, _ := strings.Cut(before, "//")
	if strings.Contains(before, "@") {
		at := strings.LastIndex(rest, "@")
		if u.User == nil || at < 0 || strings.Contains(rest[:at], "/") {
			return "", false
		}
		name, _, two := strings.Cut(rest[:at], ":")
		if two {
			name += ":"
		} else {
			name = "" // it may be a password without a name before it
		}
		before = scheme + "//" + name + hidden + rest[at:]
	}
	if !queried {
		return before, !strings.Contains(u.Fragment, "@")
	}
	if strings.ContainsAny(query, "@#;") {
		return "", false
	}
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		switch name, _, valued := strings.Cut(pair, "="); {
		case !valued:
			pairs[i] = hidden
		case secretName(name):
			pairs[i] = name + "=" + hidden
		}
	}
	return before + "?" + strings.Join(pairs, "&"), true
}

// secretName reports whether what has the name in a query may be a secret.
func secretName(name string) bool {
	name = strings.ToLower(name)
	return strings.Contains(name, "%") || slices.ContainsFunc([]string{"pass", "pwd", "token", "secret", "key", "auth", "cred", "sig", "code"}, func(part string) bool {
		return strings.Contains(name, part)
	})
}
