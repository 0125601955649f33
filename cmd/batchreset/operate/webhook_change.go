package operate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/worker/webhook"
)

// newEndpointCommand makes a command on the endpoint that its only argument names. op is the operation of the
// command.
func newEndpointCommand(cmd *cobra.Command, op *operation, do func(context.Context, *redisdb.DB, tasks.Endpoint, terminal.Output) error) *cobra.Command {
	cmd.Args = terminal.ArgsFromUsage
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return op.run(cmd, func(db *redisdb.DB) error {
			e, err := db.Endpoints.EndpointByID(cmd.Context(), args[0])
			if err == nil {
				err = do(cmd.Context(), db, e, op.output)
			}
			if errors.Is(err, tasks.ErrNoEndpoint) {
				return terminal.WithCode(terminal.ExitRefused, fmt.Errorf("there is no webhook endpoint with the ID %q (see 'batchreset webhook list')", args[0]))
			}
			return err
		})
	}
	op.define(cmd)
	return cmd
}

func newWebhookRemoveCommand(std *terminal.Streams) *cobra.Command {
	return newEndpointCommand(&cobra.Command{
		Use:     "remove ID",
		Short:   "Remove an endpoint",
		Long:    "Removes an endpoint. Events that wait to be sent to it are dropped.",
		Example: "  batchreset webhook remove ep_4k2jq6zr7ma3xw5b",
	}, &operation{}, func(ctx context.Context, db *redisdb.DB, e tasks.Endpoint, output terminal.Output) error {
		if err := db.Endpoints.Remove(ctx, e, terminal.Actor("")); err != nil {
			return err
		}
		return output.Said(std, map[string]any{"endpoint_id": e.ID, "removed": true}, "removed %s", e.ID)
	})
}

func newWebhookEnableCommand(std *terminal.Streams) *cobra.Command {
	return newEndpointCommand(&cobra.Command{
		Use:   "enable ID",
		Short: "Send events to a disabled endpoint again",
		Long: `Sends a disabled endpoint the events from now on. Events from the time in between are
not sent. Those that were waiting when it was disabled are archived on the asynq
dashboard, where they can be run.`,
		Example: "  batchreset webhook enable ep_4k2jq6zr7ma3xw5b",
	}, &operation{}, func(ctx context.Context, db *redisdb.DB, e tasks.Endpoint, output terminal.Output) error {
		if err := db.Endpoints.Enable(ctx, e, terminal.Actor("")); err != nil {
			return err
		}
		return output.Said(std, map[string]any{"endpoint_id": e.ID, "enabled": true}, "enabled %s", e.ID)
	})
}

func newWebhookRotateCommand(std *terminal.Streams) *cobra.Command {
	var (
		op      operation
		overlap time.Duration
	)
	cmd := newEndpointCommand(&cobra.Command{
		Use:   "rotate ID",
		Short: "Give an endpoint a new secret and print it, once",
		Long: `Gives an endpoint a new secret. During the overlap every event is signed with the old
one, too, so that the receiver can change to the new one without missing any. With 0 the
old one ends at once, for a secret that others may know.`,
		Example: `  batchreset webhook rotate ep_4k2jq6zr7ma3xw5b
  batchreset webhook rotate ep_4k2jq6zr7ma3xw5b --overlap 0`,
	}, &op, func(ctx context.Context, db *redisdb.DB, e tasks.Endpoint, output terminal.Output) error {
		secret := tasks.NewEndpointSecret()
		if err := db.Endpoints.RotateSecret(ctx, e, secret, overlap, terminal.Actor("")); err != nil {
			return err
		}
		fmt.Fprintf(std.Err, "new secret for %s; the old one signs, too, for %s\n", e.ID, overlap)
		return output.Show(std.Out, terminal.View{Document: map[string]any{"endpoint_id": e.ID, "secret": secret}, Text: terminal.Line(secret)})
	})
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if overlap < 0 {
			return errors.New("--overlap must not be negative")
		}
		return nil
	}
	op.defineSeals(cmd.Flags())
	cmd.Flags().DurationVar(&overlap, "overlap", tasks.DefaultOverlap, "how long the old secret signs, too")
	return cmd
}

func newWebhookTestCommand(std *terminal.Streams) *cobra.Command {
	var (
		op      operation
		private bool
	)
	cmd := newEndpointCommand(&cobra.Command{
		Use:   "test ID",
		Short: "Send an endpoint a test event now and show what it answers",
		Long: `Sends a signed event of the type webhook.test to an endpoint, from this machine and
once, and shows the answer. It exits 0 only if the endpoint took it. It changes nothing
of the endpoint's state, and works for a disabled one, too.`,
		Example: "  batchreset webhook test ep_4k2jq6zr7ma3xw5b",
	}, &op, func(ctx context.Context, db *redisdb.DB, e tasks.Endpoint, output terminal.Output) error {
		e, err := db.Endpoints.Endpoint(ctx, e.Tenant, e.ID) // with its secrets
		if err != nil {
			return err
		}
		now := db.Redis.Now()
		sender := webhook.NewSender(terminal.UserAgent(), private, db.Redis.Now)
		defer sender.Close()
		reply := sender.SendTest(ctx, e)
		if reply.Err != nil {
			return fmt.Errorf("not sent, or not answered: %w", reply.Err)
		}
		text := strings.TrimSpace(reply.Text)
		err = output.Show(std.Out, terminal.View{
			Document: map[string]any{"endpoint_id": e.ID, "status": reply.Status, "answer": text},
			Text:     terminal.Line(strings.TrimSpace(fmt.Sprintf("status %d after %s\n%s", reply.Status, db.Redis.Now().Sub(now).Round(time.Millisecond), text))),
		})
		if reply.Status/100 != 2 {
			return errors.Join(err, terminal.WithCode(terminal.ExitStatus(reply.Status), errors.New("the endpoint did not take it; 2xx would mean that it did")))
		}
		return err
	})
	op.seals.Define(cmd.Flags())
	redisflags.DefineWebhookPrivate(cmd.Flags(), &private, false)
	return cmd
}
