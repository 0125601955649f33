package operate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/worker/webhook"
)

func newWebhookCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "webhook",
		Short: "Send tenants' endpoints an event when jobs and runs end, or wait for people",
		Long: `A tenant's webhook endpoints are told of every job of the tenant that ends
(job.finished) and, if they want, of every item that fails (job.item_failed), and of
every run that waits for approval (run.waiting_approval), is approved or rejected
(run.decided), pauses (run.paused) and ends (run.finished): by a POST that is signed as
the Standard Webhooks specification has it. Any of its libraries verifies it, see
https://www.standardwebhooks.com.

The workers send the events. An event that the endpoint does not accept is sent again, ten
times within three days. An endpoint that answers 410, or accepts nothing for five days, is
disabled.`,
	}
	cmd.AddCommand(newWebhookAddCommand(std), newWebhookListCommand(std), newWebhookTestCommand(std),
		newWebhookRotateCommand(std), newWebhookEnableCommand(std), newWebhookRemoveCommand(std))
	return cmd
}

func newWebhookAddCommand(std *terminal.Streams) *cobra.Command {
	var (
		op          operation
		tenant, url string
		events      []string
		private     bool
	)
	cmd := &cobra.Command{
		Use:   "add --tenant TENANT --url URL",
		Short: "Add an endpoint and print its secret, once",
		Long: `Adds an endpoint of a tenant. The secret that its receiver verifies the signatures
with is the last line of the output and is shown only now; the endpoint's ID goes to
standard error. Redis keeps the secret, because it signs.

The URL must be https, and every address of its host a public one.`,
		Example: `  batchreset webhook add --tenant acme --url https://acme.example/hooks
  SECRET=$(batchreset webhook add --tenant acme --url https://acme.example/hooks --events run.paused,run.finished)`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			topics, err := tasks.ParseTopics(events)
			if err != nil {
				return fmt.Errorf("--%w", err)
			}
			switch {
			case tenant == "":
				return errors.New("--tenant is missing")
			case url == "":
				return errors.New("--url is missing")
			}
			if err := tasks.CheckTenant(tenant); err != nil {
				return fmt.Errorf("--tenant: %w", err)
			}
			if err := webhook.CheckURL(cmd.Context(), url, private); err != nil {
				return fmt.Errorf("--url %w", err)
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				e, err := db.Endpoints.Add(cmd.Context(), tasks.NewEndpoint(tenant, url, topics), terminal.Actor(""))
				if err != nil {
					return terminal.WithoutCode(err)
				}
				fmt.Fprintf(std.Err, "webhook endpoint %s for tenant %s, events %s\n", e.ID, e.Tenant, terminal.Join(e.Topics))
				return op.output.Show(std.Out, terminal.View{Document: newEndpoint{e, e.Secret}, Text: terminal.Line(e.Secret)})
			})
		},
	}
	op.define(cmd)
	op.defineSeals(cmd.Flags())
	cmd.Flags().StringVar(&tenant, "tenant", "", "whose endpoint it is (required)")
	cmd.Flags().StringVar(&url, "url", "", "where its notices are sent (required)")
	cmd.Flags().StringSliceVar(&events, "events", nil, "what it is told of: "+terminal.Join(tasks.Topics)+" (default "+string(tasks.TopicJobFinished)+")")
	redisflags.DefineWebhookPrivate(cmd.Flags(), &private, false)
	return cmd
}

// newEndpoint is an endpoint with its secret, which is shown once.
type newEndpoint struct {
	tasks.Endpoint
	Secret string `json:"secret"`
}

func newWebhookListCommand(std *terminal.Streams) *cobra.Command {
	var tenant string
	cmd := newListCommand(std, list[tasks.Endpoint]{
		name: "endpoints",
		columns: []string{
			"endpoint_id", "tenant", "url", "events", "created_at", "disabled_at", "disabled_reason", "failing_since",
			"last.at", "last.event", "last.status", "last.error", "last.took_ms",
		},
		read: func(ctx context.Context, db *redisdb.DB, _ []string) ([]tasks.Endpoint, error) {
			endpoints, err := db.Endpoints.List(ctx)
			if tenant != "" {
				endpoints = slices.DeleteFunc(endpoints, func(e tasks.Endpoint) bool { return e.Tenant != tenant })
			}
			return endpoints, err
		},
		head: []string{"ID", "TENANT", "URL", "EVENTS", "STATE", "LAST NOTICE"},
		row: func(e tasks.Endpoint, now time.Time) []string {
			return []string{e.ID, e.Tenant, e.URL, terminal.Join(e.Topics), endpointState(e, now), lastNotice(e.Last)}
		},
	}, &cobra.Command{
		Use:   "list",
		Short: "List the endpoints, without their secrets",
		Long: `Lists the endpoints with their state and what came of the last notice that was sent
to each.`,
		Example: `  batchreset webhook list
  batchreset webhook list --tenant acme --output json`,
		Args: terminal.NoArgs,
	})
	cmd.Flags().StringVar(&tenant, "tenant", "", "only this tenant's")
	return cmd
}

func endpointState(e tasks.Endpoint, now time.Time) string {
	switch {
	case !e.DisabledAt.IsZero():
		return "disabled since " + terminal.Clock(e.DisabledAt.Time) + ": " + e.DisabledReason
	case !e.FailingSince.IsZero():
		return "enabled, failing since " + terminal.Clock(e.FailingSince.Time)
	case now.Before(e.OldUntil.Time):
		return "enabled, old secret until " + terminal.Clock(e.OldUntil.Time)
	}
	return "enabled"
}

func lastNotice(r *tasks.Report) string {
	switch {
	case r == nil:
		return "none yet"
	case r.Error == "":
		return terminal.Clock(r.At.Time) + " " + string(r.Topic) + ": taken, status " + strconv.Itoa(r.Status)
	}
	return terminal.Clock(r.At.Time) + " " + string(r.Topic) + ": " + r.Error
}
