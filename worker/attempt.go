package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/trace"

	"batchreset/tasks"
	"batchreset/worker/requeue"
)

// Store is what an attempt needs of the record and of what people have decided.
type Store struct {
	Attempts
	Policies
	Quotas
	Notices
	Routes
	Reports // nil: nobody is told, and nobody orders anything
}

// Routes finds the driver of an item anew.
type Routes interface {
	Reroute(ctx context.Context, d tasks.Delivery) error
}

// Attempts are the record and the locks.
type Attempts interface {
	// Beat shows that this process is alive, Leave that it is gone. Errors of Beat: a *tasks.WentBackError.
	Beat(ctx context.Context, worker string) error
	Leave(ctx context.Context, worker string) error
	// Relock locks the instance of an attempt that is under way once more, if nobody has it.
	Relock(ctx context.Context, d tasks.Delivery, token string, ttl time.Duration) error
	Begin(ctx context.Context, d tasks.Delivery, token, key string, lock time.Duration) (tasks.Begun, error)
	// GiveUp ends an attempt whose Begin had no answer, whether it has begun or will.
	GiveUp(ctx context.Context, d tasks.Delivery, token string, lock time.Duration) (tasks.Ended, error)
	// Send is the last look before a reset is sent, and marks that it may have been.
	Send(ctx context.Context, d tasks.Delivery, token, address string) error
	Checkpoint(ctx context.Context, d tasks.Delivery, token, checkpoint string) error
	Finish(ctx context.Context, d tasks.Delivery, token string, o tasks.Outcome, unlock bool) (tasks.Ended, error)
	Wait(ctx context.Context, d tasks.Delivery) (time.Duration, error)
	Abandon(ctx context.Context, d tasks.Delivery, code tasks.Code, message string, maxFailures int) (tasks.Ended, error)
}

// Policies say what operators have decided about a tenant, a moment ago at the most.
type Policies interface {
	PolicyOf(ctx context.Context, tenant, run string) (tasks.Policy, error)
	// Halt halts a tenant's attempts, all tenants' if tenant is empty.
	Halt(ctx context.Context, tenant string, whose tasks.Halter, actor tasks.Actor) error
}

// Quotas count resets that are about to begin.
type Quotas interface {
	Spend(ctx context.Context, tenant string, perHour int) (receipt int64, wait time.Duration, err error)
	Unspend(ctx context.Context, tenant string, receipt int64) error
}

// Notices tell the tenant's endpoints what has come of a job.
type Notices interface {
	EnqueueNoticesIfWanted(ctx context.Context, tenant, job string, topics ...tasks.Topic) error
}

const (
	// lockMargin is how much longer than the attempt timeout an instance stays
	// locked: time for a driver to return and for the outcome to be written.
	lockMargin = time.Minute
	// driverGrace is how long a driver may take to return after its context has
	// ended; then its goroutine is left behind and the outcome is in doubt.
	driverGrace = 5 * time.Second
	// storePatience is how long a call to the record is repeated before an attempt has begun,
	// and at the end of the process. With the last one, which Redis's timeouts bound, it stays
	// below lockMargin.
	storePatience = 30 * time.Second
	// lastLookPatience is how long the last look before a reset is sent may take, and lastLookFresh
	// how old its result may be when the reset is sent: after that it is repeated.
	lastLookPatience = 5 * time.Second
	lastLookFresh    = 500 * time.Millisecond
	// redisDelay is how long a task waits after Redis could not be asked about its record.
	redisDelay = 5 * time.Second
	// brokenTries is how often a record that cannot be read is tried, and brokenDelay how long
	// its task waits after that: somebody may repair it.
	brokenTries = 3
	brokenDelay = time.Minute
	// doubtDelay is how long a task waits while it is not known whether Redis is what it was.
	doubtDelay = time.Second
	// aliveDelay is how long a task waits if another worker is working on its item: asynq
	// thought that this worker was dead.
	aliveDelay = 10 * time.Second
)

// attempt is one run through process.
type attempt struct {
	*Worker
	*equipment // the driver of the delivery
	d          tasks.Delivery
	token      string
	policy     tasks.Policy // of the tenant, before the attempt began

	begun    tasks.Begun // once it has
	deadline time.Time   // counted from before the lock, which outlives it
	stalls   int         // of the process, when the attempt began
	sent     atomic.Bool // the driver was told that it may send
	steps    steps

	place                // among those under way
	calling atomic.Int64 // when the reset began that is under way, in nanoseconds since the worker's start, plus 1; 0: none is

	traceparent string     // of the job, if it is traced
	span        trace.Span // of the attempt, once it has begun, if it is traced
}

// say logs a line that names the attempt.
func (a *attempt) say(level slog.Level, text string, attrs ...slog.Attr) {
	job, _, _ := strings.Cut(a.d.ItemID, "-")
	all := make([]slog.Attr, 0, 5+len(attrs))
	all = append(all, slog.String("job", job), slog.String("item", a.d.ItemID),
		slog.String("instance", a.d.InstanceID), slog.String("tenant", a.d.Tenant))
	if a.begun.Number > 0 {
		all = append(all, slog.Int("attempt", a.begun.Number))
	}
	if a.span != nil {
		all = append(all, slog.String("trace_id", a.span.SpanContext().TraceID().String()))
	}
	a.log.LogAttrs(context.Background(), level, text, append(all, attrs...)...) //nolint:sloglint // the callers' texts are constant
}

// newKey is 80 random bits: as short as can be, because the record holds it.
func newKey() string { return rand.Text()[:16] }

// newWorkerID names a worker process. It is the first half of the tokens of its attempts, so
// that whoever meets one can ask whether that process is alive.
func newWorkerID() string { return rand.Text()[:8] }

func (w *Worker) newToken() string { return w.id + rand.Text()[:8] }

// process makes one attempt at the item of a task, from lock to unlock. Each
// step is sent only after the answer to the one before. What it returns is for
// asynq and its dashboard alone; the record is written before.
func (w *Worker) process(ctx context.Context, task *asynq.Task) error {
	w.attempts.Add(1)
	defer w.attempts.Done()
	w.metrics.busy.Inc()
	defer w.metrics.busy.Dec()
	a, err := w.attempt(task)
	if err != nil {
		w.log.Error("task dropped", "error", err)
		return requeue.Archived(err.Error())
	}
	if a.equipment == nil { // somebody has put it into a queue that is not its driver's
		return &requeue.Later{Delay: aliveDelay, Reason: "this worker does not have the driver " + a.d.DriverName()}
	}
	a.busy.Add(1)
	defer a.busy.Add(-1)
	if id, ok := asynq.GetTaskID(ctx); ok {
		a.d.Epoch = tasks.EpochOf(id)
	}
	// What is written to the record must not stop half-way because asynq or an
	// operator cancelled the task; only the driver's call does.
	return a.answer(a.run(ctx, context.WithoutCancel(ctx)))
}

// attempt makes an attempt of a task.
func (w *Worker) attempt(task *asynq.Task) (*attempt, error) {
	if task.Type() != tasks.TypeReset {
		return nil, fmt.Errorf("task type %q is not ours", task.Type())
	}
	d, err := tasks.DecodeDelivery(task.Payload())
	if err != nil {
		return nil, err
	}
	return &attempt{Worker: w, equipment: w.drivers[d.DriverName()], d: d, token: w.newToken(), traceparent: task.Headers()["traceparent"]}, nil
}

// answer is what asynq is told: a task that its record refused is done with.
func (a *attempt) answer(err error) error {
	if refusal, ok := errors.AsType[tasks.Refusal](err); ok {
		a.say(slog.LevelInfo, "delivery dropped", slog.String("reason", string(refusal)))
		return nil
	}
	return err
}

func (a *attempt) run(callCtx, ctx context.Context) error {
	turn, err := a.enter(callCtx)
	if err != nil {
		return err
	}
	called := false
	defer func() {
		if !called { // otherwise it is done when the driver returns
			turn.Leave()
		}
	}()
	if err := a.stopping(); err != nil {
		return err
	}
	if a.unsure.Load() {
		return &requeue.Later{Delay: doubtDelay + requeue.Jitter(doubtDelay), Reason: errUnsure.Error()}
	}
	unspend, err := a.permitted(ctx)
	if err != nil {
		return err
	}
	a.deadline, a.stalls = time.Now().Add(a.timeout), a.pulse.beat()
	if err := a.begin(ctx); err != nil {
		if _, refused := errors.AsType[tasks.Refusal](err); refused {
			unspend()
		}
		return a.refused(ctx, err)
	}
	if a.begun.Number > 1 {
		unspend() // the limit counts instances, not attempts
	}
	a.under.add(a)
	defer a.under.remove(a)
	start := time.Now()
	if a.cfg.Tracer != nil && a.traceparent != "" {
		callCtx = a.startSpan(callCtx)
	}
	called = true
	result, interrupted := a.call(callCtx, turn)
	return a.end(ctx, start, result, interrupted)
}

// refused decides what becomes of the task of an attempt that could not begin.
func (a *attempt) refused(ctx context.Context, err error) error {
	switch _, refused := errors.AsType[tasks.Refusal](err); {
	case errors.Is(err, tasks.InstanceBusy):
		return a.wait(ctx)
	case errors.Is(err, tasks.NotAllowed):
		return a.abandon(ctx, tasks.NoLongerAllowed, string(tasks.NotAllowed))
	case errors.Is(err, tasks.Reassigned):
		return a.abandon(ctx, tasks.NoLongerAllowed, string(tasks.Reassigned))
	case errors.Is(err, tasks.Rerouted):
		return a.reroute(ctx)
	case errors.Is(err, tasks.Moved):
		return a.abandon(ctx, tasks.NoLongerAllowed, movedInDoubt)
	case errors.Is(err, tasks.TooEarly):
		early, _ := errors.AsType[*tasks.EarlyError](err)
		return &requeue.Later{Delay: early.Wait, Reason: err.Error()}
	case errors.Is(err, tasks.AttemptAlive):
		return &requeue.Later{Delay: aliveDelay + requeue.Jitter(aliveDelay), Reason: err.Error()}
	case errors.Is(err, tasks.TooLate):
		return a.abandon(ctx, tasks.NotInTime, "the item did not start in time")
	case errors.Is(err, tasks.JobStopped):
		// Items that waited have ended with the job; this one was running when its worker died.
		return a.abandon(ctx, tasks.WorkerLost, "the worker was lost, and the job was stopped since")
	case refused:
		return err
	case errors.Is(err, tasks.ErrBrokenRecord): // so nothing has begun
		a.say(slog.LevelError, "the record cannot be worked on", slog.Any("error", err))
		return &requeue.Later{Delay: brokenDelay + requeue.Jitter(brokenDelay), Reason: err.Error()}
	default:
		return a.redisTrouble(errors.Join(err, a.giveUp(ctx)))
	}
}

// movedInDoubt is why an item ends: nobody can ask about its call any more.
const movedInDoubt = "an earlier call may have been sent, and the instance has another driver or address now"

// reroute gives the item to the driver that its instance has now.
func (a *attempt) reroute(ctx context.Context) error {
	err := a.store.Reroute(ctx, a.d)
	switch _, refused := errors.AsType[tasks.Refusal](err); {
	case errors.Is(err, tasks.InPlace), errors.Is(err, tasks.AttemptAlive): // by now
		return &requeue.Later{Delay: time.Second, Reason: err.Error()}
	case errors.Is(err, tasks.Moved):
		return a.abandon(ctx, tasks.NoLongerAllowed, movedInDoubt)
	case refused:
		return err
	case err != nil:
		return a.redisTrouble(err)
	}
	a.say(slog.LevelInfo, "item goes to another driver", slog.String("from", a.d.DriverName()))
	return nil
}

// end writes how the attempt ended and says what becomes of the task.
func (a *attempt) end(ctx context.Context, start time.Time, result result, interrupted bool) error {
	end := judge(failureOf(result.err), circumstances{
		begun: a.begun, maxFailures: a.cfg.MaxAttempts, repeatable: a.repeatable || a.looker != nil, interrupted: interrupted,
	})
	// The instance stays locked until a call that may still be going on must be over.
	end.unlock = end.unlock && !result.resolved
	end.outcome.Evidence = result.evidence
	if end.outcome.Transition != tasks.Succeed || result.evidence != "" || a.begun.Number > 1 { // else they are not kept
		end.outcome.Steps = a.steps.text()
	}
	end.outcome.Message = clip(end.outcome.Message)
	end.outcome.MaxFailures = *a.policy.MaxFailures
	if !end.outcome.Busy { // a busy item is judged by how long it has been busy
		end.outcome.Delay = end.delay
	}
	a.durations[end.outcome.Transition].Observe(time.Since(start).Seconds())
	ended, err := a.finish(ctx, end)
	if a.span != nil {
		a.endSpan(end.outcome, ended.State)
	}
	a.say(slog.LevelInfo, "attempt ended", slog.String("event", string(end.outcome.Transition)), slog.String("code", string(end.outcome.Code)),
		slog.String("message", end.outcome.Message), slog.Duration("duration", time.Since(start)), slog.Bool("job_final", ended.JobFinal))
	if err != nil {
		// The outcome is not in the record, or it is, and only the answer to the write was
		// lost. The next delivery finds out which.
		a.say(slog.LevelError, "outcome not written", slog.Any("error", err))
		return a.redisTrouble(err)
	}
	a.noteResolved(result)
	a.enqueueNotices(ctx, ended)
	if end.outcome.Busy && ended.State == tasks.ItemRetrying {
		return a.waited(ctx, ended.BusyFor, max(end.delay, waitDelay(ended.BusyFor)))
	}
	summary := string(end.outcome.Code) + ": " + end.outcome.Message
	switch ended.State {
	case tasks.ItemSucceeded:
		return nil
	case tasks.ItemRetrying:
		return &requeue.Later{Delay: end.delay, Failure: end.outcome.Failure || end.outcome.Unanswered, Reason: summary}
	default:
		return requeue.Archived(summary)
	}
}

// enter waits for a turn before the attempt begins: an item that waits can still be cancelled,
// and is not shown as running. If there is no turn, the task is held for a moment before it is
// put back. Otherwise a long queue would circle through Redis as fast as it can.
func (a *attempt) enter(ctx context.Context) (Turn, error) {
	if a.gate == nil {
		return freeTurn{}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.taking.Load().ctx, cancel)()
	turn, wait, reason := a.gate.Enter(ctx)
	if turn == nil {
		return nil, &requeue.Later{Delay: wait + requeue.Jitter(wait), Reason: reason}
	}
	return turn, nil
}

// stopping puts a task back that has not begun when its worker stops or is to be quiet.
func (a *attempt) stopping() error {
	switch t := a.taking.Load(); {
	case t.ctx.Err() == nil:
		return nil
	case a.draining.Err() == nil:
		return &requeue.Later{Delay: time.Second, Reason: "the worker is to be quiet"}
	}
	return &requeue.Later{Delay: time.Second, Reason: "the worker stops"}
}

type freeTurn struct{}

func (freeTurn) Take()  {}
func (freeTurn) Leave() {}

// wait puts back an item whose instance another item holds.
func (a *attempt) wait(ctx context.Context) error {
	waited, err := a.store.Wait(ctx, a.d)
	if _, refused := errors.AsType[tasks.Refusal](err); refused {
		return err
	}
	if err != nil {
		return a.redisTrouble(err)
	}
	return a.waited(ctx, waited, waitDelay(waited))
}

func (a *attempt) waited(ctx context.Context, waited, delay time.Duration) error {
	if waited >= busyLimit {
		return a.abandon(ctx, tasks.BusyTooLong, fmt.Sprintf("the instance was busy for %s", waited.Round(time.Second)))
	}
	// Half of the delay is random: items that wait for one instance would otherwise
	// come back together, one would have it, and the others would wait again.
	return &requeue.Later{Delay: delay/2 + requeue.Jitter(delay/2), Reason: "the instance is busy"}
}

// abandon ends the item without an attempt.
func (a *attempt) abandon(ctx context.Context, code tasks.Code, message string) error {
	ended, err := a.store.Abandon(ctx, a.d, code, message, *a.policy.MaxFailures)
	if _, refused := errors.AsType[tasks.Refusal](err); refused {
		return err
	}
	if err != nil {
		return a.redisTrouble(err)
	}
	a.say(slog.LevelInfo, "item abandoned", slog.String("state", string(ended.State)), slog.String("code", string(code)), slog.String("message", message))
	a.enqueueNotices(ctx, ended)
	return requeue.Archived(fmt.Sprintf("%s: %s", code, message))
}

func (a *attempt) redisTrouble(err error) error {
	a.say(slog.LevelWarn, "task put back", slog.Any("error", err))
	return &requeue.Later{Delay: redisDelay, Reason: err.Error()}
}

// clip shortens a message to what the record keeps, on a UTF-8 boundary.
func clip(s string) string {
	if len(s) <= tasks.MaxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:tasks.MaxMessage], "")
}
