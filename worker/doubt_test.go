package worker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// A call whose answer is lost stays in doubt whatever a repeat of it is told.
func TestARefusalOfARepeatEndsNoDoubt(t *testing.T) {
	for name, refusal := range map[string]*DriverError{
		"not now":    {Verdict: Retryable, Code: "429", RetryAfter: time.Second},
		"for good":   {Verdict: Permanent, Code: "403"},
		"busy":       {Verdict: Busy, Code: "409"},
		"nobody in":  {Verdict: Unreachable},
		"not sent":   {Verdict: NotSent},
		"no answer":  {Verdict: Unknown},
		"past hope":  {Verdict: Retryable, Code: "503"},
		"of a proxy": {Verdict: Permanent, Code: "404"},
	} {
		t.Run(name, func(t *testing.T) {
			var keys []string
			b := newBench(t, repeatable{func(_ context.Context, a Attempt) error {
				keys = append(keys, a.Key)
				if len(keys) == 1 {
					return &DriverError{Verdict: Unknown, Message: "the answer was lost"}
				}
				return refusal
			}})
			job := b.submit(t, "phone-1")
			_ = wantAgain(t, b.deliver(t, job))
			for range 6 { // more than the budget of failures
				_ = b.deliver(t, job)
			}
			it := b.item(t, job)
			for n, key := range keys {
				if key != keys[0] {
					t.Errorf("call %d had another key", n+1)
				}
			}
			if it.State != tasks.ItemUnknown && it.State != tasks.ItemRetrying {
				t.Errorf("item %+v", it)
			}
			if !b.locked(t, "phone-1") {
				t.Error("the instance was released while its reset may be going on")
			}
			// Another job keeps its hands off the phone.
			other := b.submit(t, "phone-1")
			calls := len(keys)
			if a := wantAgain(t, b.deliver(t, other)); !strings.Contains(a.Reason, "busy") || len(keys) != calls {
				t.Errorf("another job: %+v, %d calls more", a, len(keys)-calls)
			}
		})
	}
}

func TestAnAnswerAboutTheEarlierCallEndsItsDoubt(t *testing.T) {
	n, keys := 0, map[string]bool{}
	b := newBench(t, repeatable{func(_ context.Context, a Attempt) error {
		keys[a.Key] = true
		switch n++; n {
		case 1:
			return &DriverError{Verdict: Unknown}
		case 2:
			return &DriverError{Verdict: Retryable, Code: "CPS.0003", EndsDoubt: true}
		}
		return nil
	}})
	job := b.submit(t, "phone-1")
	for range 2 {
		_ = wantAgain(t, b.deliver(t, job))
	}
	if b.locked(t, "phone-1") {
		t.Error("the instance is still locked")
	}
	if err := b.deliver(t, job); err != nil || len(keys) != 2 {
		t.Errorf("%v, %d keys", err, len(keys))
	}
}

// A retry that somebody asks for waits until the doubtful call cannot go on any more.
func TestARetryWaitsForTheLockOfACallInDoubt(t *testing.T) {
	for _, timeout := range []time.Duration{time.Minute, 2 * time.Hour} { // longer than an item may be busy
		server := miniredis.RunT(t)
		calls := 0
		b := newBenchOn(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true}, driverFunc(func(context.Context, Attempt) error {
			if calls++; calls == 1 {
				return &DriverError{Verdict: Unknown, Message: "the answer was lost"}
			}
			return nil
		}), func(c *Config) { c.AttemptTimeout = timeout })
		job := b.submit(t, "phone-1")
		wantArchived(t, b.deliver(t, job))
		retry := func() {
			t.Helper()
			if err := b.db.Records.Retry(t.Context(), job.ID, []tasks.ItemState{tasks.ItemUnknown}, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
			var err error
			if job, err = b.db.Jobs.Job(t.Context(), job.ID); err != nil {
				t.Fatal(err)
			}
		}
		retry()
		if a := wantAgain(t, b.deliver(t, job)); a.Delay <= timeout || a.Delay > timeout+lockMargin {
			t.Errorf("put back for %s, the lock lives for %s", a.Delay, timeout+lockMargin)
		}
		// What was taken back before it began leaves the doubt as it was.
		if err := b.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if it := b.item(t, job); it.State != tasks.ItemUnknown {
			t.Errorf("cancelled, item %+v", it)
		}
		retry()
		server.FastForward(timeout)
		if a := wantAgain(t, b.deliver(t, job)); a.Delay > lockMargin {
			t.Errorf("put back for %s", a.Delay)
		}
		if it := b.item(t, job); it.Code == tasks.BusyTooLong || calls != 1 {
			t.Fatalf("%d calls, item %+v", calls, it)
		}
		server.FastForward(lockMargin)
		if err := b.deliver(t, job); err != nil || calls != 2 {
			t.Errorf("after the lock: %v, %d calls", err, calls)
		}
	}
}

// deaf is a store whose begins are done and nobody hears of it, or that come late.
type deaf struct {
	Attempts
	deaf bool
	held []func()
	late bool
}

var errDeaf = errors.New("i/o timeout")

func (s *deaf) Begin(ctx context.Context, d tasks.Delivery, token, key string, lock time.Duration) (tasks.Begun, error) {
	if !s.deaf {
		return s.Attempts.Begin(ctx, d, token, key, lock)
	}
	begin := func() { _, _ = s.Attempts.Begin(ctx, d, token, key, lock) }
	if s.late {
		s.held = append(s.held, begin)
	} else {
		begin()
	}
	return tasks.Begun{}, errDeaf
}

// What sent nothing is never unknown, whatever became of its begin.
func TestABeginThatNobodyHeardOfIsGivenUp(t *testing.T) {
	for name, late := range map[string]bool{"it was done": false, "it is done later": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			calls := 0
			b := newBench(t, driverFunc(func(_ context.Context, a Attempt) error {
				if calls++; a.Ambiguous {
					t.Error("the driver is told of a call that was never made")
				}
				return nil
			}))
			store := &deaf{Attempts: b.store.Attempts, deaf: true, late: late}
			b.store.Attempts = store
			job := b.submit(t, "phone-1")
			_ = wantAgain(t, b.deliver(t, job)) // 30 s later
			for _, begin := range store.held {
				begin()
			}
			store.deaf = false
			if it := b.item(t, job); it.State == tasks.ItemRunning || it.State.Final() || b.locked(t, "phone-1") {
				t.Fatalf("item %+v, locked: %t", it, b.locked(t, "phone-1"))
			}
			if err := b.deliver(t, job); err != nil {
				t.Fatal(err)
			}
			if it := b.item(t, job); calls != 1 || it.State != tasks.ItemSucceeded {
				t.Errorf("%d calls, item %+v", calls, it)
			}
		})
	}
}

// An attempt that is looked at for too long is looked at again before it sends.
func TestALookThatTookTooLongIsRepeated(t *testing.T) {
	calls := 0
	b := newBench(t, driverFunc(func(context.Context, Attempt) error { calls++; return nil }))
	slow := &slowSend{Attempts: b.store.Attempts}
	b.store.Attempts = slow
	job := b.submit(t, "phone-1")
	slow.meanwhile = func() {
		if err := b.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
			t.Error(err)
		}
		time.Sleep(lastLookFresh + 10*time.Millisecond) // to be late is what is tested
	}
	_ = b.deliver(t, job)
	if it := b.item(t, job); calls != 0 || it.State != tasks.ItemCancelled {
		t.Errorf("%d calls, item %+v", calls, it)
	}
}

type slowSend struct {
	Attempts
	meanwhile func()
}

func (s *slowSend) Send(ctx context.Context, d tasks.Delivery, token, address string) error {
	err := s.Attempts.Send(ctx, d, token, address)
	if s.meanwhile != nil {
		f := s.meanwhile
		s.meanwhile = nil
		f()
	}
	return err
}

// While attempts wait for a slot they have not begun, and what happens to their items counts.
func TestWhatWaitsForASlotIsLookedAtWhenItsTurnComes(t *testing.T) {
	for name, row := range map[string]struct {
		change func(b bench, job tasks.Job) error
		state  tasks.ItemState
		code   tasks.Code
	}{
		"protected": {func(b bench, _ tasks.Job) error {
			return b.rdb.HSet(context.Background(), "reset:fleet:{phone-2}", "tenant", "acme", "protected", "1").Err()
		}, tasks.ItemFailed, tasks.NoLongerAllowed},
		"another tenant's": {func(b bench, _ tasks.Job) error {
			return b.rdb.HSet(context.Background(), "reset:fleet:{phone-2}", "tenant", "other").Err()
		}, tasks.ItemFailed, tasks.NoLongerAllowed},
		"too late": {func(b bench, job tasks.Job) error {
			return b.rdb.HSet(context.Background(), "reset:{"+job.ID+"}", "end", "1").Err()
		}, tasks.ItemFailed, tasks.NotInTime},
		"cancelled": {func(b bench, job tasks.Job) error {
			return b.db.Records.Cancel(context.Background(), job.ID, tasks.Actor{})
		}, tasks.ItemCancelled, tasks.Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			entered, goOn := make(chan string, 2), make(chan struct{})
			upstream := newUpstream(t, driverFunc(func(_ context.Context, a Attempt) error {
				entered <- a.InstanceID
				<-goOn
				return nil
			}), UpstreamConfig{Concurrency: 1})
			b := newBench(t, upstream)
			first, second := b.submit(t, "phone-1"), b.submit(t, "phone-2")
			ended := make(chan error, 2)
			go func() { ended <- b.deliver(t, first) }()
			if got := <-entered; got != "phone-1" {
				t.Fatal(got)
			}
			go func() {
				ended <- b.process(context.Background(), asynq.NewTask(tasks.TypeReset, second.Deliveries()[0].Encode()))
			}()
			if it := b.item(t, second); it.State != tasks.ItemPending {
				t.Errorf("what waits has begun: %+v", it)
			}
			if err := row.change(b, second); err != nil {
				t.Fatal(err)
			}
			close(goOn)
			for range 2 {
				if err := <-ended; err != nil && !errors.Is(err, asynq.SkipRetry) {
					t.Error(err)
				}
			}
			if it := b.item(t, second); it.State != row.state || it.Code != row.code || it.Attempts != 0 {
				t.Errorf("item %+v", it)
			}
			if len(entered) > 0 {
				t.Errorf("%s was reset", <-entered)
			}
		})
	}
}

// The same between begin and sending: the look decides.
func TestTheLastLookIsAtTheRecordAndTheFleet(t *testing.T) {
	for name, row := range map[string]struct {
		change func(b bench, job tasks.Job) error
		state  tasks.ItemState
	}{
		"protected": {func(b bench, _ tasks.Job) error {
			return b.rdb.HSet(context.Background(), "reset:fleet:{phone-1}", "tenant", "acme", "protected", "1").Err()
		}, tasks.ItemRetrying},
		"another tenant's": {func(b bench, _ tasks.Job) error {
			return b.rdb.HSet(context.Background(), "reset:fleet:{phone-1}", "tenant", "other").Err()
		}, tasks.ItemRetrying},
		"too late": {func(b bench, job tasks.Job) error {
			return b.rdb.HSet(context.Background(), "reset:{"+job.ID+"}", "end", "1").Err()
		}, tasks.ItemRetrying},
		"cancelled": {func(b bench, job tasks.Job) error {
			return b.db.Records.Cancel(context.Background(), job.ID, tasks.Actor{})
		}, tasks.ItemCancelled},
		"its lock is another's": {func(b bench, _ tasks.Job) error {
			return b.rdb.Set(context.Background(), "reset:lock:{phone-1}", "somebody else", time.Minute).Err()
		}, tasks.ItemRetrying},
		"its lock is gone": {func(b bench, _ tasks.Job) error {
			return b.rdb.Del(context.Background(), "reset:lock:{phone-1}").Err()
		}, tasks.ItemRetrying},
	} {
		t.Run(name, func(t *testing.T) {
			sent := false
			b := newBench(t, askLater{func(_ context.Context, a Attempt) error {
				if err := a.MaySend(); err != nil {
					return &DriverError{Verdict: NotSent, Message: err.Error()}
				}
				sent = true
				return nil
			}})
			job := b.submit(t, "phone-1")
			b.drivers[tasks.DefaultDriver].driver = askLater{func(ctx context.Context, a Attempt) error {
				if err := row.change(b, job); err != nil {
					t.Error(err)
				}
				if err := a.MaySend(); err != nil {
					return &DriverError{Verdict: NotSent, Message: err.Error()}
				}
				sent = true
				return nil
			}}
			_ = b.deliver(t, job)
			if it := b.item(t, job); sent || it.State != row.state {
				t.Errorf("sent: %t, item %+v", sent, it)
			}
		})
	}
}

// askLater is a driver that asks by itself whether it may send.
type askLater struct {
	f func(ctx context.Context, a Attempt) error
}

func (d askLater) Reset(ctx context.Context, a Attempt) error { return d.f(ctx, a) }

// Time that an item is held is not time that its instance is busy.
func TestHeldTimeIsNotBusyTime(t *testing.T) {
	b, job, at := newBusyBench(t)
	_ = wantAgain(t, b.deliver(t, job))
	at(31 * time.Minute) // of a halt, say
	if a := wantAgain(t, b.deliver(t, job)); a.Delay > 2*time.Minute {
		t.Errorf("put back for %s", a.Delay)
	}
	if it := b.item(t, job); it.State != tasks.ItemPending {
		t.Errorf("item %+v", it)
	}
}

func TestWhenTheNextTryIsDueIsInTheRecord(t *testing.T) {
	server := miniredis.RunT(t)
	calls := 0
	b := newBenchOn(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true}, driverFunc(func(context.Context, Attempt) error {
		calls++
		return &DriverError{Verdict: Retryable, RetryAfter: time.Minute}
	}))
	now := time.Now().Truncate(time.Second)
	server.SetTime(now)
	job := b.submit(t, "phone-1")
	a := wantAgain(t, b.deliver(t, job))
	it := b.item(t, job)
	if due := it.NotBefore.Sub(now); due != a.Delay.Truncate(time.Millisecond) || due < time.Minute || due > 90*time.Second {
		t.Fatalf("due in %s, put back for %s", due, a.Delay)
	}
	// asynq on a machine whose clock is ahead delivers early.
	task := asynq.NewTask(tasks.TypeReset, job.Deliveries()[0].Encode())
	server.SetTime(now.Add(16 * time.Second))
	if early := wantAgain(t, b.process(t.Context(), task)); calls != 1 || early.Delay < 44*time.Second {
		t.Errorf("%d calls, put back for %s", calls, early.Delay)
	}
	server.SetTime(it.NotBefore.Time)
	_ = wantAgain(t, b.process(t.Context(), task))
	if calls != 2 {
		t.Errorf("%d calls when it is due", calls)
	}
}

func TestWhoIsToldTheSameRetryAfterDoesNotReturnTogether(t *testing.T) {
	for _, after := range []time.Duration{time.Second, time.Minute, 999999999 * time.Second} {
		seconds := map[time.Duration]int{}
		for range 10_000 {
			delay := judge(&DriverError{Verdict: Retryable, RetryAfter: after}, circumstances{begun: tasks.Begun{Number: 1}, maxFailures: 5}).delay
			if delay < min(after, time.Hour) || delay > 90*time.Minute {
				t.Fatalf("told %s, put back for %s", after, delay)
			}
			seconds[delay.Truncate(time.Second)]++
		}
		for second, n := range seconds {
			if n > 3000 {
				t.Errorf("told %s: %d of 10,000 return in the second after %s", after, n, second)
			}
		}
	}
}

// A delivery whose attempt is alive by Redis's clock is left alone, whoever delivers it.
func TestALivingAttemptIsNotTakenOver(t *testing.T) {
	server := miniredis.RunT(t)
	calls := 0
	b := newBenchOn(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true},
		driverFunc(func(context.Context, Attempt) error { calls++; return nil }))
	job := b.submit(t, "phone-1")
	d := job.Deliveries()[0]
	const other = "LIVINGXX"
	if err := b.rdb.Set(t.Context(), "reset:worker:{"+other+"}", "", 20*time.Second).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.db.Attempts.Begin(t.Context(), d, other+"12345678", "k", time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, stop := range []bool{false, true} {
		if stop { // which is no reason to end what runs
			if err := b.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
		}
		if a := wantAgain(t, b.deliver(t, job)); a.Failure || calls != 0 {
			t.Errorf("put back with %+v, %d calls", a, calls)
		}
		if it := b.item(t, job); it.State != tasks.ItemRunning || it.Attempts != 1 {
			t.Errorf("item %+v", it)
		}
		if err := b.db.Sweep.Redeliver(t.Context(), job, d, lossDelay); !errors.Is(err, tasks.AttemptAlive) {
			t.Errorf("delivered again: %v", err)
		}
		if _, err := b.db.Attempts.Abandon(t.Context(), d, tasks.NotInTime, "late", 0); !errors.Is(err, tasks.AttemptAlive) {
			t.Errorf("abandoned: %v", err)
		}
	}
	server.FastForward(21 * time.Second) // its worker has shown nothing since
	_ = b.deliver(t, job)
	if it := b.item(t, job); it.State != tasks.ItemCancelled || calls != 0 {
		t.Errorf("%d calls, item %+v", calls, it)
	}
}

// A begin that was answered, and whose copy comes late, is over with its lock.
func TestAnAttemptThatItsWorkerKnowsNothingOfEndsWithItsLock(t *testing.T) {
	server := miniredis.RunT(t)
	b := newBenchOn(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true}, driverFunc(func(context.Context, Attempt) error { return nil }))
	job := b.submit(t, "phone-1")
	if err := b.db.Attempts.Beat(t.Context(), b.id); err != nil {
		t.Fatal(err)
	}
	if _, err := b.db.Attempts.Begin(t.Context(), job.Deliveries()[0], b.newToken(), "k", 15*time.Second); err != nil {
		t.Fatal(err)
	}
	_ = wantAgain(t, b.deliver(t, job))
	server.FastForward(16 * time.Second)
	b.rdb.Set(t.Context(), "reset:worker:{"+b.id+"}", "", time.Minute)
	other := newBenchOn(t, redisdb.Options{URL: "redis://" + server.Addr(), Embedded: true}, b.drivers[tasks.DefaultDriver].driver) // which judges at once
	if err := other.deliver(t, job); err != nil {
		t.Fatal(err)
	}
	if it := b.item(t, job); it.State != tasks.ItemSucceeded {
		t.Errorf("item %+v", it)
	}
}

// A record that nobody can work on takes no slot from the others.
func TestABrokenRecordHoldsNobodyUp(t *testing.T) {
	u := newUpstream(t, driverFunc(func(context.Context, Attempt) error { return nil }), UpstreamConfig{Concurrency: 1})
	b := newBenchOn(t, redisdb.Options{URL: redistest.Start(t).URL()}, u)
	job, good := b.submit(t, "phone-1"), b.submit(t, "phone-2")
	b.rdb.HSet(t.Context(), "reset:{"+job.ID+"}", "0", "garbage")
	start := time.Now()
	if a := wantAgain(t, b.process(t.Context(), asynq.NewTask(tasks.TypeReset, job.Deliveries()[0].Encode()))); a.Delay < brokenDelay {
		t.Errorf("put back for %s", a.Delay)
	}
	if took := time.Since(start); took > storePatience/2 {
		t.Errorf("it was asked for %s", took)
	}
	if err := b.deliver(t, good); err != nil {
		t.Error(err)
	}
}

// What waits for its turn when its worker stops is not begun, but handed back.
func TestNothingBeginsWhenTheWorkerStops(t *testing.T) {
	entered, goOn := make(chan string, 4), make(chan struct{})
	u := newUpstream(t, driverFunc(func(_ context.Context, a Attempt) error {
		entered <- a.InstanceID
		<-goOn
		return nil
	}), UpstreamConfig{Concurrency: 1})
	b := newBenchOn(t, redisdb.Options{URL: redistest.Start(t).URL()}, u)
	stop := b.start(t)
	job := b.submit(t, "phone-1", "phone-2", "phone-3")
	<-entered
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	<-b.draining.Done()
	close(goOn)
	<-stopped
	got, err := b.db.Jobs.Job(t.Context(), job.ID)
	if err != nil || got.Counts.Succeeded != 1 || got.Counts.Pending != 2 || len(entered) > 0 {
		t.Errorf("%d more calls, job %+v, %v", len(entered), got.Counts, err)
	}
}
