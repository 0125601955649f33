package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/api/client"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// completionTime is how long whoever presses the tab key is kept waiting for a server. One
// that does not answer until then has nothing to offer, and no error is shown.
const completionTime = time.Second

// enumerated are the values of flags that have no others, wherever they are, or in one
// command.
var enumerated = map[string][]string{
	"output": outputForms,
	"fleet":  {"registered", "open"},
	"driver": {"http", "simulator"},
	"state":  words(tasks.JobStates),
	"scope":  words(tasks.Scopes),
	"role":   words(tasks.Roles),
	"action": words(tasks.Actions),
	"events": words(tasks.Topics),

	"retry --state": words(tasks.RetryStates),
}

// completer offers what may come next on a command line.
type completer struct {
	prepare func(cmd *cobra.Command, args []string) error // with what the environment says
}

// offer finds what there is to offer; what is not to be shown is left out by the shell.
type offer func(ctx context.Context, cmd *cobra.Command, args []string) ([]string, error)

func (c completer) with(find offer) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx, cancel := context.WithTimeout(cmd.Context(), completionTime)
		defer cancel()
		cmd.SetErr(io.Discard)
		if c.prepare(cmd, args) != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		found, _ := find(ctx, cmd, args) // there is nowhere to say what went wrong
		return found, cobra.ShellCompDirectiveNoFileComp
	}
}

// complete tells the shells what may follow cmd and the commands below it: the jobs, tenants
// and contexts that there are, the values of a flag that has no others, and the name of a
// file where the usage says `file`.
func (c completer) complete(cmd *cobra.Command) {
	switch cmd.CommandPath() {
	case "batchreset status", "batchreset watch", "batchreset cancel", "batchreset retry":
		cmd.ValidArgsFunction = c.with(offerJobs)
	case "batchreset tenant list":
		cmd.ValidArgsFunction = c.with(offerTenants)
	case "batchreset context use", "batchreset context remove":
		cmd.ValidArgsFunction = c.with(offerContexts)
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if err := cmd.RegisterFlagCompletionFunc(f.Name, c.flag(cmd, f)); err != nil {
			panic(err) // only for a flag that is not there, or twice
		}
	})
	for _, sub := range cmd.Commands() {
		c.complete(sub)
	}
}

// flag says what may follow a flag.
func (c completer) flag(cmd *cobra.Command, f *pflag.Flag) cobra.CompletionFunc {
	switch name, _ := pflag.UnquoteUsage(f); {
	case name == "file":
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
	case name == "directory":
		return cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
	case f.Name == "tenant":
		return c.with(offerTenants)
	case f.Name == "context":
		return c.with(offerContexts)
	case f.Name == "label" && cmd.Name() != "submit":
		return c.with(offerLabels)
	}
	values := enumerated[cmd.Name()+" --"+f.Name]
	if values == nil {
		values = enumerated[f.Name]
	}
	return cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)
}

// someJobs are the newest jobs of the caller.
func someJobs(ctx context.Context, cmd *cobra.Command) ([]client.Job, error) {
	said := func(name string) string { return cmd.Flag(name).Value.String() }
	flags := callerFlags{
		server: said("server"), token: said("token"), tokenFile: said("token-file"),
		context: said("context"), contexts: contexts{said("config-dir")},
	}
	c, err := flags.connect(&notices{w: cmd.ErrOrStderr()})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return listJobs(ctx, c, client.JobsFilter{}, 100)
}

// offerJobs offers the jobs with which the command can do something.
func offerJobs(ctx context.Context, cmd *cobra.Command, args []string) (ids []string, err error) {
	jobs, err := someJobs(ctx, cmd)
	for _, job := range jobs {
		fits := !slices.Contains(args, job.ID)
		switch cmd.Name() {
		case "cancel":
			fits = fits && !job.Final()
		case "retry":
			fits = fits && job.Final() && job.Counts.Succeeded < job.Total
		case "status":
			fits = len(args) == 0
		}
		if fits {
			ids = append(ids, fmt.Sprintf("%s\t%s, %s, %s", job.ID, job.State, plural(job.Total, "instance"), clock(job.CreatedAt)))
		}
	}
	return ids, err
}

// offerLabels offers the labels of jobs.
func offerLabels(ctx context.Context, cmd *cobra.Command, _ []string) ([]string, error) {
	jobs, err := someJobs(ctx, cmd)
	found := map[string]bool{}
	for _, job := range jobs {
		for name, value := range job.Labels {
			found[name+"="+value] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), err
}

func offerContexts(_ context.Context, cmd *cobra.Command, args []string) ([]string, error) {
	if len(args) > 0 && cmd.HasParent() && cmd.Parent().Name() == "context" {
		return nil, nil
	}
	return contexts{cmd.Flag("config-dir").Value.String()}.names()
}

// offerTenants offers those that have a token, a halt or limits.
func offerTenants(ctx context.Context, cmd *cobra.Command, args []string) (names []string, err error) {
	cmd.SetContext(ctx)
	flags := redisFlags{url: cmd.Flag("redis").Value.String(), file: cmd.Flag("redis-file").Value.String()}
	err = withRedis(cmd, flags, func(db *redisdb.DB) error {
		policies, err := db.Policies(ctx)
		for _, p := range policies {
			if p.Tenant != "" {
				names = append(names, p.Tenant)
			}
		}
		more, others := db.Tenants(ctx)
		names = append(names, more...)
		return errors.Join(err, others)
	})
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return slices.Contains(args, name) }), err
}

// words are strings of another type as strings.
func words[S ~string](list []S) (all []string) {
	for _, s := range list {
		all = append(all, string(s))
	}
	return all
}
