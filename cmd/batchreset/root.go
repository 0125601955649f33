package main

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// run is the whole program. Everything outside comes in as a parameter.
func run(ctx context.Context, args []string, getenv func(string) string, stdin io.Reader, stdout, stderr io.Writer) error {
	root := newRootCommand(getenv, &streams{in: stdin, out: stdout, err: stderr})
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

func newRootCommand(getenv func(string) string, std *streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "batchreset",
		Short: "Reset cloud phones in batches, as a service",
		Long: `batchreset accepts batches of instance IDs over HTTP, returns every instance to
its initial state in the background, and keeps a record of each job.

Every flag can be set by an environment variable: --attempt-timeout is
BATCHRESET_ATTEMPT_TIMEOUT. A flag on the command line wins.`,
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
			return setFromEnvironment(cmd.Flags(), getenv)
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
	return root
}

// environmentVariable is the name of the variable that sets a flag.
func environmentVariable(flag string) string {
	return "BATCHRESET_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// setFromEnvironment gives each flag that was not set on the command line the
// value of its environment variable, if that has one.
func setFromEnvironment(flags *pflag.FlagSet, getenv func(string) string) error {
	var failed error
	flags.VisitAll(func(f *pflag.Flag) {
		value := getenv(environmentVariable(f.Name))
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
