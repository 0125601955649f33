// Package requeue says to asynq what becomes of a task whose handler has ended: it runs once
// more later, or is archived. Every asynq server of a worker uses it, for resets and for
// webhooks.
package requeue

import (
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/hibiken/asynq"
)

// Later is what a handler returns so that asynq runs the same task again.
type Later struct {
	Delay   time.Duration
	Failure bool // counts as a failure on the dashboard
	Reason  string
}

func (l *Later) Error() string { return l.Reason }

// Archived is what a handler returns so that asynq archives the task, and the dashboard shows
// it. It stands for asynq.SkipRetry without that error's text behind the reason.
type Archived string

func (a Archived) Error() string { return string(a) }

// Is makes asynq take it for its SkipRetry.
func (Archived) Is(target error) bool { return target == asynq.SkipRetry }

// lostDelay is how long a task waits that asynq itself took from its handler: it was cancelled
// on the dashboard, or its lease was lost. The handler needs time to end.
const lostDelay = 30 * time.Second

// Delay is asynq's RetryDelayFunc: it does what the handler's Later says.
func Delay(_ int, err error, _ *asynq.Task) time.Duration {
	delay := lostDelay
	if l, ok := errors.AsType[*Later](err); ok {
		delay = l.Delay
	}
	return wholeSeconds(time.Now(), delay)
}

// wholeSeconds makes a delay that starts now a little longer, so that it ends on a whole
// second of the clock. asynq keeps due times in whole seconds and cuts off the rest, which
// would make a task due before its time.
func wholeSeconds(now time.Time, delay time.Duration) time.Duration {
	due := now.Add(delay)
	if whole := due.Truncate(time.Second); !whole.Equal(due) {
		due = whole.Add(time.Second)
	}
	return due.Sub(now)
}

// Jitter is a random time from 1 ns to d, so that what is put back together does not come back
// together. It comes from crypto/rand because that can be made deterministic, see package
// testing/cryptotest: a simulated failure can then be repeated.
func Jitter(d time.Duration) time.Duration {
	return time.Duration(rand.New(cryptoSource{}).Int64N(int64(d))) + 1
}

type cryptoSource struct{}

func (cryptoSource) Uint64() uint64 {
	var b [8]byte
	_, _ = crand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// NewLog passes on what asynq logs. Its warnings and less are about single tasks, for which we
// log a line that says more.
func NewLog(to *slog.Logger) asynq.Logger { return log{to} }

type log struct{ to *slog.Logger }

func (l log) Debug(args ...any) { l.to.Debug("asynq", "text", fmt.Sprint(args...)) }
func (l log) Info(args ...any)  { l.Debug(args...) }
func (l log) Warn(args ...any)  { l.Debug(args...) }
func (l log) Error(args ...any) { l.to.Error("asynq", "text", fmt.Sprint(args...)) }

// Fatal would end the process in asynq's own logger; nothing that asynq calls it for can
// happen once the server has started.
func (l log) Fatal(args ...any) { l.Error(args...) }
