package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"go.opentelemetry.io/otel/trace"

	"batchreset/tasks"
)

// Store is the record and the locks, as an attempt needs them.
type Store interface {
	// Beat shows that this process is alive, Leave that it is gone.
	Beat(ctx context.Context, worker string) error
	Leave(ctx context.Context, worker string) error
	Begin(ctx context.Context, d tasks.Delivery, token, key string, lock time.Duration) (tasks.Begun, error)
	// GiveUp ends an attempt whose Begin had no answer, whether it has begun or will.
	GiveUp(ctx context.Context, d tasks.Delivery, token string, lock time.Duration) (tasks.Ended, error)
	// Send is the last look before a reset is sent, and marks that it may have been.
	Send(ctx context.Context, d tasks.Delivery, token string) error
	Checkpoint(ctx context.Context, d tasks.Delivery, token, checkpoint string) error
	Finish(ctx context.Context, d tasks.Delivery, token string, o tasks.Outcome, unlock bool) (tasks.Ended, error)
	Wait(ctx context.Context, d tasks.Delivery) (time.Duration, error)
	Abandon(ctx context.Context, d tasks.Delivery, code tasks.Code, message string, maxFailures int) (tasks.Ended, error)
	// Policy is what operators have decided about a tenant, a moment ago at the most.
	Policy(ctx context.Context, tenant string) (tasks.Policy, error)
	Spend(ctx context.Context, tenant string, perHour int) (receipt int64, wait time.Duration, err error)
	Unspend(ctx context.Context, tenant string, receipt int64) error
	TellIfWanted(ctx context.Context, tenant, job string, topics ...tasks.Topic) error
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
	// lookPatience is how long the last look before a reset is sent may take, and lookFresh how
	// old what it saw may be when the reset is sent: who looks for longer looks again.
	lookPatience = 5 * time.Second
	lookFresh    = 500 * time.Millisecond
	// redisDelay is how long a task waits that could not even ask the record.
	redisDelay = 5 * time.Second
	// brokenTries is how often a record is asked that answers with an error of its own, and
	// brokenDelay how long its task waits then: somebody may mend it.
	brokenTries = 3
	brokenDelay = time.Minute
	// aliveDelay is how long a task waits whose item another worker is at work on: asynq took
	// that worker for dead.
	aliveDelay = 10 * time.Second
)

// again asks asynq to run the same task later.
type again struct {
	delay   time.Duration
	failure bool // counts as a failure on the dashboard
	reason  string
}

func (a *again) Error() string { return a.reason }

// archived makes asynq archive the task, so that the dashboard shows it. It
// stands for asynq.SkipRetry without that error's text behind the reason.
type archived string

func (a archived) Error() string { return string(a) }

func (archived) Is(target error) bool { return target == asynq.SkipRetry }

// attempt is one run through process.
type attempt struct {
	*Worker
	d      tasks.Delivery
	token  string
	policy tasks.Policy // of the tenant, before the attempt began

	begun    tasks.Begun // once it has
	deadline time.Time   // counted from before the lock, which outlives it
	stalls   int         // of the process, when the attempt began

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
		return archived(err.Error())
	}
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
	return &attempt{Worker: w, d: d, token: w.newToken(), traceparent: task.Headers()["traceparent"]}, nil
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
		if !called { // else who calls the driver does, when it returns
			turn.Leave()
		}
	}()
	if err := a.stopping(); err != nil {
		return err
	}
	unspend, err := a.permitted(ctx)
	if err != nil {
		return err
	}
	a.deadline, a.stalls = time.Now().Add(a.cfg.AttemptTimeout), a.pulse.beat()
	if err := a.begin(ctx); err != nil {
		if _, refused := errors.AsType[tasks.Refusal](err); refused {
			unspend()
		}
		return a.refused(ctx, err)
	}
	if a.begun.Number > 1 {
		unspend() // it is instances that are counted, not attempts
	}
	start := time.Now()
	if a.cfg.Tracer != nil && a.traceparent != "" {
		callCtx = a.startSpan(callCtx)
	}
	called = true
	failure, interrupted := a.call(callCtx, turn)
	return a.end(ctx, start, failure, interrupted)
}

// refused does what follows from an attempt that has not begun.
func (a *attempt) refused(ctx context.Context, err error) error {
	switch _, refused := errors.AsType[tasks.Refusal](err); {
	case errors.Is(err, tasks.InstanceBusy):
		return a.wait(ctx)
	case errors.Is(err, tasks.NotAllowed):
		return a.abandon(ctx, tasks.NoLongerAllowed, string(tasks.NotAllowed))
	case errors.Is(err, tasks.TooEarly):
		early, _ := errors.AsType[*tasks.EarlyError](err)
		return &again{delay: early.Wait, reason: err.Error()}
	case errors.Is(err, tasks.AttemptAlive):
		return &again{delay: aliveDelay + jitter(aliveDelay), reason: err.Error()}
	case errors.Is(err, tasks.TooLate):
		return a.abandon(ctx, tasks.NotInTime, "the item did not start in time")
	case errors.Is(err, tasks.JobStopped):
		// What waited has ended with the job; this was running when its worker died.
		return a.abandon(ctx, tasks.WorkerLost, "the worker was lost, and the job was stopped since")
	case refused:
		return err
	case errors.Is(err, tasks.ErrBrokenRecord): // so nothing has begun
		a.say(slog.LevelError, "the record cannot be worked on", slog.Any("error", err))
		return &again{delay: brokenDelay + jitter(brokenDelay), reason: err.Error()}
	default:
		return a.redisTrouble(errors.Join(err, a.giveUp(ctx)))
	}
}

// giveUp sees to it that an attempt whose begin had no answer neither goes on nor begins
// later: nothing was sent, and nobody may think that something was.
func (a *attempt) giveUp(ctx context.Context) error {
	a.say(slog.LevelWarn, "attempt given up: Redis does not answer")
	var ended tasks.Ended
	err := a.persist(ctx, func() (err error) {
		ended, err = a.store.GiveUp(ctx, a.d, a.token, a.lockTime())
		return err
	})
	if err == nil {
		a.tell(ctx, ended)
	} else if errors.Is(err, tasks.WrongToken) { // it had not begun
		err = nil
	}
	return err
}

// lockTime is how long an instance stays locked.
func (a *attempt) lockTime() time.Duration { return a.cfg.AttemptTimeout + lockMargin }

// end writes how the attempt ended and says what becomes of the task.
func (a *attempt) end(ctx context.Context, start time.Time, failure *DriverError, interrupted bool) error {
	end := judge(failure, circumstances{
		begun: a.begun, maxFailures: a.cfg.MaxAttempts, repeatable: a.repeatable, interrupted: interrupted,
	})
	end.outcome.Message = clip(end.outcome.Message)
	end.outcome.MaxFailures = *a.policy.MaxFailures
	if !end.outcome.Busy { // how long it has been busy decides
		end.outcome.Delay = end.delay
	}
	a.metrics.attempt(end.outcome.Event, start)
	ended, err := a.finish(ctx, end)
	if a.span != nil {
		a.endSpan(end.outcome, ended.State)
	}
	a.say(slog.LevelInfo, "attempt ended", slog.String("event", string(end.outcome.Event)), slog.String("code", string(end.outcome.Code)),
		slog.String("message", end.outcome.Message), slog.Duration("duration", time.Since(start)), slog.Bool("job_final", ended.JobFinal))
	if err != nil {
		// The record does not know the outcome, or knows it already from a write
		// whose answer was lost. The next delivery finds out which.
		a.say(slog.LevelError, "outcome not written", slog.Any("error", err))
		return a.redisTrouble(err)
	}
	a.tell(ctx, ended)
	if end.outcome.Busy && ended.State == tasks.ItemRetrying {
		return a.waited(ctx, ended.BusyFor, max(end.delay, waitDelay(ended.BusyFor)))
	}
	summary := string(end.outcome.Code) + ": " + end.outcome.Message
	switch ended.State {
	case tasks.ItemSucceeded:
		return nil
	case tasks.ItemRetrying:
		return &again{delay: end.delay, failure: end.outcome.Failure || end.outcome.Unanswered, reason: summary}
	default:
		return archived(summary)
	}
}

// enter waits for the turn of an attempt, before it begins: what waits can still be
// cancelled, and is not called running. While there is none it holds the task for a moment
// before the task is put back: a long queue would otherwise go round and round through Redis
// as fast as it can.
func (a *attempt) enter(ctx context.Context) (Turn, error) {
	if a.gate == nil {
		return freeTurn{}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(a.draining, cancel)()
	turn, wait, reason := a.gate.Enter(ctx)
	if turn == nil {
		return nil, &again{delay: wait + jitter(wait), reason: reason}
	}
	return turn, nil
}

// stopping puts a task back that has not begun when its worker stops.
func (a *attempt) stopping() error {
	if a.draining.Err() == nil {
		return nil
	}
	return &again{delay: time.Second, reason: "the worker stops"}
}

type freeTurn struct{}

func (freeTurn) Take()  {}
func (freeTurn) Leave() {}

// begin locks the instance and begins the attempt. It is repeated while Redis does not
// answer: the record may have begun already, and under the same token that is the
// same attempt.
func (a *attempt) begin(ctx context.Context) error {
	key := newKey()
	return a.patiently(ctx, func() (err error) {
		a.begun, err = a.store.Begin(ctx, a.d, a.token, key, a.lockTime())
		return err
	})
}

// finish writes the outcome: the driver's work is done and must not be forgotten because
// Redis is away.
func (a *attempt) finish(ctx context.Context, e ending) (ended tasks.Ended, err error) {
	err = a.persist(ctx, func() error {
		ended, err = a.store.Finish(ctx, a.d, a.token, e.outcome, e.unlock)
		return err
	})
	return ended, err
}

// persist repeats f until it succeeds, the record refuses or cannot be worked on, or this
// process has to end. Nobody else takes the attempt as long as this process lives, so it must
// be closed.
func (a *attempt) persist(ctx context.Context, f func() error) error {
	var patience <-chan time.Time // once the process has to end
	stopping := a.stop.Done()
	for n := 1; ; n++ {
		err := f()
		if _, refused := errors.AsType[tasks.Refusal](err); err == nil || refused {
			return err
		}
		if errors.Is(err, tasks.ErrBrokenRecord) && n >= brokenTries {
			return err
		}
		select {
		case <-stopping:
			stopping, patience = nil, time.After(storePatience)
		case <-patience:
			return err
		case <-time.After(double(50*time.Millisecond, 5*time.Second, n)):
		case <-ctx.Done():
			return err
		}
	}
}

// patiently repeats f until it succeeds, the record refuses, or storePatience is over. It is
// for what may be left undone.
func (a *attempt) patiently(ctx context.Context, f func() error) error {
	for n, start := 1, time.Now(); ; n++ {
		err := f()
		if _, refused := errors.AsType[tasks.Refusal](err); err == nil || refused || time.Since(start) > storePatience {
			return err
		}
		if errors.Is(err, tasks.ErrBrokenRecord) && n >= brokenTries {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(double(50*time.Millisecond, 2*time.Second, n)):
		}
	}
}

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
	return &again{delay: delay/2 + jitter(delay/2), reason: "the instance is busy"}
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
	a.tell(ctx, ended)
	return archived(fmt.Sprintf("%s: %s", code, message))
}

func (a *attempt) redisTrouble(err error) error {
	a.say(slog.LevelWarn, "task put back", slog.Any("error", err))
	return &again{delay: redisDelay, reason: err.Error()}
}

// call runs the driver under the attempt timeout. interrupted says that the
// attempt was stopped from outside.
func (a *attempt) call(ctx context.Context, turn Turn) (failure *DriverError, interrupted bool) {
	ctx, cancel := context.WithDeadline(ctx, a.deadline)
	defer cancel()
	defer context.AfterFunc(a.stop, cancel)()
	turn.Take()
	err := a.await(ctx, a.start(ctx, turn))
	interrupted = errors.Is(ctx.Err(), context.Canceled)
	if err == nil {
		return nil, interrupted
	}
	failure, ok := errors.AsType[*DriverError](err)
	if !ok {
		failure = &DriverError{Verdict: Unknown, Message: err.Error()}
	}
	return failure, interrupted
}

// start calls the driver, which may not return in its time, or ever. This is a function
// of its own so that what waits meanwhile, ten thousand times in a busy worker, has a
// small stack.
func (a *attempt) start(ctx context.Context, turn Turn) <-chan error {
	input := Attempt{
		InstanceID: a.d.InstanceID, ItemID: a.d.ItemID, Number: a.begun.Number,
		Key: a.begun.Key, Deadline: a.deadline, MaySend: func() error { return a.maySend(ctx) }, Ambiguous: a.begun.Ambiguous, Checkpoint: a.begun.Checkpoint,
		Save: func(ctx context.Context, checkpoint string) error {
			if len(checkpoint) > MaxCheckpoint {
				return fmt.Errorf("checkpoint of %d bytes, the limit is %d", len(checkpoint), MaxCheckpoint)
			}
			return a.store.Checkpoint(ctx, a.d, a.token, checkpoint)
		},
	}
	returned := make(chan error, 1) // buffered: a driver left behind must be able to end
	a.drivers.Go(func() {
		defer turn.Leave()
		returned <- a.reset(ctx, input)
	})
	return returned
}

// await waits for the driver's answer, until driverGrace after its time.
func (a *attempt) await(ctx context.Context, returned <-chan error) error {
	select {
	case err := <-returned:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-returned:
		return err
	case <-time.After(driverGrace):
		a.say(slog.LevelError, "the driver does not return after its time, left behind")
		return &DriverError{Verdict: Unknown, Message: "the driver did not return in time"}
	}
}

// maySend is the last look before a reset is sent: whether nobody has halted the tenant, the
// record lets this attempt go on, and this process was not frozen meanwhile.
func (a *attempt) maySend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	defer cancel()
	if err := a.inTime(); err != nil {
		return err
	}
	for {
		start := time.Now()
		if err := a.look(ctx); err != nil {
			return err
		}
		if time.Since(start) <= lookFresh {
			return a.inTime() // the look may have taken its time
		}
	}
}

// look asks Redis whether the attempt may go on.
func (a *attempt) look(ctx context.Context) error {
	policy, err := a.store.Policy(ctx, a.d.Tenant)
	if err == nil && policy.Halt() != nil {
		err = errHalted(policy)
	}
	if err != nil {
		return err
	}
	return a.store.Send(ctx, a.d, a.token)
}

// inTime says whether the item is certainly still this attempt's, as far as this process can
// know by itself.
func (a *attempt) inTime() error {
	// Both clocks: the wall clock can be set back.
	now := time.Now()
	if !now.Before(a.deadline) || !now.Round(0).Before(a.deadline.Round(0)) {
		return errLate
	}
	if a.pulse.beat() != a.stalls {
		return errFrozen
	}
	return nil
}

// reset calls the driver and turns a panic into an error.
func (a *attempt) reset(ctx context.Context, input Attempt) (err error) {
	defer func() {
		if p := recover(); p != nil {
			a.say(slog.LevelError, "the driver panicked", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
			// Nobody knows how far it came.
			err = &DriverError{Verdict: Unknown, Code: string(tasks.ResetFailed), Message: fmt.Sprintf("the driver panicked: %v", p)}
		}
	}()
	if err := a.inTime(); err != nil { // begin may have taken its time
		return &DriverError{Verdict: NotSent, Message: "nothing was sent: " + err.Error()}
	}
	return a.driver.Reset(ctx, input)
}

// clip shortens a message to what the record keeps, on a UTF-8 boundary.
func clip(s string) string {
	if len(s) <= tasks.MaxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:tasks.MaxMessage], "")
}
