package call

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// offerToCaller tells the shells what may follow a caller's command or the commands below it.
func offerToCaller(std *terminal.Streams, cmd *cobra.Command) {
	states := terminal.Strings(tasks.JobStates)
	if cmd.Name() == "retry" {
		states = terminal.Strings(tasks.RetryStates)
	}
	terminal.OfferValues(cmd, "state", states...)
	offerWhatThereIs(std, cmd)
}

// offerWhatThereIs is about the jobs, labels and contexts that there are.
func offerWhatThereIs(std *terminal.Streams, cmd *cobra.Command) {
	switch cmd.CommandPath() {
	case "status", "watch", "cancel", "retry", "proof":
		cmd.ValidArgsFunction = std.Completion(jobsOffer(std))
	case "context use", "context remove":
		cmd.ValidArgsFunction = std.Completion(contextsOffer(std))
	}
	std.CompleteFlag(cmd, "context", contextsOffer(std))
	if cmd.Name() != "submit" { // whose labels are those of the new jobs
		std.CompleteFlag(cmd, "label", labelsOffer(std))
	}
	for _, sub := range cmd.Commands() {
		offerWhatThereIs(std, sub)
	}
}

// someJobs are the newest jobs of the caller.
func someJobs(ctx context.Context, std *terminal.Streams, cmd *cobra.Command) ([]client.Job, error) {
	said := func(name string) string { return cmd.Flag(name).Value.String() }
	flags := callerFlags{
		server: said("server"), token: said("token"), tokenFile: said("token-file"),
		context: said("context"), contexts: contextsIn(said("config-dir"), std),
	}
	c, err := flags.connect(&notices{w: cmd.ErrOrStderr()})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return listJobs(ctx, c, client.JobsFilter{}, 100)
}

// jobsOffer offers the jobs with which the command can do something.
func jobsOffer(std *terminal.Streams) terminal.Offer {
	return func(ctx context.Context, cmd *cobra.Command, args []string) (ids []string, err error) {
		jobs, err := someJobs(ctx, std, cmd)
		for _, job := range jobs {
			fits := !slices.Contains(args, job.ID)
			switch cmd.Name() {
			case "cancel":
				fits = fits && !job.Final()
			case "retry":
				fits = fits && job.Final() && job.Counts.Succeeded < job.Total
			case "status":
				fits = len(args) == 0
			case "proof":
				fits = len(args) == 0 && job.Final()
			}
			if fits {
				ids = append(ids, fmt.Sprintf("%s\t%s, %s, %s", job.ID, job.State, terminal.Plural(job.Total, "instance"), terminal.Clock(job.CreatedAt)))
			}
		}
		return ids, err
	}
}

// labelsOffer offers the labels of jobs.
func labelsOffer(std *terminal.Streams) terminal.Offer {
	return func(ctx context.Context, cmd *cobra.Command, _ []string) ([]string, error) {
		jobs, err := someJobs(ctx, std, cmd)
		found := map[string]bool{}
		for _, job := range jobs {
			for name, value := range job.Labels {
				found[name+"="+value] = true
			}
		}
		return slices.Sorted(maps.Keys(found)), err
	}
}

// contextsOffer offers the names of contexts.
func contextsOffer(std *terminal.Streams) terminal.Offer {
	return func(_ context.Context, cmd *cobra.Command, args []string) ([]string, error) {
		if len(args) > 0 && cmd.HasParent() && cmd.Parent().Name() == "context" {
			return nil, nil
		}
		return contextsIn(cmd.Flag("config-dir").Value.String(), std).names()
	}
}
