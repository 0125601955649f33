package redisdb_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// modelItem is what the record should say of an item, in plain Go.
type modelItem struct {
	state    tasks.ItemState
	attempts int
	failures int
	silences int // calls without an answer
	lost     int
	token    string
	key      string   // while a call is in doubt
	saved    string   // checkpoint
	unclear  bool     // an earlier call was in doubt when the attempt began
	sent     bool     // the attempt has asked to send
	doubt    bool     // it was retried while a call was in doubt
	locked   bool     // its instance
	given    []string // tokens that were given up since the delivery
	code     tasks.Code
	delivery int
}

// model drives random commands against the scripts and, beside them, against
// the state machine of package tasks; after each command they must agree.
type model struct {
	w     world
	job   tasks.Job
	items []modelItem
	n     int // tokens handed out

	maxFailures int
	stopped     bool
	stopCode    tasks.Code
}

func (m *model) token() string {
	m.n++
	return fmt.Sprintf("token-%d", m.n)
}

func (m *model) draw(t *rapid.T) (int, tasks.Delivery, *modelItem) {
	n := rapid.IntRange(0, len(m.items)-1).Draw(t, "item")
	d := m.job.Deliveries()[n] // m.job is as submitted: all open
	d.Number = m.items[n].delivery
	return n, d, &m.items[n]
}

// failed stops the model's job once too many items failed, and this one just now: those
// that a retry left as they were do not stop it by themselves.
func (m *model) failed(just *modelItem) {
	if just.state != tasks.ItemFailed {
		return
	}
	n := 0
	for _, it := range m.items {
		if it.state == tasks.ItemFailed {
			n++
		}
	}
	if m.maxFailures > 0 && n >= m.maxFailures && !m.stopped {
		m.stop(tasks.Stopped)
	}
}

func (m *model) stop(code tasks.Code) {
	m.stopped, m.stopCode = true, code
	for i := range m.items {
		it := &m.items[i]
		switch {
		case it.state != tasks.ItemPending && it.state != tasks.ItemRetrying:
		case it.key != "" || it.doubt:
			it.state = tasks.ItemUnknown
			if it.code == "" {
				it.code = code
			}
		default:
			it.state, it.code = tasks.ItemCancelled, code
		}
	}
}

func (m *model) Cancel(t *rapid.T) {
	err := m.w.db.Records.Cancel(context.Background(), m.job.ID, tasks.Actor{})
	if m.final() {
		if tasks.CodeOf(err) != tasks.JobFinal {
			t.Fatalf("cancel of a final job: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if m.stopped && m.stopCode == tasks.Cancelled {
		return // what was running when it was cancelled, and was lost since, ends with its delivery
	}
	m.stop(tasks.Cancelled)
}

func (m *model) Retry(t *rapid.T) {
	states := rapid.SliceOfNDistinct(rapid.SampledFrom(tasks.RetryStates), 1, 3, rapid.ID[tasks.ItemState]).Draw(t, "states")
	err := m.w.db.Records.Retry(context.Background(), m.job.ID, states, tasks.Actor{})
	reopened := false
	for i := range m.items {
		if it := &m.items[i]; m.final() && slices.Contains(states, it.state) {
			reopened = true
		}
	}
	if !reopened {
		if tasks.CodeOf(err) != tasks.JobFinal {
			t.Fatalf("retry with nothing to retry: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	m.stopped = false
	for i := range m.items {
		if it := &m.items[i]; slices.Contains(states, it.state) {
			it.apply(t, reopen)
			*it = modelItem{
				state: it.state, attempts: it.attempts, delivery: it.delivery + 1, locked: it.locked, doubt: it.doubt || it.key != "",
			}
		}
	}
}

func (m *model) Redeliver(t *rapid.T) {
	_, d, it := m.draw(t)
	d.Number += rapid.IntRange(-1, 0).Draw(t, "stale")
	running := it.state == tasks.ItemRunning
	err := m.w.db.Sweep.Redeliver(context.Background(), m.job, d, func(lost int) time.Duration {
		if !running || lost != it.lost {
			t.Fatalf("delayed after %d lost attempts in state %s, want %d", lost, it.state, it.lost)
		}
		return 0
	})
	switch {
	case it.state.Final():
		if !errors.Is(err, tasks.AlreadyFinal) {
			t.Fatalf("delivered a final item: %v", err)
		}
	case d.Number != it.delivery:
		if !errors.Is(err, tasks.OldDelivery) {
			t.Fatalf("an old delivery was delivered again: %v", err)
		}
	case err != nil:
		t.Fatal(err)
	default:
		if running {
			it.lose()
			it.apply(t, tasks.Retry)
			it.token = ""
			if it.key != "" {
				it.code = tasks.WorkerLost
			}
		}
		it.delivery++
		it.given = nil
	}
}

// apply moves the model; it fails if the state machine has no such move.
func (it *modelItem) apply(t *rapid.T, e tasks.Transition) {
	to, ok := stateAfter(it.state, e)
	if !ok {
		t.Fatalf("the record did %s in state %s", e, it.state)
	}
	it.state = to
}

func (m *model) Begin(t *rapid.T) {
	n, d, it := m.draw(t)
	token := m.token()
	begun, err := m.w.db.Attempts.Begin(context.Background(), d, token, "key-of-"+token, time.Minute)
	if it.state.Final() {
		if !errors.Is(err, tasks.AlreadyFinal) {
			t.Fatalf("begin of a final item: %v", err)
		}
		return
	}
	if m.stopped {
		if !errors.Is(err, tasks.JobStopped) {
			t.Fatalf("begin in a stopped job: %v", err)
		}
		return
	}
	if it.doubt && it.locked {
		if early, ok := errors.AsType[*tasks.EarlyError](err); !ok || early.Wait <= 0 || early.Wait > time.Minute {
			t.Fatalf("a retry went through the lock of a call in doubt: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if it.state == tasks.ItemRunning {
		it.lose()
	}
	it.apply(t, begin)
	it.locked, it.doubt, it.sent, it.unclear = true, false, false, it.key != ""
	ambiguous := it.key != ""
	if !ambiguous {
		it.key = "key-of-" + token
	}
	it.attempts++
	it.token, it.code = token, ""
	want := tasks.Begun{
		Number: it.attempts, Failures: it.failures, Unanswered: it.silences, Lost: it.lost,
		Key: it.key, Checkpoint: it.saved, Ambiguous: ambiguous,
	}
	if !reflect.DeepEqual(begun, want) {
		t.Fatalf("item %d begun as %+v, want %+v", n, begun, want)
	}
}

// lose closes an attempt whose worker has died.
func (it *modelItem) lose() {
	it.lost++
	if !it.sent && !it.unclear {
		it.key, it.saved = "", ""
	}
}

// Unlock lets the lock of the instance lapse, where no attempt needs it.
func (m *model) Unlock(t *rapid.T) {
	_, d, it := m.draw(t)
	if it.state != tasks.ItemRunning {
		m.w.rdb.Del(context.Background(), "reset:lock:{"+d.InstanceID+"}")
		it.locked = false
	}
}

func (m *model) Send(t *rapid.T) {
	_, d, it := m.draw(t)
	token := rapid.SampledFrom([]string{it.token, "stale"}).Draw(t, "token")
	err := m.w.db.Attempts.Send(context.Background(), d, token, "")
	switch {
	case it.state != tasks.ItemRunning || token != it.token:
		if !errors.Is(err, tasks.WrongToken) {
			t.Fatalf("may send in state %s: %v", it.state, err)
		}
	case m.stopped:
		if !errors.Is(err, tasks.JobStopped) {
			t.Fatalf("may send in a stopped job: %v", err)
		}
	case err != nil:
		t.Fatal(err)
	default:
		it.sent = true
	}
}

func (m *model) GiveUp(t *rapid.T) {
	_, d, it := m.draw(t)
	if it.state == tasks.ItemRunning && !it.sent && rapid.Bool().Draw(t, "begun") {
		ended, err := m.w.db.Attempts.GiveUp(context.Background(), d, it.token, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		it.locked = it.unclear
		m.finished(t, it, tasks.Outcome{Transition: tasks.Retry, Code: tasks.ResetFailed, InDoubt: it.unclear})
		if ended.State != it.state {
			t.Fatalf("given up as %s, want %s", ended.State, it.state)
		}
		return
	}
	token := m.token()
	if _, err := m.w.db.Attempts.GiveUp(context.Background(), d, token, time.Minute); !errors.Is(err, tasks.WrongToken) {
		t.Fatalf("an attempt that had not begun was given up: %v", err)
	}
	if !it.state.Final() && len(it.given) < 8 {
		it.given = append(it.given, token)
	}
}

// BeginLate is a begin that arrives after it was given up.
func (m *model) BeginLate(t *rapid.T) {
	_, d, it := m.draw(t)
	if len(it.given) == 0 || it.state.Final() {
		return
	}
	token := rapid.SampledFrom(it.given).Draw(t, "given up")
	if _, err := m.w.db.Attempts.Begin(context.Background(), d, token, "late", time.Minute); !errors.Is(err, tasks.WrongToken) {
		t.Fatalf("an attempt that was given up began: %v", err)
	}
}

func (m *model) Checkpoint(t *rapid.T) {
	_, d, it := m.draw(t)
	token := rapid.SampledFrom([]string{it.token, "stale"}).Draw(t, "token")
	err := m.w.db.Attempts.Checkpoint(context.Background(), d, token, "saved by "+token)
	if it.state == tasks.ItemRunning && token == it.token {
		if err != nil {
			t.Fatal(err)
		}
		it.saved = "saved by " + token
	} else if !errors.Is(err, tasks.WrongToken) {
		t.Fatalf("checkpoint in state %s: %v", it.state, err)
	}
}

func drawOutcome(t *rapid.T) tasks.Outcome {
	o := tasks.Outcome{Transition: rapid.SampledFrom([]tasks.Transition{
		tasks.Succeed, tasks.Retry, tasks.Retry, tasks.Fail, tasks.LoseTrack,
	}).Draw(t, "event")}
	if o.Transition != tasks.Succeed {
		o.Code = tasks.Code(rapid.SampledFrom([]string{"CPS.0003", "RESET.1001"}).Draw(t, "code"))
		o.Failure = rapid.Bool().Draw(t, "failure")
		o.InDoubt = rapid.Bool().Draw(t, "in doubt")
		o.Busy = rapid.Bool().Draw(t, "busy")
		o.Unanswered = rapid.Bool().Draw(t, "unanswered")
	}
	return o
}

func (m *model) finished(t *rapid.T, it *modelItem, o tasks.Outcome) {
	if o.Transition == tasks.Retry && m.stopped {
		switch {
		case o.InDoubt:
			o.Transition = tasks.LoseTrack
		case o.Failure || o.Unanswered:
			o.Transition = tasks.Fail
		default: // as if it had waited for its next attempt when the job was stopped
			it.apply(t, tasks.Retry)
			o.Transition, o.Code = cancel, m.stopCode
		}
	}
	it.apply(t, o.Transition)
	it.token, it.code = "", o.Code
	if it.state.Final() {
		it.given = nil
	}
	if o.Failure {
		it.failures++
	}
	if o.Unanswered {
		it.silences++
	}
	if !o.InDoubt {
		it.key, it.saved = "", ""
	}
	m.failed(it)
}

func (m *model) Finish(t *rapid.T) {
	_, d, it := m.draw(t)
	token := rapid.SampledFrom([]string{it.token, "stale", ""}).Draw(t, "token")
	o := drawOutcome(t)
	unlock := rapid.Bool().Draw(t, "unlock")
	ended, err := m.w.db.Attempts.Finish(context.Background(), d, token, o, unlock)
	if it.state != tasks.ItemRunning || token != it.token {
		if !errors.Is(err, tasks.WrongToken) {
			t.Fatalf("finish in state %s: %v", it.state, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	it.locked = !unlock
	m.finished(t, it, o)
	if ended.State != it.state {
		t.Fatalf("the record says that the item is %s, want %s", ended.State, it.state)
	}
	if ended.JobFinal != m.final() {
		t.Fatalf("the record says that the job is final: %t", ended.JobFinal)
	}
}

// FinishAtOnce lets several writers end the same attempt; one of them wins.
func (m *model) FinishAtOnce(t *rapid.T) {
	_, d, it := m.draw(t)
	if it.state != tasks.ItemRunning {
		return
	}
	outcomes := make([]tasks.Outcome, 4)
	errs := make([]error, len(outcomes))
	var all sync.WaitGroup
	for i := range outcomes {
		outcomes[i] = drawOutcome(t)
		all.Go(func() {
			_, errs[i] = m.w.db.Attempts.Finish(context.Background(), d, it.token, outcomes[i], true)
		})
	}
	all.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Fatalf("writers %d and %d both ended the attempt", won, i)
		case err == nil:
			won = i
		case !errors.Is(err, tasks.WrongToken):
			t.Fatal(err)
		}
	}
	if won < 0 {
		t.Fatal("no writer ended the attempt")
	}
	it.locked = false
	m.finished(t, it, outcomes[won])
}

func (m *model) Wait(t *rapid.T) {
	_, d, it := m.draw(t)
	if _, err := m.w.db.Attempts.Wait(context.Background(), d); it.state.Final() != errors.Is(err, tasks.AlreadyFinal) {
		t.Fatalf("wait in state %s: %v", it.state, err)
	}
}

func (m *model) Abandon(t *rapid.T) {
	_, d, it := m.draw(t)
	ended, err := m.w.db.Attempts.Abandon(context.Background(), d, tasks.BusyTooLong, "busy", 0)
	if it.state.Final() {
		if !errors.Is(err, tasks.AlreadyFinal) {
			t.Fatalf("abandon of a final item: %v", err)
		}
		return
	}
	if it.state == tasks.ItemRunning {
		it.lose()
	}
	code := tasks.BusyTooLong
	if it.key != "" || it.doubt {
		it.apply(t, tasks.LoseTrack)
	} else if m.stopped {
		it.state, code = tasks.ItemCancelled, m.stopCode
	} else {
		it.apply(t, tasks.Fail)
	}
	it.token, it.code = "", code
	m.failed(it)
	if err != nil || ended.State != it.state || ended.JobFinal != m.final() {
		t.Fatalf("abandoned as %+v, %v; want %s", ended, err, it.state)
	}
}

func (m *model) final() bool {
	for _, it := range m.items {
		if !it.state.Final() {
			return false
		}
	}
	return true
}

func (m *model) Check(t *rapid.T) {
	job, err := m.w.db.Jobs.Job(context.Background(), m.job.ID)
	if err != nil {
		t.Fatal(err)
	}
	if counts := tasks.Count(job.Items); counts != job.Counts || counts.Total() != len(m.items) {
		t.Fatalf("the record does not add up: counts %+v, items %+v", job.Counts, counts)
	}
	for n, want := range m.items {
		got := job.Items[n]
		if got.State != want.state || got.Attempts != want.attempts || got.Code != want.code || got.Delivery != want.delivery {
			t.Fatalf("item %d is %+v, want %+v", n, got, want)
		}
		if got.State.Final() == got.FinishedAt.IsZero() {
			t.Fatalf("item %d is %s and finished at %v", n, got.State, got.FinishedAt)
		}
	}
	if job.State.Final() != m.final() || m.final() == job.FinishedAt.IsZero() {
		t.Fatalf("job is %s, finished at %v", job.State, job.FinishedAt)
	}
	ttl := m.w.rdb.TTL(context.Background(), "reset:{"+m.job.ID+"}").Val()
	if m.final() != (ttl > 0) {
		t.Fatalf("job is %s and expires in %s", job.State, ttl)
	}
}

func TestRandomCommandsKeepTheRecordTrue(t *testing.T) {
	t.Parallel()
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		rapid.Check(t, func(rt *rapid.T) {
			instances := []string{"phone-1", "phone-2", "phone-3"}[:rapid.IntRange(1, 3).Draw(rt, "instances")]
			for _, id := range instances { // which an attempt of the run before may hold
				w.rdb.Del(t.Context(), "reset:lock:{"+id+"}")
			}
			m := &model{w: w, items: make([]modelItem, len(instances))}
			m.maxFailures = rapid.IntRange(0, len(instances)).Draw(rt, "max failures")
			var err error
			if m.job, err = w.db.Records.Submit(t.Context(), tasks.Submission{
				Tenant: "acme", InstanceIDs: instances, AllowUnregistered: true, MaxFailures: m.maxFailures,
			}); err != nil {
				rt.Fatal(err)
			}
			for i := range m.items {
				m.items[i] = modelItem{state: tasks.ItemPending, delivery: 1}
			}
			rt.Repeat(rapid.StateMachineActions(m))
		})
	})
}
