package serve

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/redisdb"
)

func newAPICommand(std *terminal.Streams) *cobra.Command {
	var (
		redis redisflags.Flags
		flags apiFlags
		ops   opsFlags
	)
	cmd := &cobra.Command{
		Use:   "api",
		Short: "Run the HTTP API",
		Long: `Runs the public API: it checks tokens and ownership, creates job records and
enqueues one task per instance. It resets nothing itself; run at least one
'batchreset worker' on the same Redis. Any number of api processes may share a
Redis. Make a token for a caller with 'batchreset token add'.

SIGTERM stops it: /readyz answers 503 at once, all else is answered for --drain-delay
more, so that load balancers can turn to other processes; then requests have 10 s to end.
A second signal stops it at once.`,
		Example: `  batchreset api --redis-file redis-url.txt
  BATCHRESET_REDIS_FILE=/run/secrets/redis-api batchreset api --listen :8080 --fleet open`,
		Args: terminal.NoArgs,
		PreRunE: func(*cobra.Command, []string) error {
			return errors.Join(flags.check(ops.tls), redisflags.CheckShared(flags.db), ops.check(), redis.Check())
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return terminal.WithCode(terminal.ExitOther, runAPI(cmd.Context(), std, redis, flags, ops))
		},
	}
	terminal.TakeConfig(cmd)
	redis.Define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	redis.DefinePatience(cmd.Flags())
	flags.define(cmd.Flags(), ":8080", "registered")
	ops.tls.defineClients(cmd.Flags())
	cmd.Flags().DurationVar(&flags.drainDelay, "drain-delay", 5*time.Second, "how long a process that was told to stop goes on to answer, but for /readyz, so that load balancers can turn to other ones")
	redisflags.DefineReplicas(cmd.Flags(), &flags.db.CommitReplicas)
	redisflags.DefineQueues(cmd.Flags(), &flags.db.Queues)
	redisflags.DefineFullAt(cmd.Flags(), &flags.db.FullAt)
	ops.define(cmd.Flags(), "127.0.0.1:9090")
	return cmd
}

func runAPI(ctx context.Context, std *terminal.Streams, redis redisflags.Flags, flags apiFlags, ops opsFlags) error {
	flags.db.Roles = []redisdb.Role{redisdb.RoleAPI}
	p := newProcess("api", std, ops)
	return p.run(ctx,
		p.openCertificates,
		p.awaitRedis(redis, flags.db),
		p.lookAtSecrets(&flags.seals),
		p.startTracing(),
		p.addAPI(flags),
		p.addSite,
		func(ctx context.Context) error {
			sayFiles(p.log, flags.maxWaiters)
			p.inviteFirst(ctx)
			p.log.Info("api started", "api", p.api, "ops", p.site, "fleet", flags.fleet, "version", terminal.Version())
			context.AfterFunc(ctx, func() { p.log.Info("api stopping", "drain_delay", flags.drainDelay) })
			p.onClose("log", func() error { p.log.Info("api stopped"); return nil })
			return nil
		},
	)
}

// addAPI adds the public API with its listener.
func (p *process) addAPI(flags apiFlags) step {
	return func(ctx context.Context) error {
		public, err := p.listen(ctx, "listen", flags.listen)
		if err != nil {
			return err
		}
		if flags.db.Seals == nil && !flags.db.Embedded { // an embedded one is this process
			p.log.Warn("the secrets of access keys, webhooks and second factors are in Redis as they are: --secret-key-file seals them")
		}
		if err := flags.sayLimits(ctx, p.db, p.log); err != nil {
			return redisflags.Failed(err)
		}
		handler := flags.handler(ctx.Done(), p)
		p.onClose("token service", func() error { flags.callers.close(); return nil })
		answering := sendOff(ctx.Done(), handler)
		p.api, p.drain = p.urlOf(public), flags.drainDelay
		p.metrics = append(p.metrics, handler, p.db.Queues.QueueMetrics(), p.db.RunMetrics(), p.db.WorkMetrics())
		p.checks = append(p.checks, healthOf("API", handler))
		p.work = append(p.work,
			part{"API", handler.Run},
			part{"API's listener", func(ctx context.Context) error { return serve(ctx, public, p.tlsConfig(true), answering, p.log) }},
		)
		return nil
	}
}
