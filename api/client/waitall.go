package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	// maxStreams is how many jobs are followed by a stream each. More are asked about by
	// the hundred, every roundWait.
	maxStreams = 8
	roundWait  = 2 * time.Second
	// maxReads bounds the records that are read side by side.
	maxReads = 8
)

// WaitAll follows jobs until all are final or ctx ends, and returns those that do not
// exist. onChange is called with what becomes known, one call at a time: with the
// counts of a job that goes on, and with the whole record, items included, of one that
// is final. It bears with a server that goes away, as Wait does.
func (c *Client) WaitAll(ctx context.Context, ids []string, onChange func(Job)) (missing []string, err error) {
	if len(ids) > maxStreams {
		return c.waitByRounds(ctx, ids, onChange)
	}
	var telling sync.Mutex
	return each(ctx, ids, func(ctx context.Context, id string) error {
		_, err := c.Wait(ctx, id, func(job Job) {
			telling.Lock()
			defer telling.Unlock()
			onChange(job)
		})
		return err
	})
}

func (c *Client) waitByRounds(ctx context.Context, ids []string, onChange func(Job)) (missing []string, err error) {
	known := map[string]Counts{}
	for open := slices.Clone(ids); ; {
		var final []string
		for some := range slices.Chunk(open, maxNamed) {
			var jobs []Job
			var gone []string
			if err := c.outlast(ctx, func() (err error) {
				jobs, gone, err = c.JobsByID(ctx, some...)
				return err
			}); err != nil {
				return missing, err
			}
			missing = append(missing, gone...)
			for _, job := range jobs {
				counts, seen := known[job.ID]
				switch {
				case job.Final():
					final = append(final, job.ID)
				case !seen || counts != job.Counts:
					known[job.ID] = job.Counts
					onChange(job)
				}
			}
		}
		done := map[string]bool{}
		gone, err := c.Read(ctx, final, func(job Job) {
			done[job.ID] = job.Final() // unless it was retried just now
			onChange(job)
		})
		if missing = append(missing, gone...); err != nil {
			return missing, err
		}
		for _, id := range missing {
			done[id] = true
		}
		if open = slices.DeleteFunc(open, func(id string) bool { return done[id] }); len(open) == 0 {
			return missing, nil
		}
		if err := c.sleep(ctx, spread(roundWait)); err != nil {
			return missing, err
		}
	}
}

// Read reads the whole records of jobs, some side by side, and returns those that do
// not exist. read is called with each record, one call at a time.
func (c *Client) Read(ctx context.Context, ids []string, read func(Job)) (missing []string, err error) {
	var telling sync.Mutex
	return each(ctx, ids, func(ctx context.Context, id string) error {
		return c.outlast(ctx, func() error {
			job, err := c.Job(ctx, id)
			if err == nil {
				telling.Lock()
				defer telling.Unlock()
				read(job)
			}
			return err
		})
	})
}

// CancelAll cancels jobs, some side by side, and returns those that do not exist. It bears
// with a service that goes away: to cancel again does no harm. done is called with the
// record of each job that was cancelled, one call at a time, and not with those that had
// ended.
func (c *Client) CancelAll(ctx context.Context, ids []string, done func(Job)) (missing []string, err error) {
	var telling sync.Mutex
	return each(ctx, ids, func(ctx context.Context, id string) error {
		return c.outlast(ctx, func() error {
			job, err := c.Cancel(ctx, id)
			if e, answered := errors.AsType[*Error](err); answered && e.Code == codeEnded {
				return nil
			}
			if err == nil {
				telling.Lock()
				defer telling.Unlock()
				done(job)
			}
			return err
		})
	})
}

// each calls f with each ID, up to maxReads side by side, and returns those that f says
// do not exist. Another error ends it all.
func each(ctx context.Context, ids []string, f func(ctx context.Context, id string) error) (missing []string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex
	var calls sync.WaitGroup
	slots := make(chan struct{}, maxReads)
	for _, id := range ids {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		calls.Go(func() {
			defer func() { <-slots }()
			err := f(ctx, id)
			if e, answered := errors.AsType[*Error](err); answered && e.Code == codeNoJob {
				mu.Lock()
				defer mu.Unlock()
				missing = append(missing, id)
			} else if err != nil {
				cancel(err)
			}
		})
	}
	calls.Wait()
	return missing, context.Cause(ctx)
}
