package main

import (
	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/call"
	"batchreset/cmd/batchreset/operate"
	"batchreset/cmd/batchreset/serve"
	"batchreset/cmd/batchreset/terminal"
)

// newRootCommand makes the whole command line. Everything outside comes in with the streams.
func newRootCommand(std *terminal.Streams) *cobra.Command {
	root := &cobra.Command{
		Use:   "batchreset",
		Short: "Reset cloud phones in batches, as a service",
		Long: `batchreset accepts batches of instance IDs over HTTP, returns every instance to
its initial state in the background, and keeps a record of each job.

Every flag can be set by an environment variable: --attempt-timeout is
BATCHRESET_ATTEMPT_TIMEOUT. The command line wins, also where it says the same in another
way: with --token-file, BATCHRESET_TOKEN counts for nothing. A variable that is nearly one
of them is refused, other ones that begin like that are left alone. Settings of processes can
also be in a file: 'batchreset config'.

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
		Version: terminal.Version(),
	}
	root.SetVersionTemplate("batchreset {{.Version}}\n")
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
	add("service", serve.Commands(std)...)
	add("caller", call.Commands(std)...)
	add("operator", operate.Commands(std)...)
	add("operator", serve.NewHealthcheckCommand())
	root.AddCommand(newDoctorCommand(std), newConfigCommand(std), newManCommand(), newVersionCommand(std), terminal.NewExitCodesTopic())
	terminal.Setup(root, std)
	return root
}

func newVersionCommand(std *terminal.Streams) *cobra.Command {
	var output terminal.Output
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  batchreset version --output json",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return output.Show(std.Out, terminal.View{Document: map[string]any{"version": terminal.Version()}, Text: terminal.Line("batchreset " + terminal.Version())})
		},
	}
	output.Define(cmd.Flags())
	return cmd
}
