package serve

import (
	"cmp"
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/otel/attribute"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/worker"
	"batchreset/worker/webhook"
)

func newWorkerCommand(std *terminal.Streams) *cobra.Command {
	var (
		redis redisflags.Flags
		flags workerFlags
		ops   opsFlags
		db    redisdb.Options
		seals redisflags.Seals

		drivers []driverEntry
	)
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Run the resets",
		Long: `Takes deliveries from Redis and resets their instances through a driver, and sends
webhooks ('batchreset webhook'). Any number of workers may share a Redis.

The http driver POSTs to a control plane of yours. What it takes for done:
  - 200, 201 or 204 without a body;
  - 200 or 201 with JSON, if no state in it is anything but a word for done, and no
    error is in it;
  - 202 with a Location, once a GET of that place says in such a word that it is done.
A state that says failed, 408, 425, 429, and 503 with a Retry-After: tried again.
409: the instance is busy. Any other 4xx, and 3xx: failed for good. 401: the control
plane refuses the token; nothing is sent until it takes it.

After anything else nobody knows: an answer that is lost or not understood, and a 500,
502, 503 or 504, which a gateway may send while the control plane is still at work.
Such an item ends as 'unknown', because a second reset beside the first must not be.
  --driver-idempotent  a repeated call with the same Idempotency-Key is done only once:
                       the call is repeated under its key
  --driver-definite    after these statuses a reset is certainly not done and not under
                       way: it is tried again under a new key
  --driver-words       what this control plane calls the states of a reset

SIGTERM stops it: nothing new is taken, running attempts have --shutdown-timeout
to end, the rest is handed back. Until then /healthz and /metrics answer, and /readyz
says 503. A second signal stops it at once.`,
		Example: `  batchreset worker --driver simulator
  batchreset worker --redis-file redis-url.txt --driver http \
      --driver-url 'https://phones.example/v1/{instance_id}/reset' \
      --driver-token-file /run/secrets/phones --driver-idempotent \
      --driver-words done=wiped,running=wiping,failed=broken`,
		Args: terminal.NoArgs,
		PreRunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := flags.checkDriver(cmd.Flags()); err != nil {
				return err
			}
			if drivers, err = flags.newDrivers(newLogger(std.Err)); err != nil {
				return err
			}
			if err := errors.Join(flags.check(), redisflags.CheckShared(db), ops.check(), redis.Check()); err != nil {
				return err
			}
			sealed, err := seals.Read()
			if err != nil {
				return err
			}
			db.Roles, db.Seals = []redisdb.Role{redisdb.RoleWorker}, sealed
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return terminal.WithCode(terminal.ExitOther, runWorker(cmd.Context(), std, redis, db, seals, flags, drivers, ops))
		},
	}
	terminal.TakeConfig(cmd)
	redis.Define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	redis.DefinePatience(cmd.Flags())
	flags.defineDriver(cmd.Flags())
	flags.define(cmd.Flags())
	redisflags.DefineWebhookPrivate(cmd.Flags(), &flags.webhookPrivate, false)
	seals.Define(cmd.Flags())
	redisflags.DefineReplicas(cmd.Flags(), &db.CommitReplicas)
	redisflags.DefineQueues(cmd.Flags(), &db.Queues)
	redisflags.DefineFullAt(cmd.Flags(), &db.FullAt)
	ops.define(cmd.Flags(), "127.0.0.1:9091")
	return cmd
}

func runWorker(ctx context.Context, std *terminal.Streams, redis redisflags.Flags, opts redisdb.Options, seals redisflags.Seals, flags workerFlags, drivers []driverEntry, ops opsFlags) error {
	ops.webhookPrivate = flags.webhookPrivate
	p := newProcess("worker", std, ops)
	return p.run(ctx,
		p.openCertificates,
		p.awaitRedis(redis, opts),
		p.lookAtSecrets(&seals),
		p.startTracing(attribute.String("batchreset.driver", flags.driver)),
		p.addWorker(flags, drivers),
		p.addSite,
		func(ctx context.Context) error {
			sayFiles(p.log, 2*flags.Concurrency)
			p.inviteFirst(ctx)
			saySimulated(p.log, drivers)
			p.log.Info("worker starting", "ops", p.site, "version", terminal.Version())
			return nil
		},
	)
}

// saySimulated says so if the phones of a driver are none.
func saySimulated(log *slog.Logger, drivers []driverEntry) {
	for _, e := range drivers {
		if e.Type == "simulator" {
			log.Warn("the phones of this driver are simulated: no real device is reset, whatever a job says", "driver", e.Name)
		}
	}
}

// addWorker adds what resets instances and what sends webhooks.
func (p *process) addWorker(flags workerFlags, drivers []driverEntry) step {
	return func(context.Context) error {
		flags.QueuesOf, flags.Tracer, flags.Version = p.db.Queues.Of, p.tracer, terminal.Version()
		flags.Hold = func(hold bool) { p.db.Redis.Hold(tasks.QueuePrefix, hold) }
		flags.Calls = func(driver string) worker.CallCounter { return p.db.Calls.Of(driver) }
		if p.name == "worker" { // else the API and the site would end with it
			flags.Stop = p.stop
		}
		fallback := p.equip(&flags, drivers)
		w, err := worker.New(flags.Config, workerStore(p.db), fallback, p.db.Redis.NewServer, p.log)
		if err != nil {
			return err
		}
		sweeper := worker.NewSweeper(sweepStore(p.db), p.db.Queues.Queues, p.log)
		sender := webhook.NewSender(terminal.UserAgent(), flags.webhookPrivate, p.db.Redis.Now)
		dispatcher := webhook.NewDispatcher(redisdb.WebhookQueue, p.db.Endpoints, sender, p.db.Redis.NewServer, p.tracer, p.log)
		runner := worker.NewRunner(runnerStore(p.db), p.log)
		p.quiet = w.Quiet
		p.checks = append(p.checks, check{"worker", w.Answer})
		p.metrics = append(p.metrics, w, sweeper, runner, dispatcher)
		p.work = append(p.work,
			part{"signals of work", p.db.Redis.Listen},
			part{"worker", w.Run},
			part{"sweeper", sweeper.Run},
			part{"runner", runner.Run},
			part{"webhooks", dispatcher.Run},
			part{"index of the fleet", p.indexFleet},
		)
		return nil
	}
}

// equip puts each driver behind a breaker and bounds of its own. It returns the default one, or nil.
func (p *process) equip(flags *workerFlags, drivers []driverEntry) (fallback worker.Driver) {
	flags.Named = map[string]worker.Named{}
	for _, e := range drivers {
		p.onClose("driver "+e.Name, func() error { e.close(); return nil })
		upstream := worker.NewUpstream(e.driver, e.upstream(), p.log.With("driver", e.Name))
		p.metrics = append(p.metrics, prometheus.WrapCollectorWith(prometheus.Labels{"driver": e.Name}, upstream))
		if e.Name == tasks.DefaultDriver {
			fallback = upstream
			flags.AttemptTimeout = cmp.Or(e.AttemptTimeout, flags.AttemptTimeout)
			continue
		}
		flags.Named[e.Name] = worker.Named{Driver: upstream, AttemptTimeout: e.AttemptTimeout}
	}
	return fallback
}

// indexFleet completes an index that older versions did not have. Until it is there, the API searches.
func (p *process) indexFleet(ctx context.Context) error {
	if err := p.db.Fleet.IndexTenants(ctx); err != nil && ctx.Err() == nil {
		p.log.Warn("the fleet is not indexed by tenant, the next worker that starts tries again", "error", err)
	}
	return nil
}
