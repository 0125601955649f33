package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime/debug"
	"slices"
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
BATCHRESET_ATTEMPT_TIMEOUT. A flag on the command line wins. A variable that is nearly
one of them is refused, other ones that begin like that are left alone.`,
		Example: `  # Everything in one process, nothing to install:
  batchreset dev

  # Production: any number of each, on one Redis
  batchreset api    --redis redis://localhost:6379/0
  batchreset worker --redis redis://localhost:6379/0 --driver http --driver-url 'https://phones.example/{instance_id}/reset'

  # As a caller:
  batchreset submit --wait phone-1 phone-2`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkEnvironment(root, variables); err != nil {
				return err
			}
			return setFromEnvironment(cmd.Flags(), variables)
		},
	}
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
			root.AddCommand(c)
		}
	}
	add("service", newDevCommand(std), newAPICommand(std), newWorkerCommand(std))
	add("caller", newSubmitCommand(std), newStatusCommand(std), newWatchCommand(std), newJobsCommand(std),
		newCancelCommand(std), newRetryCommand(std))
	add("operator", newOperatorCommand(std), newTokenCommand(std), newFleetCommand(std), newWebhookCommand(std), newTenantCommand(std),
		newHaltCommand(std), newResumeCommand(std), newAuditCommand(std), newHealthcheckCommand())
	// Nothing of ours but 'fleet import' takes files as arguments.
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.AddCommand(&cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(std.out, "batchreset", versionText())
			return err
		},
	})
	completeFlags(root)
	leaveNothingOut(root)
	return root
}

// leaveNothingOut has cmd and the commands below it refuse what would be skipped
// otherwise: a flag that is given twice, of which the last would count, and the name of a
// command that does not exist, for which there would be help and success.
func leaveNothingOut(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if _, many := f.Value.(pflag.SliceValue); many || f.Value.Type() == "stringToString" {
			return
		}
		if f.DefValue == "0s" {
			f.DefValue = "0" // else the help would say so
		}
		f.Value = &once{Value: f.Value}
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

// checkEnvironment refuses variables that were meant to be one of a flag of some command.
// Others are not ours: Kubernetes makes some for a service that is called batchreset.
func checkEnvironment(root *cobra.Command, variables map[string]string) error {
	known := map[string]bool{}
	var collect func(*cobra.Command)
	collect = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known[strings.TrimPrefix(environmentVariable(f.Name), environmentPrefix)] = true })
		for _, sub := range cmd.Commands() {
			collect(sub)
		}
	}
	collect(root)
	for _, variable := range slices.Sorted(maps.Keys(variables)) {
		name, ours := strings.CutPrefix(variable, environmentPrefix)
		if !ours || known[name] {
			continue
		}
		if hint := tasks.DidYouMean(name, slices.Sorted(maps.Keys(known))); hint != "" {
			return fmt.Errorf("unknown environment variable %s%s", variable, strings.Replace(hint, `"`, `"`+environmentPrefix, 1))
		}
	}
	return nil
}

const environmentPrefix = "BATCHRESET_"

// environmentVariable is the name of the variable that sets a flag.
func environmentVariable(flag string) string {
	return environmentPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// setFromEnvironment gives each flag that was not set on the command line the
// value of its environment variable, if that has one.
func setFromEnvironment(flags *pflag.FlagSet, variables map[string]string) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		value := variables[environmentVariable(f.Name)]
		if f.Changed || value == "" || f.Name == "help" || failed != nil {
			return
		}
		if err := flags.Set(f.Name, value); err != nil {
			failed = fmt.Errorf("%s: %w", environmentVariable(f.Name), err)
		}
	})
	return failed
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
