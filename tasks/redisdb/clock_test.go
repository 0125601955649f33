package redisdb_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// skewed is a world whose Redis has another clock than this process.
func skewed(t *testing.T, by time.Duration) (world, *miniredis.Miniredis) {
	t.Helper()
	server := miniredis.RunT(t)
	server.SetTime(time.Now().Add(by))
	return open(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true}), server
}

// set sets Redis's clock, and lets the process see it.
func (w world) set(t *testing.T, server *miniredis.Miniredis, to time.Time) {
	t.Helper()
	server.SetTime(to)
	if err := w.db.Redis.CompareClocks(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestNowIsRedissTime(t *testing.T) {
	for _, by := range []time.Duration{-100 * time.Second, 0, 70 * time.Minute} {
		w, server := skewed(t, by)
		if got := time.Until(w.db.Redis.Now()); (got - by).Abs() > 100*time.Millisecond {
			t.Errorf("Redis is %s ahead, Now is %s", by, got)
		}
		w.set(t, server, time.Now().Add(by+10*time.Second))
		if got := time.Until(w.db.Redis.Now()); (got - by - 10*time.Second).Abs() > 100*time.Millisecond {
			t.Errorf("Redis is %s ahead after a step, Now is %s", by+10*time.Second, got)
		}
	}
}

func TestTheOffsetIsAMetric(t *testing.T) {
	w, _ := skewed(t, -45*time.Second) // so this machine is ahead
	registry := prometheus.NewRegistry()
	registry.MustRegister(w.db)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "batchreset_clock_offset_seconds" {
			if got := f.GetMetric()[0].GetGauge().GetValue(); got < 44.9 || got > 45.5 {
				t.Errorf("the offset is %v s, want 45", got)
			}
			return
		}
	}
	t.Errorf("there is no such metric among %d", len(families))
}

func TestAClusterHasEachPrimaryCompared(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: cluster.URL()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.Redis.CompareClocks(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := time.Since(db.Redis.Now()).Abs(); got > time.Second {
		t.Errorf("Now is wrong by %s", got)
	}
}

// A token, a session and an entry of a list last as long by Redis's clock as they should,
// whatever this machine's says.
func TestTimesAreJudgedByRedissClock(t *testing.T) {
	for _, by := range []time.Duration{-3 * time.Hour, 25 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			w, server := skewed(t, by)
			redis := time.Now().Add(by)
			if _, err := w.db.Tokens.Add(t.Context(), "secret", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, time.Hour, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
			o := tasks.Operator{Name: "alice", Role: tasks.RoleOperator, PasswordHash: "x"}
			_, added := w.db.Operators.Add(t.Context(), o, tasks.Actor{})
			if err := errors.Join(added, w.db.Operators.AddSession(t.Context(), "session", o, tasks.Visit{From: "127.0.0.1"})); err != nil {
				t.Fatal(err)
			}
			live := func(want bool) {
				t.Helper()
				_, err := w.db.Tokens.Token(t.Context(), "secret")
				if (err == nil) != want || err != nil && tasks.CodeOf(err) != tasks.TokenExpired {
					t.Errorf("the token: %v, want it to be good: %v", err, want)
				}
			}
			session := func(want bool) {
				t.Helper()
				if _, found, err := w.db.Operators.Session(t.Context(), "session"); found != want || err != nil {
					t.Errorf("the session goes on: %v, %v; want %v", found, err, want)
				}
			}
			live(true)
			session(true)
			w.set(t, server, redis.Add(59*time.Minute))
			live(true)
			w.set(t, server, redis.Add(61*time.Minute))
			live(false)
			w.set(t, server, redis.Add(12*time.Hour-time.Minute))
			session(true)
			w.set(t, server, redis.Add(12*time.Hour+time.Minute))
			session(false)
		})
	}
}

// A job is listed before its record is made: an api whose clock is ahead must not take its
// entry for one of a record that has expired.
func TestAListKeepsAJobThatIsBeingMade(t *testing.T) {
	w, server := skewed(t, -100*time.Second)
	job := w.submit(t, "phone-1")
	key, away := "reset:{"+job.ID+"}", "away:{"+job.ID+"}"
	move := func(from, to string) {
		t.Helper()
		if err := w.rdb.Rename(t.Context(), from, to).Err(); err != nil {
			t.Fatal(err)
		}
	}
	move(key, away) // it is not there yet
	list := func(want int) {
		t.Helper()
		jobs, _, err := w.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 10})
		if err != nil || len(jobs) != want {
			t.Errorf("%d jobs are listed, %v; want %d", len(jobs), err, want)
		}
	}
	list(0)
	move(away, key)
	list(1)
	move(key, away)
	w.set(t, server, time.Now().Add(-100*time.Second+61*time.Second))
	list(0)
	if n := w.rdb.ZCard(t.Context(), "reset:jobs:{acme}").Val(); n != 0 {
		t.Errorf("%d entries after a minute", n)
	}
}

// After a step back the due time that is kept is further ahead than any can be.
func TestTheRateGoesOnWhenRedissClockWasSetBack(t *testing.T) {
	for _, back := range []time.Duration{5 * time.Second, time.Minute, 26 * time.Hour} {
		w, server := skewed(t, 0)
		now := time.Now()
		server.SetTime(now)
		w.limit(t, "acme", tasks.Limits{RequestsPerSecond: new(4)})
		for range 4 {
			if err := w.db.Quotas.Pace(t.Context(), "acme"); err != nil {
				t.Fatal(err)
			}
		}
		server.SetTime(now.Add(-back))
		// At worst the whole burst was used just now.
		wantTooMany(t, w.db.Quotas.Pace(t.Context(), "acme"), 250*time.Millisecond, 250*time.Millisecond)
		server.SetTime(now.Add(-back + 250*time.Millisecond))
		if err := w.db.Quotas.Pace(t.Context(), "acme"); err != nil {
			t.Errorf("set back by %s: %v", back, err)
		}
		wantTooMany(t, w.db.Quotas.Pace(t.Context(), "acme"), time.Millisecond, 250*time.Millisecond)
	}
}

func TestTheRateGoesOnWithWhatAnotherClockLeft(t *testing.T) {
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	w.limit(t, "acme", tasks.Limits{RequestsPerSecond: new(50)})
	if err := w.rdb.Set(t.Context(), "reset:pace:{acme}", strconv.FormatInt(time.Now().Add(90*time.Second).UnixMicro(), 10), 91*time.Second).Err(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for n := 0; n < 5; {
		err := w.db.Quotas.Pace(t.Context(), "acme")
		if err == nil {
			n++
		} else if time.Since(start) > 10*time.Second {
			t.Fatalf("%d requests in 10 s: %v", n, err)
		}
	}
}

func TestQuotasGoOnWhenRedissClockWasSetBack(t *testing.T) {
	for _, back := range []time.Duration{10 * time.Second, 20 * time.Minute, 30 * time.Hour} {
		w, server := skewed(t, 0)
		start := time.Unix(1_800_000_000, 0) // the first second of a minute
		server.SetTime(start)
		w.limit(t, "acme", tasks.Limits{InstancesPerHour: new(10)})
		if _, err := w.trySubmit(t, 7); err != nil {
			t.Fatal(err)
		}
		receipt, wait, err := w.db.Quotas.Spend(t.Context(), "acme", 3)
		if err != nil || wait != 0 {
			t.Fatalf("wait %s, %v", wait, err)
		}
		server.SetTime(start.Add(-back))
		// What was accepted was so within the last hour.
		wantRoom(t, w, 3)
		_, err = w.trySubmit(t, 4)
		wantTooMany(t, err, time.Hour, 61*time.Minute)
		if err := w.db.Quotas.Unspend(t.Context(), "acme", receipt); err != nil {
			t.Fatal(err)
		}
		if usage, err := w.db.Quotas.Usage(t.Context(), "acme"); usage.BegunLastHour != 0 || err != nil {
			t.Errorf("set back by %s: usage %+v after it was taken back, %v", back, usage, err)
		}
		server.SetTime(start.Add(-back + 61*time.Minute))
		wantRoom(t, w, 10)
	}
}

// The count of open instances is repeated for a submit that is sent twice, within a minute.
func TestAnOldCountIsNotTakenForTheSameSubmit(t *testing.T) {
	w, server := skewed(t, 0)
	now := time.Now()
	server.SetTime(now)
	w.limit(t, "acme", tasks.Limits{OpenInstances: new(100), InstancesPerHour: new(100)})
	s := tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1", "phone-2"}, AllowUnregistered: true, IdempotencyKey: "k"}
	for n, at := range []time.Time{now, now.Add(-30 * time.Minute)} {
		server.SetTime(at)
		job, err := w.db.Records.Submit(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		w.rdb.Del(t.Context(), "reset:{"+job.ID+"}")
		if usage, err := w.db.Quotas.Usage(t.Context(), "acme"); usage.AcceptedLastHour != 2*(n+1) || err != nil {
			t.Errorf("usage %+v, %v", usage, err)
		}
	}
}

func TestOpenDoesNotNeedTheClocks(t *testing.T) {
	server := miniredis.RunT(t)
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	before := db.Redis.Now()
	server.SetError("LOADING Redis is loading the dataset in memory")
	if err := db.Redis.CompareClocks(t.Context()); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("compared with a Redis that does not answer: %v", err)
	}
	if got := db.Redis.Now().Sub(before); got < 0 || got > time.Minute {
		t.Errorf("Now moved by %s", got)
	}
}
