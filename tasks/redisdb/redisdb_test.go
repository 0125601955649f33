package redisdb_test

import (
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
	"batchreset/tasks/redisdb/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a DB and a second look at the same Redis.
type world struct {
	db  *redisdb.DB
	rdb *redis.Client
}

// both runs a test on miniredis, which serves 'dev', and on a real redis-server.
func both(t *testing.T, opts redisdb.Options, test func(t *testing.T, w world)) {
	t.Run("miniredis", func(t *testing.T) {
		opts := opts
		opts.URL, opts.Embedded = "redis://"+miniredis.RunT(t).Addr(), true
		test(t, open(t, opts))
	})
	t.Run("redis-server", func(t *testing.T) {
		opts := opts
		opts.URL = redistest.Start(t).URL()
		test(t, open(t, opts))
	})
}

func open(t testing.TB, opts redisdb.Options) world {
	t.Helper()
	db, rdb := dbtest.Open(t, opts)
	return world{db, rdb}
}

func (w world) submit(t testing.TB, instances ...string) tasks.Job {
	t.Helper()
	return w.submitTo(t, nil, instances...)
}

// submitTo submits instances some of which have another driver than the default one.
func (w world) submitTo(t testing.TB, drivers map[string]string, instances ...string) tasks.Job {
	t.Helper()
	job, err := w.db.Records.Submit(t.Context(), tasks.Submission{
		Tenant: "acme", RequestID: "req-1", InstanceIDs: instances, AllowUnregistered: true, Drivers: drivers,
	})
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// after waits until Redis's clock, which gives jobs their times, has passed a job's by
// some milliseconds.
func (w world) after(t testing.TB, job tasks.Job, ms int) {
	t.Helper()
	for {
		now, err := w.rdb.Time(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		if now.Sub(job.CreatedAt.Time) > time.Duration(ms)*time.Millisecond {
			return
		}
	}
}

func (w world) read(t testing.TB, id string) tasks.Job {
	t.Helper()
	job, err := w.db.Jobs.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	outline := w.db.Jobs.OutlinesOfWaiting(t.Context(), []string{id})[0]
	if again, err := w.db.Jobs.Job(t.Context(), id); err == nil && again.Revision == job.Revision && // nobody has changed it meanwhile
		(outline.Err != nil || outline.Job.Counts != job.Counts || outline.Job.State != job.State || outline.Job.Held != job.Held || outline.Job.Stop != job.Stop) {
		t.Errorf("the outline %+v is of %+v", outline, job)
	}
	return job
}

// begin begins an attempt at item n, as a worker does.
func (w world) begin(t testing.TB, job tasks.Job, n int, token string) (tasks.Delivery, tasks.Begun) {
	t.Helper()
	d := job.Deliveries()[n]
	begun, err := w.db.Attempts.Begin(t.Context(), d, token, "key-"+token, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return d, begun
}

// forgetEpoch is what the payload has of a delivery.
func forgetEpoch(d tasks.Delivery) tasks.Delivery {
	d.Epoch = ""
	return d
}

// send asks whether the attempt with the token t1 may send, as a driver does before it sends.
func (w world) send(t testing.TB, d tasks.Delivery) {
	t.Helper()
	if err := w.db.Attempts.Send(t.Context(), d, "t1", ""); err != nil {
		t.Fatal(err)
	}
}
