package redisdb_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// modelItem is what the record should say of an item, in plain Go.
type modelItem struct {
	state    tasks.ItemState
	attempts int
	failures int
	lost     int
	token    string
	key      string // while a call is in doubt
	saved    string // checkpoint
	code     tasks.Code
}

// model drives random commands against the scripts and, beside them, against
// the state machine of package tasks; after each command they must agree.
type model struct {
	w     world
	job   tasks.Job
	items []modelItem
	n     int // tokens handed out
}

func (m *model) token() string {
	m.n++
	return fmt.Sprintf("token-%d", m.n)
}

func (m *model) draw(t *rapid.T) (int, tasks.Delivery, *modelItem) {
	n := rapid.IntRange(0, len(m.items)-1).Draw(t, "item")
	return n, m.job.Deliveries()[n], &m.items[n] // m.job is as submitted: all open
}

// apply moves the model; it fails if the state machine has no such move.
func (it *modelItem) apply(t *rapid.T, e tasks.Event) {
	next, ok := it.state.Next(e)
	if !ok {
		t.Fatalf("the record did %s in state %s", e, it.state)
	}
	it.state = next
}

func (m *model) Begin(t *rapid.T) {
	n, d, it := m.draw(t)
	token := m.token()
	begun, err := m.w.db.Begin(context.Background(), d, token, "key of "+token)
	if it.state.Final() {
		if !errors.Is(err, tasks.AlreadyFinal) {
			t.Fatalf("begin of a final item: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if it.state == tasks.ItemRunning {
		it.lost++
	}
	it.apply(t, tasks.Begin)
	ambiguous := it.key != ""
	if !ambiguous {
		it.key = "key of " + token
	}
	it.attempts++
	it.token, it.code = token, ""
	want := tasks.Begun{
		Number: it.attempts, Failures: it.failures, Lost: it.lost,
		Key: it.key, Checkpoint: it.saved, Ambiguous: ambiguous,
	}
	if begun != want {
		t.Fatalf("item %d begun as %+v, want %+v", n, begun, want)
	}
}

func (m *model) Checkpoint(t *rapid.T) {
	_, d, it := m.draw(t)
	token := rapid.SampledFrom([]string{it.token, "stale"}).Draw(t, "token")
	err := m.w.db.Checkpoint(context.Background(), d, token, "saved by "+token)
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
	o := tasks.Outcome{Event: rapid.SampledFrom([]tasks.Event{
		tasks.Succeed, tasks.Retry, tasks.Retry, tasks.Fail, tasks.LoseTrack,
	}).Draw(t, "event")}
	if o.Event != tasks.Succeed {
		o.Code = tasks.Code(rapid.SampledFrom([]string{"CPS.0003", "RESET.1001"}).Draw(t, "code"))
		o.Failure = rapid.Bool().Draw(t, "failure")
		o.InDoubt = rapid.Bool().Draw(t, "in doubt")
		o.Busy = rapid.Bool().Draw(t, "busy")
	}
	return o
}

func (m *model) finished(t *rapid.T, it *modelItem, o tasks.Outcome) {
	it.apply(t, o.Event)
	it.token, it.code = "", o.Code
	if o.Failure {
		it.failures++
	}
	if !o.InDoubt {
		it.key, it.saved = "", ""
	}
}

func (m *model) Finish(t *rapid.T) {
	_, d, it := m.draw(t)
	token := rapid.SampledFrom([]string{it.token, "stale", ""}).Draw(t, "token")
	o := drawOutcome(t)
	ended, err := m.w.db.Finish(context.Background(), d, token, o, rapid.Bool().Draw(t, "unlock"))
	if it.state != tasks.ItemRunning || token != it.token {
		if !errors.Is(err, tasks.WrongToken) {
			t.Fatalf("finish in state %s: %v", it.state, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	m.finished(t, it, o)
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
			_, errs[i] = m.w.db.Finish(context.Background(), d, it.token, outcomes[i], true)
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
	m.finished(t, it, outcomes[won])
}

func (m *model) Wait(t *rapid.T) {
	_, d, it := m.draw(t)
	if _, err := m.w.db.Wait(context.Background(), d); it.state.Final() != errors.Is(err, tasks.AlreadyFinal) {
		t.Fatalf("wait in state %s: %v", it.state, err)
	}
}

func (m *model) Abandon(t *rapid.T) {
	_, d, it := m.draw(t)
	state, err := m.w.db.Abandon(context.Background(), d, tasks.BusyTooLong, "busy")
	if it.state.Final() {
		if !errors.Is(err, tasks.AlreadyFinal) {
			t.Fatalf("abandon of a final item: %v", err)
		}
		return
	}
	if it.key != "" {
		it.apply(t, tasks.LoseTrack)
	} else {
		it.apply(t, tasks.Fail)
	}
	it.token, it.code = "", tasks.BusyTooLong
	if err != nil || state != it.state {
		t.Fatalf("abandoned as %s, %v; want %s", state, err, it.state)
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
	job, err := m.w.db.Job(context.Background(), m.job.ID)
	if err != nil {
		t.Fatal(err)
	}
	if counts := tasks.Count(job.Items); counts != job.Counts || counts.Total() != len(m.items) {
		t.Fatalf("the record does not add up: counts %+v, items %+v", job.Counts, counts)
	}
	for n, want := range m.items {
		got := job.Items[n]
		if got.State != want.state || got.Attempts != want.attempts || got.Code != want.code {
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
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		rapid.Check(t, func(rt *rapid.T) {
			instances := []string{"phone-1", "phone-2", "phone-3"}[:rapid.IntRange(1, 3).Draw(rt, "instances")]
			m := &model{w: w, job: w.submit(t, instances...), items: make([]modelItem, len(instances))}
			for i := range m.items {
				m.items[i].state = tasks.ItemPending
			}
			rt.Repeat(rapid.StateMachineActions(m))
		})
	})
}
