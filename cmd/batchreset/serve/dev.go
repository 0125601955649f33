package serve

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/alicebob/miniredis/v2/server"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/attribute"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/worker"
	"batchreset/worker/webhook"
)

const (
	demoTenant = "demo"
	demoToken  = "demo-token"
)

func newDevCommand(std *terminal.Streams) *cobra.Command {
	var (
		redis redisflags.Flags
		api   apiFlags
		work  workerFlags
		ops   opsFlags
		hook  string
	)
	work.driver = "simulator"
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, to try it out",
		Long: `Runs API, worker, simulated phones and the operators' listener in one process,
on a Redis inside it. Nothing needs to be installed, and nothing survives a
restart. With --redis it uses a real Redis instead. 'fleet', 'token' and other
operators' commands work on the Redis inside with the --redis that it prints.`,
		Example: `  batchreset dev
  batchreset dev --listen 127.0.0.1:9000 --simulator-latency 5s --simulator-failure-rate 0.2`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if work.Lanes == 0 && !redis.Given() {
				work.Lanes = min(embeddedLanes, work.Concurrency)
			}
			if err := errors.Join(api.check(), work.check(), ops.check()); err != nil {
				return err
			}
			if hook != "" {
				if err := webhook.CheckURL(cmd.Context(), hook, work.webhookPrivate); err != nil {
					return fmt.Errorf("--webhook-url %w", err)
				}
			}
			driver, err := work.newDriver()
			if err != nil {
				return err
			}
			return terminal.WithCode(terminal.ExitOther, runDev(cmd.Context(), std, redis, api, work, driver, ops, hook))
		},
	}
	redis.Define(cmd.Flags(), "")
	api.define(cmd.Flags(), "127.0.0.1:8080", "open")
	work.define(cmd.Flags())
	redisflags.DefineWebhookPrivate(cmd.Flags(), &work.webhookPrivate, true)
	cmd.Flags().StringVar(&hook, "webhook-url", "", "embedded Redis: tell this `URL` of every job that ends and every item that fails")
	terminal.Alternatives(cmd.Flags(), "webhook-url", "redis") // a real one has 'batchreset webhook add'
	terminal.Alternatives(cmd.Flags(), "webhook-url", "redis-file")
	ops.define(cmd.Flags(), "127.0.0.1:9090")
	ops.openHere = true
	return cmd
}

func runDev(ctx context.Context, std *terminal.Streams, redis redisflags.Flags, flags apiFlags, work workerFlags, driver worker.Driver, ops opsFlags, hook string) (err error) {
	log := newLogger(std.Err)
	redisdb.LogTo(log)
	// The token of the embedded Redis is fixed, so that command lines can be kept.
	// A well-known token has no business in a real one.
	token, ttl := demoToken, time.Duration(0)
	inside := !redis.Given()
	if inside {
		server, err := startEmbedded()
		if err != nil {
			return fmt.Errorf("start embedded Redis: %w", err)
		}
		defer server.Close()
		redis.URL = server.url
		flags.db.Embedded = true
	} else {
		token, ttl = rand.Text(), 24*time.Hour
	}
	flags.db.Driver, flags.db.Roles = work.driver, []redisdb.Role{redisdb.RoleAPI, redisdb.RoleWorker}
	db, err := redis.Open(ctx, logging(flags.db, log))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if _, err := db.AddToken(ctx, token, demoTenant, tasks.Scopes, ttl, terminal.Actor("dev")); err != nil {
		return err
	}
	secret := ""
	if hook != "" {
		endpoint, err := db.AddEndpoint(ctx, tasks.NewEndpoint(demoTenant, hook, tasks.Topics), terminal.Actor(""))
		if err != nil {
			return terminal.WithoutCode(err)
		}
		secret = endpoint.Secret
	}
	tracer, flush, err := startTracing(ctx, "dev", ops.otlp, log, attribute.String("batchreset.driver", work.driver))
	if err != nil {
		return err
	}
	defer flush()
	work.Queues, work.Tracer = db.Queues, tracer
	upstream := worker.NewUpstream(driver, work.upstream, log)
	w, err := worker.New(work.Config, db, upstream, db.NewServer, log)
	if err != nil {
		return err
	}
	sweeper := worker.NewSweeper(db, db.Queues, log)
	teller := newTeller(db, work.webhookPrivate, tracer, log)
	public, err := bind(ctx, "listen", flags.listen)
	if err != nil {
		return err
	}
	if err := flags.sayLimits(ctx, db, log); err != nil {
		return redisflags.Failed(err)
	}
	private, err := bind(ctx, "ops-listen", ops.listen)
	if err != nil {
		return errors.Join(err, public.Close())
	}

	handler := flags.handler(ctx.Done(), db, ops, tracer, log)
	site := ops.handler(ctx.Done(), db, log, work.metricsOf(w), sweeper, upstream, teller, handler, db.QueueMetrics())
	greet(std, urlOf(public), urlOf(private), token, redis.URL, inside)
	if hook != "" {
		fmt.Fprintf(std.Out, "Every job that ends is told to %s, signed with %s\n\n", hook, secret)
	}
	return runParts(ctx, []part{
		db.Listen, w.Run, sweeper.Run, teller.Run, handler.Run,
		func(ctx context.Context) error { return serve(ctx, public, handler, log) },
	}, []part{
		db.WriteActivity, db.WriteTrail,
		func(ctx context.Context) error { return db.WatchClock(ctx, log) },
		func(ctx context.Context) error { return serve(ctx, private, site, log) },
	})
}

// embeddedLanes is how many lanes ask the embedded Redis: it does one thing at a time, and
// with 32 of them the first request of a busy machine came too late.
const embeddedLanes = 4

// embedded is a Redis inside this process, for this user alone: whoever has the URL. Operators'
// commands work on it, too.
type embedded struct {
	*miniredis.Miniredis
	url string
}

func startEmbedded() (embedded, error) {
	server := miniredis.NewMiniRedis()
	server.ClockTTL(true) // else its keys would never expire
	password := rand.Text()
	server.RequireAuth(password)
	if err := server.Start(); err != nil {
		return embedded{}, err
	}
	server.Server().SetPreHook(answerInfo)
	return embedded{server, "redis://:" + password + "@" + server.Addr()}, nil
}

// answerInfo has an embedded Redis tell what a command asks before it trusts a server with
// jobs: it understands what is needed, and evicts nothing.
func answerInfo(c *server.Peer, command string, _ ...string) bool {
	if command != "INFO" {
		return false
	}
	c.WriteBulk("redis_version:6.2.0\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n")
	return true
}

func greet(std *terminal.Streams, api, ops, token, redis string, inside bool) {
	keeps := "the Redis that you named"
	if inside {
		keeps = "this process; nothing survives a restart"
	}
	fmt.Fprintf(std.Out, `batchreset dev: simulated phones, jobs are kept in %[4]s

  API             %[1]s      tenant %[5]s, token %[3]s
  Operators' site %[2]s      with asynq's dashboard under /asynq

Reset two phones:

  curl -s %[1]s/v1/instances/batch-reset -H 'X-Auth-Token: %[3]s' -d '{"instance_ids":["a44uhlf7","efjy72gs"]}'

Follow the job, with the task_id of the answer:

  curl -s %[1]s/v1/jobs/TASK_ID -H 'X-Auth-Token: %[3]s'

Or both at once:

  go run ./cmd/batchreset submit --server %[1]s --token %[3]s --wait a44uhlf7 efjy72gs

`, api, ops, token, keeps, demoTenant)
	if inside {
		fmt.Fprintf(std.Out, "Operators' commands need the Redis inside, such as:\n\n  go run ./cmd/batchreset fleet list --redis %s\n\n", redis)
	}
}

// Compile-time checks that the parts which meet here fit.
var _ worker.Store = (*redisdb.DB)(nil)
