package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/tasks"
)

// enumerated are the values of flags that have no others, wherever they are, or in one
// command.
var enumerated = map[string][]string{
	"output": {"text", "json"},
	"fleet":  {"registered", "open"},
	"driver": {"http", "simulator"},
	"state":  words(tasks.JobStates),
	"scope":  words(tasks.Scopes),

	"retry --state": words(tasks.RetryStates),
}

// completeFlags tells the shells what may follow the flags of cmd and the commands below
// it: the values that there are, and the name of a file where the usage says `file`.
func completeFlags(cmd *cobra.Command) {
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		how := cobra.NoFileCompletions
		if name, _ := pflag.UnquoteUsage(f); name == "file" {
			how = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
		} else if values, its := enumerated[cmd.Name()+" --"+f.Name]; its {
			how = cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
		} else if values := enumerated[f.Name]; values != nil {
			how = cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
		}
		if err := cmd.RegisterFlagCompletionFunc(f.Name, how); err != nil {
			panic(err) // only for a flag that is not there, or twice
		}
	})
	for _, sub := range cmd.Commands() {
		completeFlags(sub)
	}
}

// words are strings of another type as strings.
func words[S ~string](list []S) (all []string) {
	for _, s := range list {
		all = append(all, string(s))
	}
	return all
}
