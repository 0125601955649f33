package client

import (
	"context"
	"time"
)

// Wait looks at a job, as often as the server suggests, until the job is final
// or ctx ends, and returns the last record that it saw. onChange, unless nil, is
// called with the first record and with each one that differs.
//
// A server that has answered this client before may go away for any time: Wait
// asks on, with waits of up to 2 s. Everything else that no waiting can mend, such
// as a job that does not exist, is an error at once.
func (c *Client) Wait(ctx context.Context, id string, onChange func(Job)) (Job, error) {
	var job Job
	var etag string
	var suggested time.Duration
	quiet, failures := 0, 0
	for {
		look, err := c.JobIfChanged(ctx, id, etag)
		if err != nil {
			if ctx.Err() != nil || !c.reached.Load() || !passing(err) {
				return job, err
			}
			failures++
			if interrupted := c.pause(ctx, max(backoff(failures), retryAfter(err)), err); interrupted != nil {
				return job, interrupted
			}
			continue
		}
		failures = 0
		quiet++
		etag = look.ETag
		if look.Changed {
			job, quiet = look.Job, 1
			if onChange != nil {
				onChange(job)
			}
		}
		if job.Final() {
			return job, nil
		}
		if look.RetryAfter > 0 { // a 304 need not repeat it
			suggested = look.RetryAfter
		}
		wait := suggested
		if wait == 0 {
			wait = backoff(quiet)
		}
		if interrupted := c.sleep(ctx, spread(wait)); interrupted != nil {
			return job, interrupted
		}
	}
}
