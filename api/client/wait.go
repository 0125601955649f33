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
	return follow(ctx, c, id, onChange)
}

func follow[T record](ctx context.Context, c *Client, id string, onChange func(T)) (T, error) {
	var last T
	var etag string
	take := func(newer T, tag string) {
		if tag != "" && tag == etag {
			return
		}
		last, etag = newer, tag
		if onChange != nil {
			onChange(last)
		}
	}
	quiet := 0
	for silent := 0; ; {
		if silent < maxSilent {
			heard, again := stream(ctx, c, id, etag, take)
			if last.Final() {
				return last, nil
			}
			if silent++; heard {
				silent = 0
				if err := c.sleep(ctx, spread(again)); err != nil {
					return last, err
				}
			}
		}

		ask, began := silent >= maxSilent, time.Now()
		var l look[T]
		err := c.outlast(ctx, func() (err error) {
			l, err = lookAt[T](ctx, c, id, etag, ask)
			return err
		})
		if err != nil {
			return last, err
		}
		quiet++
		if l.changed {
			quiet = 1
			take(l.record, l.etag)
		}
		if last.Final() {
			return last, nil
		}
		if ask && time.Since(began) < longPoll { // it did not wait
			wait := l.retryAfter
			if wait == 0 {
				wait = backoff(quiet)
			}
			if err := c.sleep(ctx, spread(wait)); err != nil {
				return last, err
			}
		}
	}
}

// look is what one look at a record shows.
type look[T record] struct {
	changed    bool
	record     T // unless it has not changed
	etag       string
	retryAfter time.Duration
}

// lookAt reads a record unless it is still the one that etag came with. With wait it may take a
// while, if the record is not final.
func lookAt[T record](ctx context.Context, c *Client, id, etag string, wait bool) (l look[T], err error) {
	header := http.Header{}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	if wait {
		header.Set("Prefer", fmt.Sprintf("wait=%d", longPoll/time.Second))
	}
	path, _ := l.record.source(id)
	a, err := c.get(ctx, path, header)
	if err != nil {
		return l, err
	}
	l.etag, l.retryAfter = a.header.Get("ETag"), parseRetryAfter(a.header)
	if a.status == http.StatusNotModified && etag != "" {
		return l, nil
	}
	l.changed = true
	l.record, err = recordOf[T](a)
	return l, err
}
