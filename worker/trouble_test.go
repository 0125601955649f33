package worker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"batchreset/cmd/harness/faketime"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// troubleBench is a sweeper over a real Redis, whose jobs are due when the test says so.
type troubleBench struct {
	bench
	*Sweeper
	log *bytes.Buffer
}

func newTroubleBench(t *testing.T, queues int) troubleBench {
	t.Helper()
	url := redistest.Start(t, "appendfsync no").URL()
	b := newBenchOn(t, redisdb.Options{URL: url, Queues: queues, TaskRetention: time.Hour},
		repeatable{func(context.Context, Attempt) error { return nil }})
	var log bytes.Buffer
	store := SweepStoreOf(b.db)
	store.OpenJobs = presence{store.OpenJobs, map[string]bool{tasks.DefaultDriver: true}}
	s := NewSweeper(store, b.db.Queues.Queues, slog.New(slog.NewJSONHandler(&log, nil)))
	s.SuspectFor(0)
	return troubleBench{b, s, &log}
}

// lose submits a job whose task is lost.
func (b troubleBench) lose(t *testing.T, instance string) tasks.Job {
	t.Helper()
	job := b.submit(t, instance)
	if err := b.db.Redis.NewInspector().DeleteTask(job.Queue, job.Deliveries()[0].TaskID()); err != nil {
		t.Fatal(err)
	}
	return job
}

// due makes the jobs due, in this order.
func (b troubleBench) due(t *testing.T, jobs ...tasks.Job) {
	t.Helper()
	for n, job := range jobs {
		if err := b.rdb.ZAddXX(t.Context(), "reset:open", redis.Z{Score: float64(n), Member: job.ID}).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

func (b troubleBench) score(t *testing.T, job tasks.Job) time.Time {
	t.Helper()
	at, err := b.rdb.ZScore(t.Context(), "reset:open", job.ID).Result()
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(int64(at))
}

func (b troubleBench) run(t *testing.T, want string, args ...any) {
	t.Helper()
	if err := b.rdb.Do(t.Context(), args...).Err(); err != nil {
		t.Fatalf("%s: %v", want, err)
	}
}

func TestTroubleWithOneJobIsItsOwn(t *testing.T) {
	// field spoils a field of the record.
	field := func(name, value string) func(*testing.T, troubleBench, tasks.Job) {
		return func(t *testing.T, b troubleBench, job tasks.Job) {
			t.Helper()
			b.run(t, "spoil", "HSET", "reset:{"+job.ID+"}", name, value)
		}
	}
	for name, row := range map[string]struct {
		spoil func(t *testing.T, b troubleBench, job tasks.Job)
		step  string // empty: the sweeper can help
	}{
		"its record is no hash": {func(t *testing.T, b troubleBench, job tasks.Job) {
			t.Helper()
			key := "reset:{" + job.ID + "}"
			b.run(t, "spoil", "DEL", key)
			b.run(t, "spoil", "SET", key, "x")
		}, stepRead},
		"its record has a header that is no number": {field("created", "yesterday"), stepRead},
		"an item of its record cannot be read":      {field("0", "?"), stepRead},
		"its record is from the future":             {field("v", "99"), stepRead},
		"the scripts cannot change its record": {func(t *testing.T, b troubleBench, job tasks.Job) {
			t.Helper()
			b.run(t, "spoil", "HSET", "reset:{"+job.ID+"}", "rev", "9223372036854775807x")
			b.run(t, "spoil", "HSET", "reset:{"+job.ID+"}", "rev", "")
		}, stepDeliver},
		"its new task cannot be enqueued": {func(t *testing.T, b troubleBench, job tasks.Job) {
			t.Helper()
			b.run(t, "spoil", "HSET", "reset:{"+job.ID+"}", "queue", "reset-1")
			b.run(t, "spoil", "SET", "asynq:{reset-1}:pending", "no list")
		}, stepDeliver},
		"its task cannot be read by asynq": {func(t *testing.T, b troubleBench, job tasks.Job) {
			t.Helper()
			b.run(t, "spoil", "HSET", "asynq:{reset-0}:t:"+job.Deliveries()[0].TaskID(), "msg", "\xff\xff", "state", "pending")
		}, ""},
		"its task is something else": {func(t *testing.T, b troubleBench, job tasks.Job) {
			t.Helper()
			b.run(t, "spoil", "SET", "asynq:{reset-0}:t:"+job.Deliveries()[0].TaskID(), "no task")
		}, ""},
		"it cannot be told": {func(t *testing.T, b troubleBench, job tasks.Job) {
			t.Helper()
			if _, err := b.db.Attempts.Abandon(t.Context(), job.Deliveries()[0], tasks.BusyTooLong, "busy", 0); err != nil {
				t.Fatal(err)
			}
			b.run(t, "spoil", "SET", "reset:webhook:{acme}", "no endpoints")
		}, stepTell},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTroubleBench(t, 1)
			before, spoilt, after := b.lose(t, "phone-1"), b.lose(t, "phone-2"), b.lose(t, "phone-3")
			row.spoil(t, b, spoilt)
			b.due(t, before, spoilt, after)
			if err := b.Sweep(t.Context()); err != nil {
				t.Errorf("the sweep ends with %v", err)
			}
			for _, job := range []tasks.Job{before, after} {
				if n := b.item(t, job).Delivery; n != 2 {
					t.Errorf("an item beside it is at delivery %d", n)
				}
			}
			if row.step == "" {
				if n := b.item(t, spoilt).Delivery; n != 2 {
					t.Errorf("the item itself is at delivery %d", n)
				}
				return
			}
			if at := time.Until(b.score(t, spoilt)); at < 30*time.Second || at > 11*time.Minute {
				t.Errorf("it is left for %s", at)
			}
			if n := b.counted(t)[row.step]; n != 1 {
				t.Errorf("%v troubles are counted", n)
			}
			if !strings.Contains(b.log.String(), spoilt.ID) {
				t.Errorf("the log does not name the job: %s", b.log.String())
			}
		})
	}
}

// counted are the troubles by their step.
func (b troubleBench) counted(t *testing.T) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(b.Sweeper)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == "batchreset_sweeper_troubles_total" {
				counted[m.GetLabel()[0].GetValue()] = m.GetCounter().GetValue()
			}
		}
	}
	return counted
}

// nobody are jobs of which no asynq server shows that it has anything in hand.
type nobody struct{ OpenJobs }

func (nobody) InHand(context.Context) (map[string]bool, error) { return nil, nil }

// taken submits a job to a queue, whose task is taken and not put back.
func (b troubleBench) taken(t *testing.T, queue string) tasks.Job {
	t.Helper()
	job := b.submit(t, "phone-"+queue)
	if job.Queue != queue {
		// The shortest one has been chosen. In the other one it is another task.
		b.run(t, "move", "HSET", "reset:{"+job.ID+"}", "queue", queue)
		if err := b.db.Redis.NewInspector().DeleteTask(job.Queue, job.Deliveries()[0].TaskID()); err != nil {
			t.Fatal(err)
		}
		job.Queue = queue
		client := asynq.NewClientFromRedisClient(b.rdb)
		d := job.Deliveries()[0]
		if _, err := client.Enqueue(asynq.NewTask(tasks.TypeReset, d.Encode()), asynq.TaskID(d.TaskID()), asynq.Queue(queue)); err != nil {
			t.Fatal(err)
		}
	}
	entered, leave := make(chan struct{}), make(chan struct{})
	server := b.db.Redis.NewServer(asynq.Config{Concurrency: 1, Queues: map[string]int{queue: 1}, LogLevel: asynq.FatalLevel, ShutdownTimeout: time.Minute})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		close(entered)
		<-leave
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(leave)
		server.Shutdown()
	})
	<-entered
	return job
}

func TestTroubleWithOneQueueIsItsOwn(t *testing.T) {
	for name, row := range map[string]struct {
		spoil [][]any
		step  string
		same  bool // the others of the same queue are taken over, too
	}{
		"its list of active tasks is no list": {
			[][]any{{"SET", "asynq:{reset-0}:active", "no list"}, {"SADD", "asynq:queues", "reset-0"}}, stepActive, false,
		},
		"a task in hand cannot be read": {
			[][]any{
				{"HSET", "asynq:{reset-0}:t:x", "msg", "\xff", "state", "active"},
				{"LPUSH", "asynq:{reset-0}:active", "x"},
				{"ZADD", "asynq:{reset-0}:lease", "1", "x"},
			}, "", true,
		},
		"a task in hand is something else": {
			[][]any{
				{"SET", "asynq:{reset-0}:t:x", "no task"},
				{"LPUSH", "asynq:{reset-0}:active", "x"},
			}, stepActive, true,
		},
		"the item of a task in hand cannot be read": {
			[][]any{{"SPOIL ITEM"}}, stepHolder, true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newTroubleBench(t, 2)
			var jobs []tasks.Job
			if row.same {
				jobs = append(jobs, b.taken(t, "reset-0"))
			}
			jobs = append(jobs, b.taken(t, "reset-1"))
			for _, command := range row.spoil {
				if command[0] == "SPOIL ITEM" {
					b.run(t, "spoil", "HSET", "reset:{"+b.taken(t, "reset-0").ID+"}", "0", "p    phone {x")
					continue
				}
				b.run(t, "spoil", command...)
			}
			b.store.OpenJobs = nobody{b.db.Sweep}
			for _, queue := range []string{"reset-0", "reset-1"} { // for the sweeper of before
				for _, id := range b.rdb.ZRange(t.Context(), "asynq:{"+queue+"}:lease", 0, -1).Val() {
					b.rdb.ZAdd(t.Context(), "asynq:{"+queue+"}:lease", redis.Z{Score: 1, Member: id})
				}
			}
			if err := b.Sweep(t.Context()); err != nil {
				t.Errorf("the sweep ends with %v", err)
			}
			for _, job := range jobs {
				if n := b.item(t, job).Delivery; n != 2 {
					t.Errorf("an item of %s is at delivery %d", job.Queue, n)
				}
			}
			if n := b.counted(t)[row.step]; row.step != "" && n != 1 {
				t.Errorf("%v troubles are counted", n)
			}
		})
	}
}

// A queue that somebody has deleted on the dashboard is not in asynq's list of queues, but
// what is put into it later is there all the same.
func TestAQueueThatIsNotListedHasItsTasks(t *testing.T) {
	t.Parallel()
	b := newTroubleBench(t, 1)
	job := b.submit(t, "phone-1")
	b.run(t, "delete", "SREM", "asynq:queues", job.Queue)
	b.due(t, job)
	if err := b.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := b.item(t, job).Delivery; n != 1 {
		t.Errorf("delivery %d of an item whose task waits", n)
	}
	// Nor does a dead worker's task hide in it.
	held := b.taken(t, job.Queue)
	b.run(t, "delete", "SREM", "asynq:queues", job.Queue)
	b.store.OpenJobs = nobody{b.db.Sweep}
	if err := b.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if one, other := b.item(t, job).Delivery, b.item(t, held).Delivery; one+other != 3 { // it took one of them
		t.Errorf("deliveries %d and %d", one, other)
	}
}

// What a living worker has in hand stays with it, however old its lease looks to a sweeper
// whose clock is wrong.
func TestWhatIsInHandIsNotTakenOver(t *testing.T) {
	t.Parallel()
	b := newTroubleBench(t, 1)
	job := b.submit(t, "phone-1")
	entered, leave := make(chan struct{}), make(chan struct{})
	server := b.db.Redis.NewServer(asynq.Config{Concurrency: 1, Queues: map[string]int{job.Queue: 1}, LogLevel: asynq.FatalLevel, ShutdownTimeout: time.Minute})
	if err := server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		close(entered)
		<-leave
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	defer close(leave)
	<-entered
	if err := poll("the server to say what it has in hand", func() (bool, error) {
		inHand, err := b.db.Sweep.InHand(t.Context())
		return len(inHand) == 1, err
	}); err != nil {
		t.Fatal(err)
	}
	for _, id := range b.rdb.ZRange(t.Context(), "asynq:{reset-0}:lease", 0, -1).Val() {
		b.rdb.ZAdd(t.Context(), "asynq:{reset-0}:lease", redis.Z{Score: 1, Member: id})
	}
	for _, list := range []string{"asynq:servers", "asynq:workers"} { // by a clock that is behind
		for _, key := range b.rdb.ZRange(t.Context(), list, 0, -1).Val() {
			b.rdb.ZAdd(t.Context(), list, redis.Z{Score: float64(time.Now().Add(-time.Hour).Unix()), Member: key})
		}
	}
	if err := b.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := b.item(t, job).Delivery; n != 1 {
		t.Errorf("delivery %d of an item that a worker has in hand", n)
	}
}

// The open jobs are shared by all sweepers, and what one of them has claimed when it dies is
// another's soon.
func TestSweepersShareTheOpenJobs(t *testing.T) {
	b := newSweepBench(t)
	lost := make([]tasks.Job, 3)
	for n := range lost {
		lost[n] = b.submit(t, fmt.Sprint("phone-", n))
		if err := b.db.Redis.NewInspector().DeleteTask("reset-0", lost[n].Deliveries()[0].TaskID()); err != nil {
			t.Fatal(err)
		}
	}
	b.later(2 * time.Minute)
	claimed, _, err := b.db.Sweep.Claim(t.Context(), 2, claimTime) // by one that dies now
	if err != nil || len(claimed) != 2 {
		t.Fatalf("claimed %v, %v", claimed, err)
	}
	deliveries := func() (sum int) {
		for _, job := range lost {
			sum += b.deliveryOf(t, job)
		}
		return sum
	}
	b.sweep(t)
	if n := deliveries(); n != 4 {
		t.Errorf("deliveries %d, want one more, of what was not claimed", n)
	}
	b.later(2*time.Minute + claimTime + time.Second)
	second := NewSweeper(SweepStoreOf(b.db), b.db.Queues.Queues, b.Worker.log) // which does not lead
	if err := second.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := deliveries(); n != 6 {
		t.Errorf("deliveries %d, want those of the dead sweeper, too", n)
	}
}

func TestSuspects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSuspects()
		one := []suspect{{"task", 0}}
		look := func(seen []suspect, want bool) {
			t.Helper()
			if got := s.see(seen, time.Now())["task"]; got != want {
				t.Errorf("taken over: %t, want %t", got, want)
			}
			faketime.Pass(sweepEvery)
		}
		look(one, false)
		look(one, false)
		look(one, true)
		look(nil, false) // it has shown a sign of life
		look(one, false)
		look(one, false)
		look([]suspect{{"task", 7}}, false) // it was put back and taken again
		look([]suspect{{"task", 7}}, false)
		look([]suspect{{"task", 7}}, true)
		faketime.Pass(suspectGap) // Redis, or this process, was away
		look([]suspect{{"task", 7}}, false)
		look([]suspect{{"task", 7}}, false)
		look([]suspect{{"task", 7}}, true)
	})
}
