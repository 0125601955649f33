package load

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/tasks/sdkhmac"
)

// Submitters is how many connections submit at the same time.
const Submitters = 32

// Crowd is a number of connections that submit at the same time.
type Crowd []*Caller

// DialCrowd makes n connections to an api, see Dial.
func DialCrowd(ctx context.Context, addr, token string, n int) (Crowd, error) {
	var c Crowd
	for range n {
		one, err := Dial(ctx, addr, token)
		if err != nil {
			c.Close()
			return nil, err
		}
		c = append(c, one)
	}
	return c, nil
}

// Close ends the connections.
func (c Crowd) Close() {
	for _, one := range c {
		one.Close()
	}
}

// Submit posts n instances in full batches and returns the rate in instances per second.
func (c Crowd) Submit(ctx context.Context, n int) (perSecond float64, err error) {
	count := Batches(n)
	var taken atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for _, one := range c {
		g.Go(func() error {
			for taken.Add(1) <= int64(count) {
				if ctx.Err() != nil {
					return errors.New("stopped")
				}
				if _, err := one.Submit(NextBatch(BatchSize)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return float64(count*BatchSize) / time.Since(start).Seconds(), err
}

// Submit posts n instances to an api as Crowd.Submit does, on Submitters connections of its own.
func Submit(ctx context.Context, addr, token string, n int) (perSecond float64, err error) {
	c, err := DialCrowd(ctx, addr, token, Submitters)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	return c.Submit(ctx, n)
}

// SubmitSigned is Submit for a caller who signs each request with an access key.
func SubmitSigned(ctx context.Context, addr string, key sdkhmac.Key, n int) (perSecond float64, err error) {
	c, err := DialCrowd(ctx, addr, "", Submitters)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	for _, one := range c {
		one.key = key
	}
	return c.Submit(ctx, n)
}
