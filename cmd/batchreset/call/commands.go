// Package call has the commands of callers: those who submit resets and follow their jobs. They ask
// the service over HTTP as anybody else could, with api/client, and need neither Redis nor a worker.
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

// Commands are the commands of those who submit and follow jobs.
func Commands(std *terminal.Streams) []*cobra.Command {
	all := []*cobra.Command{
		newLoginCommand(std), newLogoutCommand(std), newWhoamiCommand(std), newContextCommand(std),
		newSubmitCommand(std), newStatusCommand(std), newWatchCommand(std), newJobsCommand(std),
		newCancelCommand(std), newRetryCommand(std), newProofCommand(std), newRunCommand(std),
	}
	for _, cmd := range all {
		terminal.EndEarly(cmd)
		offerToCaller(std, cmd)
	}
	return all
}

// offerToCaller tells the shells what may follow a caller's command or the commands below it.
func offerToCaller(std *terminal.Streams, cmd *cobra.Command) {
	switch cmd.Name() {
	case "retry":
		terminal.OfferValues(cmd, "state", terminal.Strings(tasks.RetryStates)...)
	case "run":
		for _, sub := range cmd.Commands() {
			states := terminal.Strings(tasks.RunStates)
			switch sub.Name() {
			case "results":
				states = terminal.Strings(tasks.ItemStates)
			case "retry":
				states = terminal.Strings(tasks.RetryStates)
			}
			terminal.OfferValues(sub, "state", states...)
		}
	default:
		terminal.OfferValues(cmd, "state", terminal.Strings(tasks.JobStates)...)
	}
	offerWhatThereIs(std, cmd)
}

// offerWhatThereIs is about the jobs, labels and contexts that there are.
func offerWhatThereIs(std *terminal.Streams, cmd *cobra.Command) {
	switch cmd.CommandPath() {
	case "status", "watch", "cancel", "retry", "proof":
		cmd.ValidArgsFunction = std.Completion(jobsOffer(std))
	case "run show", "run watch", "run pause", "run resume", "run cancel", "run retry", "run results", "run proof", "run approve", "run reject":
		cmd.ValidArgsFunction = std.Completion(runsOffer(std))
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

// connectToOffer makes the client of a command line that is being typed.
func connectToOffer(std *terminal.Streams, cmd *cobra.Command) (*client.Client, error) {
	said := func(name string) string { return cmd.Flag(name).Value.String() }
	flags := callerFlags{
		server: said("server"), token: said("token"), tokenFile: said("token-file"),
		context: said("context"), contexts: contextsIn(said("config-dir"), std),
		certificates: certificateFlags{said("ca-file"), said("cert-file"), said("key-file")},
	}
	return flags.connect(&notices{w: cmd.ErrOrStderr()})
}

// someJobs are the newest jobs of the caller.
func someJobs(ctx context.Context, std *terminal.Streams, cmd *cobra.Command) ([]client.Job, error) {
	c, err := connectToOffer(std, cmd)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return listJobs(ctx, c, client.JobsFilter{}, 100)
}

// runsOffer offers the runs with which the command can do something.
func runsOffer(std *terminal.Streams) terminal.Offer {
	return func(ctx context.Context, cmd *cobra.Command, args []string) (ids []string, err error) {
		if len(args) > 0 {
			return nil, nil
		}
		c, err := connectToOffer(std, cmd)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		runs, err := listRuns(ctx, c, client.RunsFilter{}, 100)
		for _, run := range runs {
			fits := true
			switch cmd.Name() {
			case "pause", "cancel":
				fits = !run.Final()
			case "resume":
				fits = run.State == string(tasks.RunPaused)
			case "retry":
				fits = run.Final() && run.Counts.Succeeded < run.Total
			case "approve", "reject":
				fits = run.Stage == "approval"
			case "proof":
				fits = run.Final()
			}
			if fits {
				ids = append(ids, fmt.Sprintf("%s\t%s, %s, %s", run.ID, run.State, terminal.Plural(run.Total, "instance"), terminal.Clock(run.CreatedAt)))
			}
		}
		return ids, err
	}
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
