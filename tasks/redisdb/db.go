package redisdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"

	"batchreset/tasks"
)

// Options are the settings of a DB. The zero value of a field is its default.
type Options struct {
	// URL is redis://, rediss://, redis-sentinel:// or redis-cluster://.
	URL string
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
	rdb       redis.UniversalClient
	group     *grouped // rdb, for what many goroutines call at a time
	apart     bool     // a record and the lock of its item are not written by one script
	quiet     *quiet
	backlogs  *backlogs
	policies  *policies
	touch     touch
	wanted    *wanted
	late      late
	failed    *failedLogins
	memory    memory
	metrics   *metrics
	activity  *activity
	instances instanceIndex
	clocks    clocks
	recounts  singleflight.Group // of open instances, by tenant
	lists     turns
	looks     sync.WaitGroup // of QueueMetrics
	leftOut   *leftOut
	opts      Options
}

// Open connects to Redis and checks that the server can be trusted with jobs.
// The caller closes the DB.
func Open(ctx context.Context, opts Options) (*DB, error) {
	rdb, err := connect(opts.URL, opts.Dial)
	if err != nil {
		return nil, err
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
		quiet: newQuiet(), wanted: newWanted(), leftOut: newLeftOut(), failed: newFailedLogins(), opts: opts,
	}
	db.late.bound = opts.LateEntries
	db.activity = &activity{}
	db.metrics = newMetrics(db.activity)
	db.policies = &policies{read: db.lookAtPolicies}
	db.backlogs = &backlogs{measure: db.measureBacklogs, tasks: map[int]int{}}
	// In a Cluster they may be on different nodes. With replicas the lock is theirs before
	// the attempt begins, and stays until they have its outcome.
	cluster, ok := rdb.(*redis.ClusterClient)
	db.apart = ok || opts.CommitReplicas > 0
	if ok { // one call of it can be many round trips, or one by a node's own client
		cluster.OnNewNode(func(node *redis.Client) { node.AddHook(db.metrics) })
	} else {
		rdb.AddHook(db.metrics)
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
	return db.rdb.Close()
}

// LogTo sends what go-redis logs by itself, for the whole process, to log. It is
// about single connections; calls that fail are reported by their callers.
func LogTo(log *slog.Logger) { redis.SetLogger(redisLog{log}) }

type redisLog struct{ log *slog.Logger }

func (l redisLog) Printf(ctx context.Context, format string, v ...any) {
	l.log.DebugContext(ctx, "go-redis", "text", fmt.Sprintf(format, v...))
}

// protocol is RESP2. With RESP3, go-redis looks for notifications of the server
// before every answer, which we have no use for.
const protocol = 2

// connect makes a client for one of the four kinds of URL. Nothing is sent yet.
func connect(raw string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) (redis.UniversalClient, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		// The text of a parse error repeats the URL, password included.
		return nil, errors.New("is not a URL such as redis://localhost:6379/0")
	}
	password, _ := u.User.Password()
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil || u.Fragment != "" {
		return nil, errors.New("has a query that cannot be read, or a fragment")
	}
	for name, values := range query {
		if len(values) > 1 {
			return nil, fmt.Errorf("has the parameter %.80q %d times", name, len(values))
		}
	}
	unknown := func(known ...string) error {
		for name := range query {
			if !slices.Contains(known, name) {
				return fmt.Errorf("has the unknown parameter %.80q%s", name, tasks.DidYouMean(name, known))
			}
		}
		return nil
	}
	switch u.Scheme {
	case "rediss-sentinel", "rediss-cluster":
		return nil, fmt.Errorf("has the scheme %q: TLS to sentinels and clusters is not supported", u.Scheme)
	case "redis", "rediss":
		o, err := redis.ParseURL(raw)
		if err != nil {
			return nil, err
		}
		// Without this, a call to a Redis that is paused or cut off would outlive
		// the deadline of the request that made it.
		o.ContextTimeoutEnabled = true
		o.DialTimeout = time.Second
		o.Protocol = protocol
		o.Dialer = dial
		return redis.NewClient(o), nil
	case "redis-sentinel":
		if err := unknown("master"); err != nil {
			return nil, err
		}
		master := query.Get("master")
		if master == "" {
			return nil, errors.New("needs the master's name: redis-sentinel://host:26379?master=NAME")
		}
		number, err := databaseNumber(u.Path)
		if err != nil {
			return nil, err
		}
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName:            master,
			SentinelAddrs:         strings.Split(u.Host, ","),
			Username:              u.User.Username(),
			Password:              password,
			DB:                    number,
			ContextTimeoutEnabled: true,
			DialTimeout:           time.Second,
			Protocol:              protocol,
		}), nil
	case "redis-cluster":
		if err := unknown(); err != nil {
			return nil, err
		}
		if number, err := databaseNumber(u.Path); err != nil || number != 0 {
			return nil, fmt.Errorf("has the database %.80q, and a cluster has only one", strings.Trim(u.Path, "/"))
		}
		return redis.NewClusterClient(&redis.ClusterOptions{
			Addrs:                 strings.Split(u.Host, ","),
			Username:              u.User.Username(),
			Password:              password,
			ContextTimeoutEnabled: true,
			DialTimeout:           time.Second,
			// A failed dial does not make go-redis look for the new primary; its
			// own default is to look once a minute.
			ClusterStateReloadInterval: time.Second,
			// asynq calls without a deadline: this is how long it hangs on a node
			// that is frozen or cut off before it asks the new primary.
			ReadTimeout: 2 * time.Second,
			Protocol:    protocol,
		}), nil
	}
	return nil, fmt.Errorf("has the scheme %q; it must be redis, rediss, redis-sentinel or redis-cluster", u.Scheme)
}

func databaseNumber(path string) (int, error) {
	path = strings.Trim(path, "/")
	if path == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(path)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("has the database %q; it must be a number", path)
	}
	return n, nil
}

// Check reports whether Redis answers and can be trusted with jobs: version 6.2
// or later, writable, and not allowed to evict keys. What is wrong with a server
// that answers comes as a tasks.Error that may be shown to anyone.
func (db *DB) Check(ctx context.Context) error {
	if db.opts.Embedded {
		return db.rdb.Ping(ctx).Err()
	}
	if cluster, ok := db.rdb.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			return checkServer(ctx, node)
		})
	}
	return checkServer(ctx, db.rdb)
}

func checkServer(ctx context.Context, rdb redis.Cmdable) error {
	text, err := rdb.Info(ctx).Result()
	if err != nil {
		return fmt.Errorf("cannot reach Redis: %w", err)
	}
	return checkInfo(text)
}

// checkInfo judges the answer to INFO.
func checkInfo(text string) error {
	info := parseInfo(text)
	version := info["redis_version"]
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return tasks.Errorf(tasks.Internal, "redis does not tell its version (redis_version:%s)", version)
	}
	if major < 6 || major == 6 && minor < 2 {
		return tasks.Errorf(tasks.Internal, "redis %s is too old, 6.2 or later is needed", version)
	}
	if policy := info["maxmemory_policy"]; policy != "noeviction" {
		return tasks.Errorf(tasks.Internal, "redis has maxmemory-policy %s and may evict jobs; set maxmemory-policy noeviction", policy)
	}
	if info["role"] == "slave" {
		return tasks.Errorf(tasks.Internal, "redis is a read-only replica; connect to the primary")
	}
	return nil
}

func parseInfo(text string) map[string]string {
	info := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			info[name] = value
		}
	}
	return info
}

// NewServer makes an asynq server that shares this DB's connections.
func (db *DB) NewServer(cfg asynq.Config) *asynq.Server {
	return asynq.NewServerFromRedisClient(taker{db.group, db.quiet}, cfg)
}

// MakeRedisClient makes the DB an asynq.RedisConnOpt, for the dashboard. The
// client is the DB's own: whoever gets it must not close it before the DB.
func (db *DB) MakeRedisClient() any { return db.rdb }
