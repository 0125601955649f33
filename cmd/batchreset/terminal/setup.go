// Package terminal is what all commands have in common: where they read and write, how flags and the
// environment go together, in which forms a result is printed, and what their exit codes mean.
// Data flows one way: the program makes Streams, its commands use them. It knows no command.
package terminal

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// Setup gives a finished tree of commands what all commands have in common: flags that the
// environment sets, errors that say where there is help, completion, and no name that is
// skipped. root has nothing but its texts and its commands.
func Setup(root *cobra.Command, std *Streams) {
	root.SilenceUsage, root.SilenceErrors = true, true
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		if err := checkEnvironment(root, std.Environment); err != nil {
			return err
		}
		return prepare(std, cmd, args)
	}
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w (see '%s --help')", inWords(err), cmd.CommandPath())
	})
	// Commands that take files as arguments say so.
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	defineConfig(root)
	completeTheRest(root)
	leaveNothingOut(root)
}

// Execute runs the command that args name.
func Execute(ctx context.Context, root *cobra.Command, args []string) error {
	if len(args) == 0 || !strings.HasPrefix(args[0], cobra.ShellCompRequestCmd) { // which reads flags several times
		onceEach(root)
	}
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// Fill gives the flags of a command that the command line does not set the values that the environment has for them, and
// then those of the file of --config.
func Fill(cmd *cobra.Command, args []string, variables map[string]string) error {
	if err := environment(variables).fill(cmd.Flags(), args); err != nil {
		return err
	}
	path, err := cmd.Flags().GetString(ConfigFlag)
	if err != nil || path == "" {
		return nil //nolint:nilerr // it has no such flag
	}
	file, err := readConfig(path, cmd.Root())
	if err != nil {
		return err
	}
	return file.layer(cmd, args).fill(cmd.Flags(), args)
}

// prepare has a command know what its environment and its file of settings say.
func prepare(std *Streams, cmd *cobra.Command, args []string) error {
	flags := cmd.Flags()
	if err := Fill(cmd, args, std.Environment); err != nil {
		return err
	}
	if quiet, err := flags.GetBool("quiet"); err == nil && quiet {
		std.quiet()
	}
	return nil
}
