package redisdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"

	"batchreset/tasks"
)

// Options are the settings of a DB. The zero value of a field is its default.
type Options struct {
	// URL is one that parseAddress reads.
	URL string
	// Roles are what this process does. Open and Check look whether Redis lets it.
	Roles []Role
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
	// new work is accepted: submits, retries, imports. Default DefaultFullAt.
	FullAt int
	// Audited is told of each entry of the audit trail whose decision was carried out, and
	// with an error of each that stops something and could not be written; nil: nobody is.
	Audited func(e tasks.AuditEntry, missing error)
	// LateEntries is how many of the latter are kept for WriteTrail; 0 = none.
	LateEntries int
	// Driver is what this process resets instances with, to say what failed; empty if it
	// does not.
	Driver string
	// MaxBacklog is how many instances may wait to be reset, about, before no more are
	// accepted; 0 = no bound.
	MaxBacklog int
	// Log is told what lists leave out because it cannot be read. Default: nobody is.
	Log *slog.Logger
}

// DB is the service's view of Redis. It is safe for concurrent use.
type DB struct {
	rdb          redis.UniversalClient
	group        *grouped // rdb, for what many goroutines call at a time
	separateLock bool     // a record and the lock of its item are not written by one script
	idle         *idleQueues
	shared       *subscription
	relay        *relay
	backlogs     *backlogs
	policies     *policies
	touch        touch
	wanted       *wanted
	late         late
	failed       *failedLogins
	memory       memory
	metrics      *metrics
	activity     *activity
	instances    instanceIndex
	clocks       clocks
	recounts     singleflight.Group // of open instances, by tenant
	lists        turns
	looks        sync.WaitGroup // of QueueMetrics
	leftOut      *leftOut
	opts         Options
}

// ErrURL is in the chain of an error of Open that is about its URL: nothing was asked.
var ErrURL = errors.New("the URL cannot be used")

type urlError struct{ error }

func (e urlError) Is(target error) bool { return target == ErrURL }

func (e urlError) Unwrap() error { return e.error }

// Open connects to Redis and checks that the server can be trusted with jobs.
// The caller closes the DB.
func Open(ctx context.Context, opts Options) (*DB, error) {
	rdb, err := connect(opts.URL, opts.Dial)
	if err != nil {
		return nil, urlError{err}
	}
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
	opts.FullAt = cmp.Or(opts.FullAt, DefaultFullAt)
	db := &DB{
		rdb: rdb, group: newGrouped(rdb),
		idle: newIdleQueues(), wanted: newWanted(), leftOut: newLeftOut(), failed: newFailedLogins(), opts: opts,
	}
	db.shared = newSubscription(rdb)
	db.relay = newRelay(db.shared)
	db.late.bound = opts.LateEntries
	db.activity = &activity{}
	db.metrics = newMetrics(db.activity)
	db.policies = &policies{read: db.lookAtPolicies}
	db.backlogs = &backlogs{measure: db.measureBacklogs, tasks: map[int]int{}}
	// In a Cluster they may be on different nodes. With replicas the lock is theirs before
	// the attempt begins, and stays until they have its outcome.
	cluster, ok := rdb.(*redis.ClusterClient)
	db.separateLock = ok || opts.CommitReplicas > 0
	if ok { // one call of it can be many round trips, or one by a node's own client
		cluster.OnNewNode(func(node *redis.Client) {
			node.AddHook(db.metrics)
			node.AddHook(crowded{})
		})
	} else {
		rdb.AddHook(db.metrics)
		rdb.AddHook(crowded{})
	}
	if err := db.Check(ctx); err != nil {
		return nil, errors.Join(err, rdb.Close())
	}
	_ = db.CompareClocks(ctx) // until it succeeds, Now is this machine's time
	return db, nil
}

// Close closes every connection.
func (db *DB) Close() error {
	db.backlogs.looks.Wait()
	db.looks.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), activityPatience)
	defer cancel()
	db.writeActivity(ctx)
	db.writeLate(ctx)
	db.writeFailedLogins(ctx)
	db.shared.close()
	return errors.Join(db.relay.client.Close(), db.rdb.Close())
}

// LogTo sends what go-redis logs by itself, for the whole process, to log. It is
// about single connections; calls that fail are reported by their callers.
func LogTo(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "go-redis", "text", fmt.Sprintf(format, v...))
}

// NewServer makes an asynq server that shares this DB's connections.
func (db *DB) NewServer(cfg asynq.Config) *asynq.Server {
	return asynq.NewServerFromRedisClient(taker{db.group, db.idle, db.relay}, cfg)
}

// MakeRedisClient makes the DB an asynq.RedisConnOpt, for the dashboard. The
// client is the DB's own: whoever gets it must not close it before the DB.
func (db *DB) MakeRedisClient() any { return db.rdb }
