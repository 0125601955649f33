package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/tasks"
)

func newJobsCommand(std *streams) *cobra.Command {
	var (
		flags  callerFlags
		filter client.JobsFilter
		limit  int
		all    bool
	)
	cmd := &cobra.Command{
		Use:   "jobs",
		Short: "List your jobs, newest first",
		Long: `Lists the jobs of your tenant, newest first, without their instances. Job records
are kept for some days after their job has finished.

--instance finds the jobs that name an instance. Ask it when a submit broke off and
you do not know whether the batch was accepted.`,
		Example: `  batchreset jobs
  batchreset jobs --state running --all
  batchreset jobs --instance phone-1 --limit 1 --output json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if filter.State != "" && !slices.Contains(tasks.JobStates, tasks.JobState(filter.State)) {
				return fmt.Errorf("--state must be one of %v, not %q", tasks.JobStates, filter.State)
			}
			if filter.InstanceID != "" {
				if err := tasks.CheckInstanceID(filter.InstanceID); err != nil {
					return fmt.Errorf("--instance %w", err)
				}
			}
			if limit < 1 {
				return fmt.Errorf("--limit must be at least 1, not %d", limit)
			}
			if all {
				limit = -1
			}
			c, err := flags.connect(&notices{w: std.err})
			if err != nil {
				return err
			}
			defer c.Close()
			jobs, err := listJobs(cmd.Context(), c, filter, limit)
			if err != nil {
				return err
			}
			if flags.output.json() {
				return writeJSON(std.out, map[string][]json.RawMessage{"jobs": records(jobs)})
			}
			if len(jobs) == 0 {
				fmt.Fprintln(std.err, "no jobs")
				return nil
			}
			return writeJobs(std.out, jobs)
		},
	}
	flags.define(cmd.Flags())
	cmd.Flags().StringVar(&filter.State, "state", "", "only jobs in this `state`: pending, running, succeeded, failed, partial or cancelled")
	cmd.Flags().StringVar(&filter.InstanceID, "instance", "", "only jobs that name the instance with this `ID`")
	cmd.Flags().IntVar(&limit, "limit", 20, "how many jobs to list at most")
	cmd.Flags().BoolVar(&all, "all", false, "list every job, however many")
	cmd.MarkFlagsMutuallyExclusive("limit", "all")
	return cmd
}

// listJobs lists limit jobs at most; all, if limit is negative.
func listJobs(ctx context.Context, c *client.Client, filter client.JobsFilter, limit int) ([]client.Job, error) {
	filter.Limit = 100 // the most that the service gives at a time
	if limit > 0 {
		filter.Limit = min(filter.Limit, limit)
	}
	var jobs []client.Job
	for job, err := range c.Jobs(ctx, filter) {
		if err != nil {
			return nil, err
		}
		if jobs = append(jobs, job); len(jobs) == limit {
			break
		}
	}
	return jobs, nil
}

func writeJobs(w io.Writer, jobs []client.Job) error {
	t := newTable(w, "JOB", "STATE", "CREATED", "TOOK", "INSTANCES", "")
	for _, job := range jobs {
		t.row(job.ID, job.State, clock(job.CreatedAt), took(job.StartedAt, job.FinishedAt), strconv.Itoa(job.Total), countsInWords(job.Counts))
	}
	return t.flush()
}

// records are jobs as the server sent them.
func records(jobs []client.Job) []json.RawMessage {
	all := make([]json.RawMessage, 0, len(jobs))
	for _, job := range jobs {
		all = append(all, job.Record)
	}
	return all
}
