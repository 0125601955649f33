package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/tasks"
)

// run is the whole program. Everything outside comes in as a parameter.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) error {
	variables := map[string]string{}
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		variables[name] = value
	}
	root := newRootCommand(variables, &streams{in: stdin, out: stdout, err: stderr})
	if len(args) == 0 || !strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) { // which reads flags several times
		onceEach(root)
	}
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

func newRootCommand(variables map[string]string, std *streams) *cobra.Command {
	var root *cobra.Command
	root = &cobra.Command{
		Use:   "batchreset",
		Short: "Reset cloud phones in batches, as a service",
		Long: `batchreset accepts batches of instance IDs over HTTP, returns every instance to
its initial state in the background, and keeps a record of each job.

Every flag can be set by an environment variable: --attempt-timeout is
BATCHRESET_ATTEMPT_TIMEOUT. The command line wins, also where it says the same in another
way: with --token-file, BATCHRESET_TOKEN counts for nothing. A variable that is nearly one
of them is refused, other ones that begin like that are left alone.

Exit codes: 0 all well, 2 some instances were not reset, 3 refused by the service,
4 the service or Redis not reachable, 64 the command line is wrong, 124 --timeout,
130 Ctrl-C. 'batchreset help exit-codes' says more.`,
		Example: `  # Everything in one process, nothing to install:
  batchreset dev

  # Production: any number of each, on one Redis
  batchreset api    --redis-file redis-url.txt
  batchreset worker --redis-file redis-url.txt --driver http --driver-url 'https://phones.example/{instance_id}/reset'

  # As a caller:
  batchreset submit --wait phone-1 phone-2`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if err := checkEnvironment(root, variables); err != nil {
				return err
			}
			return prepare(std, cmd, args, variables)
		},
		Version: versionText(),
	}
	root.SetVersionTemplate("batchreset {{.Version}}\n")
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w (see '%s --help')", err, cmd.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: "service", Title: "Run the service:"},
		&cobra.Group{ID: "caller", Title: "Submit and follow jobs:"},
		&cobra.Group{ID: "operator", Title: "Operate:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			if group != "service" {
				endEarly(c)
			}
			root.AddCommand(c)
		}
	}
	add("service", newDevCommand(std), newAPICommand(std), newWorkerCommand(std))
	add("caller", newLoginCommand(std), newLogoutCommand(std), newWhoamiCommand(std), newContextCommand(std), newSubmitCommand(std), newStatusCommand(std), newWatchCommand(std), newJobsCommand(std),
		newCancelCommand(std), newRetryCommand(std))
	add("operator", newOperatorCommand(std), newTokenCommand(std), newFleetCommand(std), newWebhookCommand(std), newTenantCommand(std),
		newHaltCommand(std), newResumeCommand(std), newAuditCommand(std), newHealthcheckCommand())
	// Nothing of ours but 'fleet import' takes files as arguments.
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.AddCommand(newVersionCommand(std), newExitCodesTopic())
	completer{func(cmd *cobra.Command, args []string) error { return prepare(std, cmd, args, variables) }}.complete(root)
	leaveNothingOut(root)
	return root
}

// prepare has a command know what its environment says.
func prepare(std *streams, cmd *cobra.Command, args []string, variables map[string]string) error {
	flags := cmd.Flags()
	if err := setFromEnvironment(flags, args, variables); err != nil {
		return err
	}
	if quiet, err := flags.GetBool("quiet"); err == nil && quiet {
		std.quiet()
	}
	if dir := flags.Lookup("config-dir"); dir != nil && dir.Value.String() == "" {
		return dir.Value.Set(defaultConfigDir(variables))
	}
	return nil
}

func newVersionCommand(std *streams) *cobra.Command {
	var output outputFlag
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  batchreset version --output json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return output.show(std.out, view{document: map[string]any{"version": versionText()}, text: line("batchreset " + versionText())})
		},
	}
	output.define(cmd.Flags())
	return cmd
}

// onceEach has cmd and the commands below it refuse a flag that is given twice, of which
// the last would count otherwise.
func onceEach(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if _, many := f.Value.(pflag.SliceValue); many || f.Value.Type() == "stringToString" {
			return
		}
		f.Value = &once{Value: f.Value}
	})
	for _, sub := range cmd.Commands() {
		onceEach(sub)
	}
}

// leaveNothingOut has cmd and the commands below it refuse the name of a command that does
// not exist, for which there would be help and success otherwise. No duration is 0s in the
// help.
func leaveNothingOut(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.DefValue == "0s" {
			f.DefValue = "0" // else the help would say so
		}
	})
	var names []string
	for _, sub := range cmd.Commands() {
		leaveNothingOut(sub)
		names = append(names, sub.Name())
	}
	if cmd.HasParent() && names != nil && !cmd.Runnable() {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), tasks.DidYouMean(args[0], names))
			}
			return cmd.Help()
		}
	}
}

// once is the value of a flag that can be given once.
type once struct {
	pflag.Value
	given bool
}

// Set sets it.
func (o *once) Set(value string) error {
	if o.given {
		return errors.New("it is given twice, which one is right?")
	}
	o.given = true
	return o.Value.Set(value)
}

func versionText() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}
