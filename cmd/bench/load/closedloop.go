package load

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// ClosedLoop makes calls on so many lanes for d, each after the answer to the one
// before, and returns how many a second.
func ClosedLoop(ctx context.Context, d time.Duration, lanes int, call func(lane int) error) (perSecond float64, err error) {
	var calls atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for lane := range lanes {
		g.Go(func() error {
			n := int64(0)
			defer func() { calls.Add(n) }()
			for ; time.Since(begin) < d && ctx.Err() == nil; n++ {
				if err := call(lane); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	err = g.Wait()
	return float64(calls.Load()) / time.Since(begin).Seconds(), err
}
