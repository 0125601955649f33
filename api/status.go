package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// A goroutine that waits keeps its stack, and there may be 20,000 of them: what a request
// does before and after is in functions of its own, so that little of it stays (row waiters
// of the benchmark).

// noRoom is when a caller for whom there is no room to wait should ask again.
const noRoom = 10 * time.Second

// status answers the record of a job or run, or 304 to a caller who has it already. A caller
// who prefers to wait has the answer when the record is final, or when the time is over.
func (s *server) status(of *subject) echo.HandlerFunc {
	return func(c echo.Context) error {
		d, prefers := preferredWait(c.Request().Header.Values("Prefer"))
		if !prefers {
			return of.now(c)
		}
		watch, err := s.watch(c, of, poll)
		if tasks.CodeOf(err) == tasks.TooManyRequests {
			return of.now(c) // a server may ignore a preference
		}
		if err != nil {
			return err
		}
		defer s.watchers.remove(watch)
		record, err := s.await(c, watch, d)
		if err != nil {
			return err
		}
		c.Response().Header().Set("Preference-Applied", "wait="+strconv.Itoa(int(d/time.Second)))
		return s.answer(c, record)
	}
}

// jobRecords are those of jobs.
type jobRecords struct{ s *server }

func (j jobRecords) announced(ctx context.Context, heard func(id string)) error {
	return j.s.store.Finished(ctx, heard)
}

func (j jobRecords) tags(ctx context.Context, ids []string) (map[string]string, error) {
	return j.s.store.Tags(ctx, ids)
}

func (j jobRecords) find(c echo.Context) (string, error) {
	version, err := j.s.find(c, j.s.store.Version)
	return version.ID, err
}

func (j jobRecords) now(c echo.Context) error {
	s := j.s
	version, err := s.find(c, s.store.Version)
	if err != nil {
		return err
	}
	if _, ready := s.encoded.get(version); !ready && holds(c, version.Tag()) {
		c.Response().Header().Set("ETag", strconv.Quote(version.Tag()))
		return c.NoContent(http.StatusNotModified) // for which the record need not be read
	}
	record, err := s.record(c.Request().Context(), version)
	if err != nil {
		return err
	}
	return s.answer(c, record)
}

// answer sends a record, unless the caller holds it.
func (s *server) answer(c echo.Context, record *encodedRecord) error {
	c.Response().Header().Set("ETag", strconv.Quote(record.tag))
	if !record.final {
		setRetryAfter(c.Response().Header(), record.pace.retryAfter(s.store.Now()))
	}
	if holds(c, record.tag) {
		return c.NoContent(http.StatusNotModified)
	}
	return c.JSONBlob(http.StatusOK, record.body)
}

// holds reports whether an If-None-Match header names the tag. GET compares weakly
// (RFC 9110, 13.1.2).
func holds(c echo.Context, tag string) bool {
	header := c.Request().Header.Get("If-None-Match")
	return header != "" && slices.ContainsFunc(strings.Split(header, ","), func(candidate string) bool {
		candidate = strings.TrimPrefix(strings.TrimSpace(candidate), "W/")
		return candidate == "*" || candidate == strconv.Quote(tag)
	})
}

// watch begins a watch of the record of the path.
func (s *server) watch(c echo.Context, of *subject, kind kind) (*watch, error) {
	id, err := of.find(c)
	if err != nil {
		return nil, err
	}
	watch, ok := s.watchers.add(tokenOf(c), target{of, id, kind})
	if !ok {
		s.metrics.refused.Inc()
		return nil, &tasks.Error{Code: tasks.TooManyRequests, Message: "the tenant's share of the requests that may wait here is used up; poll instead", RetryAfter: noRoom}
	}
	c.Set(waitedKey, true)
	unhurried(c)
	return watch, nil
}

// unhurried removes the server's read timeout from a request that was read completely: the
// timeout would end the waiting.
func unhurried(c echo.Context) {
	_ = http.NewResponseController(c.Response()).SetReadDeadline(time.Time{}) // not every writer has one
}

// await returns a record when it is final, when d is over, or when the process stops.
func (s *server) await(c echo.Context, watch *watch, d time.Duration) (*encodedRecord, error) {
	over := time.NewTimer(d)
	defer over.Stop()
	record, err := watch.subject.read(c.Request().Context(), watch.id) // the watch has begun: later changes are not missed
	for err == nil && !record.final {
		select {
		case <-watch.changed:
			record, err = s.reread(watch)
		case <-over.C:
			return record, nil
		case <-s.watchers.stopped:
			return record, nil
		case <-caller(c).Done():
			return record, caller(c).Err()
		}
	}
	return record, err
}

// reread returns a record after its watch was woken. Tenant and token are already checked.
func (s *server) reread(watch *watch) (*encodedRecord, error) {
	turn, err := s.watchers.told(watch)
	if err != nil {
		return nil, err
	}
	return watch.subject.reread(watch.id, turn)
}

func (j jobRecords) read(ctx context.Context, id string) (*encodedRecord, error) {
	version, err := j.s.store.Version(ctx, id)
	if errors.Is(err, tasks.JobGone) {
		return nil, noJob(id)
	}
	if err != nil {
		return nil, err
	}
	return j.s.record(ctx, version)
}

// reread asks Redis once for all watches that were woken in a turn.
func (j jobRecords) reread(id string, turn int64) (*encodedRecord, error) {
	return j.s.shared(fmt.Sprintf("%s told %d", id, turn), id, func() (*encodedRecord, error) {
		ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
		defer cancel()
		return j.read(ctx, id)
	})
}

// record is the encoded record of a version. If it is not in the cache, one of those who ask for
// it at the same time reads it.
func (s *server) record(ctx context.Context, version tasks.Job) (*encodedRecord, error) {
	if record, ready := s.encoded.get(version); ready {
		return record, nil
	}
	return s.shared(version.ID+" "+version.Tag(), version.ID, func() (*encodedRecord, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
		defer cancel()
		job, err := s.store.Job(ctx, version.ID)
		if err != nil {
			return nil, err
		}
		return s.encoded.put(job)
	})
}

// shared calls read once for all who come with the same key at the same time.
func (s *server) shared(key, job string, read func() (*encodedRecord, error)) (*encodedRecord, error) {
	answer, err, _ := s.reads.Do(key, func() (any, error) { return read() })
	if errors.Is(err, tasks.JobGone) {
		return nil, noJob(job)
	}
	record, _ := answer.(*encodedRecord)
	return record, err
}
