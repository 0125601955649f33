package terminal

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// completionTime is how long whoever presses the tab key is kept waiting for a server. One
// that does not answer until then has nothing to offer, and no error is shown.
const completionTime = time.Second

// Offer finds what may come next on a command line; what is not to be shown is left out by the shell.
type Offer func(ctx context.Context, cmd *cobra.Command, args []string) ([]string, error)

// Completion has the shells offer what find finds, for a command that knows what its
// environment says.
func (s *Streams) Completion(find Offer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		cmd.SetErr(io.Discard)
		if prepare(s, cmd, args) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, _ := find(ctx, cmd, args) // there is nowhere to say what went wrong
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// CompleteFlag has the shells offer what find finds for a flag, if cmd has it.
func (s *Streams) CompleteFlag(cmd *cobra.Command, flag string, find Offer) {
	setCompletion(cmd, flag, s.Completion(find))
}

// OfferValues has the shells offer the only values that a flag has, in cmd, if it has that flag, and the
// commands below it.
func OfferValues(cmd *cobra.Command, flag string, values ...string) {
	setCompletion(cmd, flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	for _, sub := range cmd.Commands() {
		OfferValues(sub, flag, values...)
	}
}

// completeTheRest tells the shells what may follow those flags of cmd and the commands below
// it of which nothing was said: the name of a file where the usage says `file`, and nothing
// where it does not.
func completeTheRest(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if _, said := cmd.GetFlagCompletionFunc(f.Name); said {
			return
		}
		var values []string
		directive := cobra.ShellCompDirectiveNoFileComp
		switch kind, _ := pflag.UnquoteUsage(f); {
		case kind == "file":
			directive = cobra.ShellCompDirectiveDefault
		case kind == "directory":
			directive = cobra.ShellCompDirectiveFilterDirs
		case f.Name == "output":
			values = outputForms
			if own, ok := f.Value.(*outputFlag); ok {
				values = own.forms
			}
		}
		setCompletion(cmd, f.Name, cobra.FixedCompletions(values, directive))
	})
	for _, sub := range cmd.Commands() {
		completeTheRest(sub)
	}
}

func setCompletion(cmd *cobra.Command, flag string, completion cobra.CompletionFunc) {
	if cmd.Flags().Lookup(flag) == nil {
		return
	}
	if err := cmd.RegisterFlagCompletionFunc(flag, completion); err != nil {
		panic(err) // only for a flag that is registered twice
	}
}
