package harness

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Until calls f until it returns nil, at most for limit. The time of success is known to
// one percent, or two milliseconds if that is more.
func Until(ctx context.Context, limit time.Duration, f func(context.Context) error) error {
	return poll(ctx, limit, func(ctx context.Context) (bool, error) {
		err := f(ctx)
		return err == nil, err
	})
}

// poll calls f until it is done, at most for limit.
func poll(ctx context.Context, limit time.Duration, f func(context.Context) (done bool, err error)) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for begin := time.Now(); ; {
		done, err := f(limited)
		if done {
			return err
		}
		if !Pause(limited, min(max(time.Since(begin)/100, 2*time.Millisecond), 50*time.Millisecond)) {
			return errors.Join(fmt.Errorf("waited for %s: %w", time.Since(begin).Round(time.Millisecond), err), ctx.Err())
		}
	}
}

// Pause waits for d, or until ctx ends. It reports whether all of d has passed.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// T is what Eventually needs of a test.
type T interface {
	Helper()
	Context() context.Context
	Fatalf(format string, args ...any)
}

// Eventually calls f until it returns true, and ends the test if that takes longer than limit.
func Eventually(t T, limit time.Duration, what string, f func() bool) {
	t.Helper()
	if err := Until(t.Context(), limit, func(context.Context) error {
		if !f() {
			return errors.New("in vain")
		}
		return nil
	}); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
