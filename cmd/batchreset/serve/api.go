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
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(flags.check(), redisflags.CheckShared(flags.db), ops.check()); err != nil {
				return err
			}
			return terminal.WithCode(terminal.ExitOther, runAPI(cmd.Context(), std, redis, flags, ops))
		},
	}
	redis.Define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	redis.DefinePatience(cmd.Flags())
	flags.define(cmd.Flags(), ":8080", "registered")
	cmd.Flags().DurationVar(&flags.drainDelay, "drain-delay", 5*time.Second, "how long a process that was told to stop goes on to answer, but for /readyz, so that load balancers can turn to other ones")
	redisflags.DefineReplicas(cmd.Flags(), &flags.db.CommitReplicas)
	redisflags.DefineQueues(cmd.Flags(), &flags.db.Queues)
	redisflags.DefineFullAt(cmd.Flags(), &flags.db.FullAt)
	ops.define(cmd.Flags(), "127.0.0.1:9090")
	return cmd
}

func runAPI(ctx context.Context, std *terminal.Streams, redis redisflags.Flags, flags apiFlags, ops opsFlags) (err error) {
	log := newLogger(std.Err)
	redisdb.LogTo(log)
	flags.db.Roles = []redisdb.Role{redisdb.RoleAPI}
	db, err := redis.Await(ctx, logging(flags.db, log), log)
	if db == nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	tracer, flush, err := startTracing(ctx, "api", ops.otlp, log)
	if err != nil {
		return err
	}
	defer flush()
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
	sayFiles(log, flags.maxWaiters)
	inviteFirst(ctx, std, db, urlOf(private), log)
	log.Info("api started", "api", urlOf(public), "ops", urlOf(private), "fleet", flags.fleet, "version", terminal.Version())
	context.AfterFunc(ctx, func() { log.Info("api stopping", "drain_delay", flags.drainDelay) })
	stop, cancel := after(ctx, flags.drainDelay)
	defer cancel()
	handler := flags.handler(ctx.Done(), db, ops, tracer, log)
	answering := sendOff(ctx.Done(), handler)
	site := ops.handler(ctx.Done(), db, log, handler, db.QueueMetrics())
	err = runParts(stop, []part{
		handler.Run,
		func(ctx context.Context) error { return serve(ctx, public, answering, log) },
	}, []part{
		db.WriteActivity, db.WriteTrail,
		func(ctx context.Context) error { return db.WatchClock(ctx, log) },
		func(ctx context.Context) error { return serve(ctx, private, site, log) },
	})
	log.Info("api stopped")
	return err
}
