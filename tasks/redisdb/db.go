package redisdb

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/registry"
	"batchreset/tasks/redisdb/runs"
	"batchreset/tasks/redisdb/views"
	"batchreset/tasks/redisdb/wire"
	"batchreset/tasks/seal"
)

// Options are the settings of a DB. The zero value of a field is its default.
type Options struct {
	// URL says where Redis is: see wire.Options.
	URL string
	// Roles are what this process does. Open and Check look whether Redis lets it.
	Roles []Role
	// Unjudged has Open leave it at a server that answers: for what tells people what is wrong with one.
	Unjudged bool
	// Embedded skips the check of the server's version and settings, which an
	// in-process Redis cannot answer.
	Embedded bool
	// Dial, if set, makes the connections to a single server in place of the network, for
	// tests that simulate one.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// JobRetention is how long a record is kept after its job is final. Default 7 days.
	JobRetention time.Duration
	// GiveUpAfter is how long after its creation a job's items may still start.
	// Default 24 h.
	GiveUpAfter time.Duration
	// TaskRetention is how long finished tasks stay on the asynq dashboard; 0 =
	// not at all.
	TaskRetention time.Duration
	// CommitReplicas is how many replicas must have a change of a job before it
	// counts; 0 = none is waited for.
	CommitReplicas int
	// Queues is how many queues new jobs are spread over. Default 1.
	Queues int
	// AuditRetention is how old an entry of the audit trail must be to be dropped when
	// another one is written; 0 = none is dropped.
	AuditRetention time.Duration
	// FullAt is how many percent of the maxmemory of a Redis server may be used before no
	// new work is accepted: submits, retries, imports. Default registry.DefaultFullAt.
	FullAt int
	// Audited is told of each entry of the audit trail whose decision was carried out, and
	// with an error of each that stops something and could not be written; nil: nobody is.
	Audited func(e tasks.AuditEntry, missing error)
	// LateEntries is how many of the latter are kept until they can be written; 0 = none.
	LateEntries int
	// MaxBacklog is how many instances may wait to be reset, about, before no more are
	// accepted; 0 = no bound.
	MaxBacklog int
	// Seals seal the secrets that Redis keeps: of access keys and webhook endpoints. nil: they are kept
	// as they are.
	Seals *seal.Keys
	// Log is told what lists leave out because it cannot be read. Default: nobody is.
	Log *slog.Logger
}

// DB is the service's view of Redis: one connection, and a part for each kind of thing. All
// are safe for concurrent use.
type DB struct {
	// Redis is the connection, with asynq's servers on it.
	Redis *wire.Client

	// The job records: what callers do to them, what workers do, what the sweeper does.
	Records  *Records
	Attempts *Attempts
	Sweep    *Sweep
	// Queues are asynq's, Notices what goes to webhooks through another one.
	Queues  *Queues
	Notices *Notices

	// Runs are lists of any length; with what people decide about them, and what a runner does.
	Runs         *runs.Runs
	RunDecisions *runs.Decisions
	RunProgress  *runs.Progress

	// What people decide.
	Audit     *registry.Audit
	Tokens    *registry.Tokens
	Operators *registry.Operators
	Fleet     *registry.Fleet
	Endpoints *registry.Endpoints
	Secrets   *registry.Secrets
	Policies  *registry.Policies
	Quotas    *registry.Quotas
	Storage   *registry.Storage

	// What people look at.
	Jobs     *views.Jobs
	HeldJobs *views.HeldJobs
	Failures *views.Failures
	Overview *views.Overview
	Activity *views.Activity
	Census   *views.Census
	Calls    *views.Calls
	Workers  *Workers
	Alerts   *Alerts
	Space    *views.Space

	servers *views.Servers
	metrics *metrics
	opts    Options
}

// CheckURL refuses a URL that Open cannot use. Nothing is connected to. Errors: wire.ErrURL.
func CheckURL(url string) error {
	client, err := wire.Open(wire.Options{URL: url, DidYouMean: tasks.DidYouMean[string]})
	if err != nil {
		return err
	}
	return client.Close()
}

// Open connects to Redis and checks that the server can be trusted with jobs. The caller
// closes the DB. Errors: wire.ErrURL; those of Check.
func Open(ctx context.Context, opts Options) (*DB, error) {
	if opts.JobRetention == 0 {
		opts.JobRetention = 7 * 24 * time.Hour
	}
	if opts.GiveUpAfter == 0 {
		opts.GiveUpAfter = 24 * time.Hour
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	opts.Queues = max(opts.Queues, 1)
	metrics := newMetrics()
	client, err := wire.Open(wire.Options{
		URL: opts.URL, DidYouMean: tasks.DidYouMean[string], Dial: opts.Dial, Replicas: opts.CommitReplicas, Hooks: []redis.Hook{metrics},
	})
	if err != nil {
		return nil, err
	}
	db := assemble(client, opts, metrics)
	check := db.Check
	if opts.Unjudged {
		check = db.answers
	}
	if err := check(ctx); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	_ = client.CompareClocks(ctx) // until it succeeds, Now is this machine's time
	return db, nil
}

// assemble makes the parts, each of those that it needs.
func assemble(client *wire.Client, opts Options, metrics *metrics) *DB {
	db := &DB{Redis: client, opts: opts, metrics: metrics}
	leftOut := codec.NewLeftOut(opts.Log)

	db.Audit = registry.NewAudit(client, opts.AuditRetention, opts.Audited, opts.LateEntries)
	db.Storage = registry.NewStorage(client, opts.FullAt, opts.Embedded)
	db.Tokens = registry.NewTokens(client, db.Audit, leftOut, opts.Seals)
	db.Operators = registry.NewOperators(client, db.Audit, leftOut, opts.Seals)
	db.Fleet = registry.NewFleet(client, db.Audit, db.Storage, leftOut)
	db.Endpoints = registry.NewEndpoints(client, db.Audit, leftOut, opts.Seals)
	db.Secrets = registry.NewSecrets(db.Tokens, db.Endpoints, db.Operators)
	db.Policies = registry.NewPolicies(client, db.Audit, leftOut)
	db.Quotas = registry.NewQuotas(client, db.Policies)

	db.Activity = views.NewActivity(client)
	metrics.activity = db.Activity
	db.Jobs = views.NewJobs(client, lifetime(opts), db.Quotas.Charge, leftOut)
	db.HeldJobs = views.NewHeldJobs(db.Jobs, db.Policies, client.Now)
	db.Failures = views.NewFailures(client, db.Jobs, leftOut)

	db.Runs = runs.New(client, db.Jobs, db.Audit, runs.Options{
		Refuse: db.Storage.Refuse, Retention: opts.JobRetention, TaskRetention: opts.TaskRetention, GiveUpAfter: opts.GiveUpAfter, LeftOut: leftOut, Paused: metrics.pause, Barred: db.HeldJobs.BarredRun,
	})
	db.RunDecisions = runs.NewDecisions(db.Runs, db.Audit, db.Policies)
	db.RunProgress = runs.NewProgress(db.Runs, db.Audit, db.Policies)

	db.Queues = newQueues(client, opts.Queues, opts.MaxBacklog, leftOut)
	db.Notices = newNotices(client, db.Endpoints, db.Jobs, db.Runs)
	db.Attempts = &Attempts{redis: client, separateLock: client.Stepwise(), quotas: db.Quotas, failures: db.Failures, metrics: metrics}
	db.Sweep = &Sweep{redis: client, attempts: db.Attempts, jobs: db.Jobs, fleet: db.Fleet, queues: db.Queues}
	db.Records = &Records{
		redis: client, opts: opts, audit: db.Audit, storage: db.Storage, quotas: db.Quotas, jobs: db.Jobs,
		failures: db.Failures, queues: db.Queues, notices: db.Notices, metrics: metrics,
	}

	db.Calls = views.NewCalls(client, leftOut)
	db.Workers = newWorkers(client, db.Queues, db.Audit, db.Calls, leftOut)
	db.Alerts = &Alerts{client}
	db.servers = views.NewServers(client, opts.Embedded)
	db.Space = views.NewSpace(client)
	db.Census = views.NewCensus(client, views.CensusSources{Policies: db.Policies, Quotas: db.Quotas, Queues: db.Queues, Runs: db.Runs}, leftOut)
	db.Census.Unreachable(db.Workers.Unreachable)
	db.Overview = views.NewOverview(client, db.servers, db.Activity, db.Queues, db.Storage, db.Census)
	return db
}

// lifetime is after what time a record is gone for certain: its job's time and its retention
// are over.
func lifetime(opts Options) time.Duration {
	return tasks.MaxNotBefore + opts.GiveUpAfter + opts.JobRetention + 24*time.Hour
}

// flushPatience is for what is written at the end.
const flushPatience = time.Second

// Close writes what waits to be written, and closes every connection. Nobody may use the DB
// any more.
func (db *DB) Close() error {
	db.Census.Close()
	db.Workers.close() // it asks the queues
	db.Queues.close()
	db.Policies.Close()
	db.Storage.Close()
	ctx, cancel := context.WithTimeout(context.Background(), flushPatience)
	defer cancel()
	db.Activity.Flush(ctx)
	db.Calls.Flush(ctx)
	db.Audit.Flush(ctx)
	return db.Redis.Close()
}
