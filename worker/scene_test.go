package worker_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
	"batchreset/worker"
	"batchreset/worker/httpdriver"
)

// plane is a control plane that remembers what it was asked, which outlives the process
// that asked. Before it answers a call it says that it has got it.
type plane struct {
	*httptest.Server
	accepts bool // it answers 202 and is to be polled

	mu    sync.Mutex
	calls []call // those that reset
}

type call struct {
	Instance string
	Attempt  int
	Key      string
}

func newPlane(t *testing.T, accepts bool) *plane {
	t.Helper()
	p := &plane{accepts: accepts}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{instance}", func(w http.ResponseWriter, r *http.Request) {
		c := call{Instance: r.PathValue("instance"), Key: r.Header.Get("Idempotency-Key")}
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			t.Error(err)
		}
		p.mu.Lock()
		p.calls = append(p.calls, c)
		p.mu.Unlock()
		w.WriteHeader(http.StatusEarlyHints)
		if p.accepts {
			w.Header().Set("Location", "/done")
			w.WriteHeader(http.StatusAccepted)
		}
	})
	mux.HandleFunc("GET /done", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"status":"done"}`) })
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *plane) callsOf(instance string) []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.calls), func(c call) bool { return c.Instance != instance })
}

// scene is one database of a Redis server with a control plane: what a child process and
// the healthy worker after it have in common.
type scene struct {
	*plane
	db        *redisdb.DB
	rdb       *redis.Client
	inspector *asynq.Inspector
	sweeper   *worker.Sweeper
	child     fate // what all children have in common

	begun beginnings // of the healthy worker
}

func newScene(t *testing.T, p *plane, idempotent bool, opts redisdb.Options) *scene {
	t.Helper()
	db, rdb := dbtest.Open(t, opts)
	sweeper := worker.NewSweeper(worker.SweepStoreOf(db), db.Queues.Queues, logOf(t))
	sweeper.SuspectFor(0)
	return &scene{
		plane: p, db: db, rdb: rdb, inspector: db.Redis.NewInspector(), sweeper: sweeper,
		child: fate{Redis: opts.URL, Plane: p.URL + "/{instance_id}", Idempotent: idempotent, Timeout: time.Minute},
	}
}

// logOf shows a log with a test that fails.
func logOf(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// sleepUntil waits for the clock and for nobody: only what comes later than this is tested.
func sleepUntil(at time.Time) { time.Sleep(time.Until(at)) }

func (s *scene) submit(t *testing.T, instances ...string) tasks.Job {
	t.Helper()
	job, err := s.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: instances, AllowUnregistered: true})
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func (s *scene) job(t *testing.T, id string) tasks.Job {
	t.Helper()
	job, err := s.db.Jobs.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func (s *scene) waitFinal(t *testing.T, id string) (job tasks.Job) {
	t.Helper()
	harness.Eventually(t, patience, "the job ends", func() bool {
		job = s.job(t, id)
		return job.State.Final()
	})
	return job
}

// record is the whole of a job in Redis.
func (s *scene) record(t *testing.T, id string) map[string]string {
	t.Helper()
	fields, err := s.rdb.HGetAll(t.Context(), "reset:{"+id+"}").Result()
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

func (s *scene) locked(t *testing.T, instance string) bool {
	t.Helper()
	return s.rdb.Exists(t.Context(), "reset:lock:{"+instance+"}").Val() == 1
}

// takeOver does what the sweeper does when the leases of all active tasks have run out,
// as long ago as given, and no server or worker has shown any sign of life for as long as it
// takes.
func (s *scene) takeOver(t *testing.T, ago time.Duration) {
	t.Helper()
	const leases = "asynq:{" + queue + "}:lease"
	active, err := s.rdb.ZRange(t.Context(), leases, 0, -1).Result()
	if err != nil || len(active) == 0 {
		t.Fatalf("active tasks: %v, %v", active, err)
	}
	for _, id := range active {
		s.rdb.ZAddXX(t.Context(), leases, redis.Z{Score: float64(time.Now().Add(-ago).Unix()), Member: id})
	}
	for _, signs := range []string{"asynq:servers:*", "asynq:workers:*", "reset:worker:*"} {
		for _, key := range s.rdb.Keys(t.Context(), signs).Val() {
			s.rdb.Del(t.Context(), key)
		}
	}
	if err := s.sweeper.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// startHealthy runs a worker in this process until the test ends.
func (s *scene) startHealthy(t *testing.T) {
	t.Helper()
	driver, err := httpdriver.New(httpdriver.Config{URL: s.child.Plane, Idempotent: s.child.Idempotent})
	if err != nil {
		t.Fatal(err)
	}
	store := worker.StoreOf(s.db)
	s.begun.Attempts = store.Attempts
	store.Attempts = &s.begun
	w, err := worker.New(config(time.Minute), store, driver, s.db.Redis.NewServer, logOf(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		driver.Close()
	})
}

// beginnings is a store that notes what the record knew when an attempt began.
type beginnings struct {
	worker.Attempts
	mu  sync.Mutex
	all []tasks.Begun
}

func (b *beginnings) Begin(ctx context.Context, d tasks.Delivery, token, key string, lock time.Duration) (tasks.Begun, error) {
	begun, err := b.Attempts.Begin(ctx, d, token, key, lock)
	if err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.all = append(b.all, begun)
	}
	return begun, err
}

// check wants one attempt, or none, after so many that were lost and none that failed.
func (b *beginnings) check(t *testing.T, want, lost int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.all) != want {
		t.Errorf("the healthy worker began %d attempts, want %d", len(b.all), want)
	}
	for _, begun := range b.all {
		if begun.Failures != 0 || begun.Unanswered != 0 || begun.Lost != lost {
			t.Errorf("the crash counts as a failure: %+v", begun)
		}
	}
}
