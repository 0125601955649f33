package api

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

const (
	// heartbeat keeps proxies from cutting a quiet stream off.
	heartbeat = 15 * time.Second
	// sendTimeout is how long a reader may take to make room for an event.
	sendTimeout = 10 * time.Second
	// reconnect is when a reader whose stream broke should come back.
	reconnect = 2 * time.Second
)

// events streams the record of a job as Server-Sent Events (WHATWG HTML, 9.2): as it
// is, then after each change, until the final one. What a slow reader has not read yet
// is not queued for it: it gets the newest record next.
func (s *server) events(c echo.Context) error {
	version, err := s.find(c, s.store.Version)
	if err != nil {
		return err
	}
	watch := s.watchers.add(version.ID, streamInterval)
	defer s.watchers.remove(watch)
	record, err := s.record(c, version)
	if err != nil {
		return err
	}
	last := c.Request().Header.Get("Last-Event-ID")
	if record.final && record.tag == last {
		return c.NoContent(http.StatusNoContent) // tells a browser not to come again
	}
	unhurried(c)
	stream := newEventStream(c)
	defer stream.close()
	if err := stream.send("retry: %d\n\n", reconnect.Milliseconds()); err != nil {
		return s.cutOff(c, err)
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		if record.tag != last {
			if err := stream.send("id: %s\nevent: job\ndata: %s\n\n", record.tag, record.data()); err != nil {
				return s.cutOff(c, err)
			}
			last = record.tag
		}
		if record.final {
			return nil
		}
		select {
		case <-watch.changed:
			switch _, changed, err := s.again(c); {
			case err == nil:
				record = changed
			case tasks.CodeOf(err) == tasks.NoJob:
				return nil
			default: // Redis is away; the next look tells
				s.log.Debug("stream waits", "request_id", requestID(c), "error", err)
			}
		case <-beat.C:
			if err := stream.send(":\n\n"); err != nil {
				return s.cutOff(c, err)
			}
		case <-caller(c).Done():
			return nil
		case <-s.watchers.stopped:
			return nil // the reader finds another process
		}
	}
}

// cutOff says why a stream ends before its job.
func (s *server) cutOff(c echo.Context, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.log.Warn("stream cut off: its reader does not read", "request_id", requestID(c), "waited", sendTimeout)
	}
	return nil
}

// eventStream writes to a reader who may be slow.
type eventStream struct {
	echo.Context
	control *http.ResponseController
}

func newEventStream(c echo.Context) eventStream {
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, "text/event-stream")
	h.Set(echo.HeaderCacheControl, "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would keep events back
	c.Response().WriteHeader(http.StatusOK)
	return eventStream{c, http.NewResponseController(c.Response())}
}

func (e eventStream) send(format string, args ...any) error {
	// The server's own limit is for whole answers. Not every writer has deadlines.
	if err := e.control.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := fmt.Fprintf(e.Response(), format, args...); err != nil {
		return err
	}
	return e.control.Flush()
}

// close gives the end of the answer time to be sent.
func (e eventStream) close() { _ = e.control.SetWriteDeadline(time.Now().Add(sendTimeout)) }
