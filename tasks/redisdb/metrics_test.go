package redisdb_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// gather is what Prometheus would read, by name and label values: "name{a,b}". What is 0
// is left out.
func gather(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	return gathered(t, c, false)
}

func gathered(t *testing.T, c prometheus.Collector, zeros bool) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			name := strings.TrimPrefix(family.GetName(), "batchreset_") + "{" + strings.Join(labels, ",") + "}"
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			if value != 0 || zeros {
				values[name] = value
			}
		}
	}
	return values
}

// items keeps the metrics of items.
func items(values map[string]float64) map[string]float64 {
	maps.DeleteFunc(values, func(name string, _ float64) bool { return !strings.HasPrefix(name, "items_") })
	return values
}

func TestItemsAreCountedOnce(t *testing.T) {
	fail := func(code tasks.Code) tasks.Outcome {
		return tasks.Outcome{Transition: tasks.Fail, Code: code, Failure: true}
	}
	for _, row := range []struct {
		name string
		do   func(t *testing.T, w world, job tasks.Job)
		want map[string]float64 // besides the three that were submitted
	}{
		{"when they succeed", func(t *testing.T, w world, job tasks.Job) {
			d, _ := w.begin(t, job, 0, "one")
			finish(t, w, d, "one", tasks.Outcome{Transition: tasks.Succeed})
			if _, err := w.db.Attempts.Finish(t.Context(), d, "one", tasks.Outcome{Transition: tasks.Succeed}, true); !errors.Is(err, tasks.WrongToken) {
				t.Error(err)
			}
		}, map[string]float64{"items_finished_total{none,succeeded}": 1}},
		{"not when they are tried again", func(t *testing.T, w world, job tasks.Job) {
			d, _ := w.begin(t, job, 0, "one")
			finish(t, w, d, "one", tasks.Outcome{Transition: tasks.Retry, Code: "CPS.0003", Failure: true})
		}, nil},
		{"by class, an upstream's own codes as one", func(t *testing.T, w world, job tasks.Job) {
			for n, o := range []tasks.Outcome{fail("CPS.0005"), fail(tasks.ResetFailed), {Transition: tasks.LoseTrack, Code: tasks.TimedOut, InDoubt: true}} {
				d, _ := w.begin(t, job, n, "token")
				finish(t, w, d, "token", o)
			}
		}, map[string]float64{"items_finished_total{upstream,failed}": 2, "items_finished_total{timed_out,unknown}": 1}},
		{"when they end without an attempt", func(t *testing.T, w world, job tasks.Job) {
			if _, err := w.db.Attempts.Abandon(t.Context(), job.Deliveries()[0], tasks.BusyTooLong, "busy", 0); err != nil {
				t.Fatal(err)
			}
		}, map[string]float64{"items_finished_total{busy,failed}": 1}},
		{"when they are cancelled, whoever cancels again", func(t *testing.T, w world, job tasks.Job) {
			w.begin(t, job, 0, "one") // goes on
			for range 2 {
				if err := w.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
					t.Fatal(err)
				}
			}
		}, map[string]float64{"items_finished_total{none,cancelled}": 2}},
		{"when too many others have failed", func(t *testing.T, w world, job tasks.Job) {
			d, _ := w.begin(t, job, 0, "one")
			finish(t, w, d, "one", tasks.Outcome{Transition: tasks.Retry, Code: tasks.TimedOut, InDoubt: true, Unanswered: true})
			d, _ = w.begin(t, job, 1, "two")
			o := fail("CPS.0005")
			o.MaxFailures = 1
			finish(t, w, d, "two", o)
		}, map[string]float64{
			"items_finished_total{upstream,failed}": 1, "items_finished_total{none,cancelled}": 1, "items_finished_total{stopped,unknown}": 1,
		}},
		{"when one that ends without an attempt is one too many", func(t *testing.T, w world, job tasks.Job) {
			if _, err := w.db.Attempts.Abandon(t.Context(), job.Deliveries()[0], tasks.NotInTime, "late", 1); err != nil {
				t.Fatal(err)
			}
		}, map[string]float64{"items_finished_total{not_in_time,failed}": 1, "items_finished_total{none,cancelled}": 2}},
		{"when their job is tried again", func(t *testing.T, w world, job tasks.Job) {
			if err := errors.Join(w.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}), w.db.Records.Retry(t.Context(), job.ID, tasks.RetryStates, tasks.Actor{})); err != nil {
				t.Fatal(err)
			}
		}, map[string]float64{"items_finished_total{none,cancelled}": 3, "items_submitted_total{retry}": 3}},
	} {
		t.Run(row.name, func(t *testing.T) {
			both(t, redisdb.Options{}, func(t *testing.T, w world) {
				row.do(t, w, w.submit(t, "phone-1", "phone-2", "phone-3"))
				want := map[string]float64{"items_submitted_total{submit}": 3}
				maps.Copy(want, row.want)
				if got := items(gather(t, w.db)); !maps.Equal(got, want) {
					t.Errorf("got  %v\nwant %v", got, want)
				}
			})
		})
	}
}

func finish(t *testing.T, w world, d tasks.Delivery, token string, o tasks.Outcome) {
	t.Helper()
	if _, err := w.db.Attempts.Finish(t.Context(), d, token, o, true); err != nil {
		t.Fatal(err)
	}
}

func TestAReplayIsNotCounted(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		s := tasks.Submission{Tenant: "acme", IdempotencyKey: "key", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true}
		job, err := w.db.Records.Submit(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		for now := job.CreatedAt.Time; !now.After(job.CreatedAt.Add(time.Millisecond)); { // by which submits are told apart
			if now, err = w.rdb.Time(t.Context()).Result(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.db.Records.Submit(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if got := gather(t, w.db)["items_submitted_total{submit}"]; got != 1 {
			t.Errorf("%v items submitted, want 1", got)
		}
	})
}

func TestQueuesAreAsAsynqHasThem(t *testing.T) {
	both(t, redisdb.Options{Queues: 2}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1", "phone-2")
		if err := w.db.Redis.NewInspector().PauseQueue(job.Queue); err != nil {
			t.Fatal(err)
		}
		got := gather(t, w.db.Queues.QueueMetrics())
		age := got["queue_oldest_pending_age_seconds{"+job.Queue+"}"]
		if age <= 0 || age > 10 {
			t.Errorf("the oldest task is %v s old", age)
		}
		delete(got, "queue_oldest_pending_age_seconds{"+job.Queue+"}")
		want := map[string]float64{"queue_tasks{" + job.Queue + ",pending}": 2, "queue_paused{" + job.Queue + "}": 1, "jobs_open{}": 1}
		if !maps.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
}

func TestOpenRunsAreCounted(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		create := func(change func(*tasks.RunSubmission)) (key string) {
			t.Helper()
			s := ofRun(3, "")
			change(&s)
			run, err := w.db.Runs.Create(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			return "reset:run:{" + run.ID + "}"
		}
		ask := func(s *tasks.RunSubmission) { s.Approval = tasks.ApprovalRule{Approvers: 1, Expiry: time.Hour} }
		ago := func(d time.Duration) int64 { return time.Now().Add(-d).UnixMilli() }
		set := func(key string, fields ...any) {
			t.Helper()
			if err := w.rdb.HSet(t.Context(), key, fields...).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if got, want := gather(t, w.db.RunMetrics()), map[string]float64{}; !maps.Equal(got, want) {
			t.Errorf("without runs: %v", got)
		}
		for range 600 { // more than are asked for at once
			create(func(*tasks.RunSubmission) {})
		}
		later := func(s *tasks.RunSubmission) { s.NotBefore = tasks.Time{Time: time.Now().Add(time.Hour)} }
		set(create(later), "created", ago(9*time.Hour)) // waits for its time, and not for people
		set(create(ask), "created", ago(2*time.Hour))
		set(create(ask), "created", ago(time.Hour))
		set(create(ask), "created", ago(8*time.Hour), "approvals", 1) // somebody has approved it
		set(create(func(*tasks.RunSubmission) {}), "state", "paused", "held", fmt.Sprint(ago(3*time.Hour), " by hand"))
		set(create(ask), "state", "paused", "held", fmt.Sprint(ago(4*time.Hour), " by hand"))
		set(create(func(*tasks.RunSubmission) {}), "state", "succeeded") // it leaves the list in a moment
		w.rdb.ZAdd(t.Context(), "reset:runs", redis.Z{Member: tasks.NewJobID()})
		damaged := create(func(*tasks.RunSubmission) {})
		w.rdb.Set(t.Context(), damaged, "x", 0)

		got := gather(t, w.db.RunMetrics())
		for name, hours := range map[string]float64{"approval": 2, "paused": 4} {
			name = "runs_longest_wait_seconds{" + name + "}"
			if wait := got[name] - hours*3600; wait < 0 || wait > 600 {
				t.Errorf("%s is %v", name, got[name])
			}
			delete(got, name)
		}
		if want := map[string]float64{"runs{running}": 600, "runs{waiting}": 4, "runs{paused}": 2}; !maps.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
}

func TestAScrapeDoesNotHangWhenRedisIsAway(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	w := open(t, redisdb.Options{URL: server.URL()})
	if got := gather(t, w.db); got["redis_up{}"] != 1 || got["redis_round_trip_duration_seconds{}"] == 0 || got["redis_round_trips_unanswered_total{}"] != 0 {
		t.Fatalf("with Redis: %v", got)
	}
	for _, row := range []struct {
		name  string
		begin func()
	}{
		{"frozen", func() {
			if err := w.rdb.Do(t.Context(), "CLIENT", "PAUSE", time.Minute.Milliseconds()).Err(); err != nil {
				t.Fatal(err)
			}
		}},
		{"killed", server.Kill},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.begin()
			begin := time.Now()
			got, queues := gather(t, w.db), gather(t, w.db.Queues.QueueMetrics())
			maps.Copy(queues, gather(t, w.db.RunMetrics()))
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("a scrape takes %s", took)
			}
			if _, up := got["redis_up{}"]; up || got["redis_round_trips_unanswered_total{}"] == 0 || len(queues) != 0 {
				t.Errorf("got %v and %v", slices.Sorted(maps.Keys(got)), queues)
			}
		})
	}
}

func TestHeldItemsAreMeasuredByReason(t *testing.T) {
	t.Parallel()
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	empty := gatherAll(t, w.db.WorkMetrics())
	for _, reason := range tasks.HoldReasons {
		for _, name := range []string{"items_held{", "items_held_longest_seconds{"} {
			if value, there := empty[name+string(reason)+"}"]; !there || value != 0 {
				t.Errorf("%s%s}: %v, there %t", name, reason, value, there)
			}
		}
	}
	for _, name := range []string{"halts{all}", "halts{tenant}", "halts{own}", "halts{run}", "items_waiting{}", "items_running{}", "items_open{}", "oldest_open_item_age_seconds{}"} {
		if value, there := empty[name]; !there || value != 0 {
			t.Errorf("%s: %v, there %t", name, value, there)
		}
	}
	w.serve(t, "reset-99")
	job := w.submit(t, "a", "b", "c")
	w.begin(t, job, 0, "t1")
	w.submitOf(t, tasks.Submission{Tenant: "beta"}, "d", "e")
	for tenant, whose := range map[string]tasks.Halter{"beta": tasks.HaltedByOperator, "gamma": tasks.HaltedByTenant} {
		if err := w.db.Policies.Halt(t.Context(), tenant, whose, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
	}
	w.rdb.Del(t.Context(), "reset:census")
	got := gather(t, open(t, redisdb.Options{URL: "redis://" + w.rdb.Options().Addr}).db.WorkMetrics())
	for name, want := range map[string]float64{
		"items_waiting{}": 2, "items_running{}": 1, "items_open{}": 3, "items_held{tenant_halt}": 2, "items_held{halt}": 0, "halts{tenant}": 1, "halts{own}": 1, "halts{all}": 0,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if got["oldest_open_item_age_seconds{}"] <= 0 || got["items_held_longest_seconds{tenant_halt}"] <= 0 {
		t.Errorf("ages %v", got)
	}
}

// gatherAll is gather with what is 0.
func gatherAll(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	return gathered(t, c, true)
}

func TestErrorCodesOfMetricsAreBounded(t *testing.T) {
	t.Parallel()
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	for n := range 4 {
		instances := make([]string, 32)
		for i := range instances {
			instances[i] = fmt.Sprintf("phone-%d-%d", n, i)
		}
		job := w.submit(t, instances...)
		for i := range instances {
			w.fail(t, job, i, tasks.Code(fmt.Sprintf("MADE.UP.%d", n*32+i)), tasks.Fail)
		}
	}
	w.fail(t, w.submit(t, "long"), 0, tasks.Code(strings.Repeat("X", 65)), tasks.Fail)
	values, sum := gather(t, w.db), 0.0
	codes := 0
	for name, value := range values {
		if strings.HasPrefix(name, "item_errors_total{") {
			codes++
			sum += value
		}
	}
	if codes > 51 || sum != 129 || values["item_errors_total{other,default}"] < 78 || values["item_errors_total{MADE.UP.0,default}"] != 1 {
		t.Errorf("%d codes, %v in all, other %v", codes, sum, values["item_errors_total{other,default}"])
	}
}
