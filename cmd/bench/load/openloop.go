package load

import (
	"context"
	"math/rand/v2"
	"runtime"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
)

// OpenLoop makes calls that arrive by chance (Poisson), perSecond on average, for d,
// whether or not the ones before have been answered. Each latency counts from the moment
// at which the call was meant to start, so that a stall is paid by all calls that fell
// into it. A call is made on the first lane that is free. Both histograms are in
// microseconds; late is what the generator itself was late by.
func OpenLoop(ctx context.Context, perSecond float64, d time.Duration, lanes int, call func(lane int) error) (latency, late *hdrhistogram.Histogram, err error) {
	arrivals := make(chan time.Time, 2*int(perSecond*d.Seconds())+1000) // the generator never waits
	g, ctx := errgroup.WithContext(ctx)
	each := make([]*hdrhistogram.Histogram, lanes)
	for lane := range lanes {
		each[lane] = NewHistogram()
		g.Go(func() error {
			for meant := range arrivals {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err := call(lane); err != nil {
					return err
				}
				Record(each[lane], time.Since(meant))
			}
			return nil
		})
	}
	late = NewHistogram()
	g.Go(func() error {
		defer close(arrivals)
		// Go's own timers are up to a millisecond late.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		begin := time.Now()
		for meant := begin; ; {
			meant = meant.Add(time.Duration(rand.ExpFloat64() / perSecond * float64(time.Second)))
			if meant.Sub(begin) > d {
				return nil
			}
			if err := sleepUntil(ctx, meant); err != nil {
				return err
			}
			Record(late, time.Since(meant))
			arrivals <- meant
		}
	})
	err = g.Wait()
	latency = NewHistogram()
	for _, h := range each {
		latency.Merge(h)
	}
	return latency, late, err
}

// sleepUntil sleeps on the thread itself.
func sleepUntil(ctx context.Context, t time.Time) error {
	for ctx.Err() == nil {
		left := time.Until(t)
		if left <= 0 {
			return nil
		}
		ts := syscall.NsecToTimespec(int64(min(left, 100*time.Millisecond)))
		_ = syscall.Nanosleep(&ts, nil) // interrupted: the loop sleeps on
	}
	return ctx.Err()
}
