package main

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// batchSize is how many instances a batch has.
const batchSize = 32

// batches counts batches, so that no two in this process have an instance in common.
var batches atomic.Int64

// nextBatch returns the body of a batch that shares no instance with any other. IDs
// have the length of KooPhone's.
func nextBatch(size int) []byte {
	first := 10_000_000 + int(batches.Add(1)-1)*batchSize
	body := []byte(`{"instance_ids":[`)
	for i := range size {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `"phone-`...)
		body = strconv.AppendInt(body, int64(first+i), 10)
		body = append(body, '"')
	}
	return append(body, "]}"...)
}

// submitters is how many connections submit at the same time.
const submitters = 32

// crowd is a number of connections that submit at the same time.
type crowd []*caller

// dialCrowd connects them.
func dialCrowd(ctx context.Context, addr, token string, n int) (crowd, error) {
	var c crowd
	for range n {
		one, err := dial(ctx, addr, token)
		if err != nil {
			c.close()
			return nil, err
		}
		c = append(c, one)
	}
	return c, nil
}

func (c crowd) close() {
	for _, one := range c {
		one.close()
	}
}

// submit posts n instances in full batches and returns the rate in instances per second.
func (c crowd) submit(ctx context.Context, n int) (perSecond float64, err error) {
	count := (n + batchSize - 1) / batchSize
	var taken atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()
	for _, one := range c {
		g.Go(func() error {
			for taken.Add(1) <= int64(count) {
				if ctx.Err() != nil {
					return errors.New("stopped")
				}
				if _, err := one.submit(nextBatch(batchSize)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return float64(count*batchSize) / time.Since(start).Seconds(), err
}

// submitAll posts n instances to an api, on connections of its own.
func submitAll(ctx context.Context, a *api, token string, n int) (perSecond float64, err error) {
	c, err := dialCrowd(ctx, a.addr, token, submitters)
	if err != nil {
		return 0, err
	}
	defer c.close()
	return c.submit(ctx, n)
}

// fill submits n instances and leaves no api behind.
func (s *stack) fill(ctx context.Context, n int, flags ...string) error {
	a, token, err := s.startTenant(ctx, flags...)
	if err != nil {
		return err
	}
	defer a.Kill()
	_, err = submitAll(ctx, a, token, n)
	return err
}
