package worker

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"batchreset/tasks"
)

// callTally is a CallCounter that keeps everything.
type callTally struct {
	mu     sync.Mutex
	kinds  map[tasks.CallKind]int
	failed []tasks.CallFailure
}

func (c *callTally) Count(kind tasks.CallKind, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kinds[kind]++
	if took < 0 {
		panic("it ended before it began")
	}
}

func (c *callTally) Fail(f tasks.CallFailure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = append(c.failed, f)
}

// seeing is a driver that can look.
type seeing struct {
	driverFunc

	see func() (Sight, error)
}

func (l seeing) Look(context.Context, Attempt) (Sight, error) { return l.see() }

func TestEachCallOfADriverIsCountedByWhatItCameTo(t *testing.T) {
	answers := func(err error) Driver { return driverFunc(func(context.Context, Attempt) error { return err }) }
	e := func(v Verdict) error { return &DriverError{Verdict: v, Code: "C", Message: "m"} }
	done := answers(nil)
	for _, row := range []struct {
		name   string
		driver Driver
		want   map[tasks.CallKind]int
	}{
		{"done", done, map[tasks.CallKind]int{tasks.CallDone: 1}},
		{"retry", answers(e(Retryable)), map[tasks.CallKind]int{tasks.CallRetry: 1}},
		{"permanent", answers(e(Permanent)), map[tasks.CallKind]int{tasks.CallPermanent: 1}},
		{"busy", answers(e(Busy)), map[tasks.CallKind]int{tasks.CallBusy: 1}},
		{"unreachable", answers(e(Unreachable)), map[tasks.CallKind]int{tasks.CallUnreachable: 1}},
		{"unknown", answers(e(Unknown)), map[tasks.CallKind]int{tasks.CallUnknown: 1}},
		{"not sent", answers(e(NotSent)), map[tasks.CallKind]int{tasks.CallNotSent: 1}},
		{"any error", answers(errors.New("odd")), map[tasks.CallKind]int{tasks.CallUnknown: 1}},
		{"a panic", driverFunc(func(context.Context, Attempt) error { panic("odd") }), map[tasks.CallKind]int{tasks.CallUnknown: 1}},
		{"behind a breaker", NewUpstream(done, UpstreamConfig{}, slog.New(slog.DiscardHandler)), map[tasks.CallKind]int{tasks.CallDone: 1}},
		{"a breaker that lets nothing through", answers(&DriverError{Verdict: Unreachable, notCalled: true}), map[tasks.CallKind]int{}},
		{
			"a look",
			seeing{func(context.Context, Attempt) error { return nil }, func() (Sight, error) { return Sight{State: Initial}, nil }},
			map[tasks.CallKind]int{tasks.CallDone: 1, tasks.CallSeen: 1},
		},
		{
			"a look that fails",
			seeing{func(context.Context, Attempt) error { return nil }, func() (Sight, error) { return Sight{}, errors.New("odd") }},
			map[tasks.CallKind]int{tasks.CallDone: 1, tasks.CallNotSeen: 1},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := &callTally{kinds: map[tasks.CallKind]int{}}
			b := newBench(t, row.driver, func(cfg *Config) { cfg.Calls = func(string) CallCounter { return c }; cfg.LookPatience = 0 })
			_ = b.deliver(t, b.submit(t, "phone-1")) // as the case is
			if !maps.Equal(c.kinds, row.want) {
				t.Errorf("callTally %v, want %v", c.kinds, row.want)
			}
			failed := 0
			for kind, n := range row.want {
				if kind.Failed() {
					failed += n
				}
			}
			if len(c.failed) != failed || failed > 0 && (c.failed[0].InstanceID != "phone-1" || c.failed[0].Kind == "" || c.failed[0].Message == "") {
				t.Errorf("failures %+v", c.failed)
			}
		})
	}
}
