package client

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

const (
	// longPoll is how long the server may keep a request, where there is no stream.
	longPoll = 10 * time.Second
	// maxSilent is how many streams in a row may bring nothing at all before they are
	// given up: something on the way keeps them back.
	maxSilent = 2
)

// Wait follows a job until it is final or ctx ends, and returns the last record that it
// saw. onChange, unless nil, is called with the first record and with each one that
// differs; changes that come close together are one.
//
// It reads the job's event stream, goes on where a stream was cut, and asks instead,
// with Prefer: wait, where no stream comes through. A server that has answered this
// client before may go away for any time. Everything else that no waiting can repair, such
// as a job that does not exist, is an error at once.
func (c *Client) Wait(ctx context.Context, id string, onChange func(Job)) (Job, error) {
	var job Job
	var etag string
	take := func(newer Job, tag string) {
		if tag != "" && tag == etag {
			return
		}
		job, etag = newer, tag
		if onChange != nil {
			onChange(job)
		}
	}
	quiet := 0
	for silent := 0; ; {
		if silent < maxSilent {
			heard, again := c.stream(ctx, id, etag, take)
			if job.Final() {
				return job, nil
			}
			if silent++; heard {
				silent = 0
				if err := c.sleep(ctx, spread(again)); err != nil {
					return job, err
				}
			}
		}

		ask, began := silent >= maxSilent, time.Now()
		var l look
		err := c.outlast(ctx, func() (err error) {
			l, err = c.look(ctx, id, etag, ask)
			return err
		})
		if err != nil {
			return job, err
		}
		quiet++
		if l.changed {
			quiet = 1
			take(l.job, l.etag)
		}
		if job.Final() {
			return job, nil
		}
		if ask && time.Since(began) < longPoll { // it did not wait
			wait := l.retryAfter
			if wait == 0 {
				wait = backoff(quiet)
			}
			if err := c.sleep(ctx, spread(wait)); err != nil {
				return job, err
			}
		}
	}
}

// look is what one look at a job shows.
type look struct {
	changed    bool
	job        Job // unless it has not changed
	etag       string
	retryAfter time.Duration
}

// look reads a job's record unless it is still the one that etag came with. With wait it
// may take a while, if the job is not final.
func (c *Client) look(ctx context.Context, id, etag string, wait bool) (look, error) {
	header := http.Header{}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	if wait {
		header.Set("Prefer", fmt.Sprintf("wait=%d", longPoll/time.Second))
	}
	a, err := c.get(ctx, jobPath(id), header)
	if err != nil {
		return look{}, err
	}
	l := look{etag: a.header.Get("ETag"), retryAfter: parseRetryAfter(a.header)}
	if a.status == http.StatusNotModified && etag != "" {
		return l, nil
	}
	l.changed = true
	l.job, err = a.job()
	return l, err
}
