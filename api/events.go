package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

const (
	// heartbeat keeps proxies from cutting a quiet stream off.
	heartbeat = 15 * time.Second
	// sendTimeout is how long a reader may take to make room for an event.
	sendTimeout = 10 * time.Second
	// reconnect is when a reader whose stream broke should connect again, on average. It is
	// random, so that the readers of a process that stops do not all return at once.
	reconnect = 2 * time.Second
)

// events streams the record of a job or run as Server-Sent Events (WHATWG HTML, 9.2): as it
// is, then after each change, until the final one. What a slow reader has not read yet
// is not queued for it: it gets the newest record next.
func (s *server) events(of *subject) echo.HandlerFunc {
	return func(c echo.Context) error {
		watch, err := s.watch(c, of, stream)
		if err != nil {
			return err
		}
		defer s.watchers.remove(watch)
		record, err := of.read(c.Request().Context(), watch.id) // the watch has begun: later changes are not missed
		if err != nil {
			return err
		}
		last := c.Request().Header.Get("Last-Event-ID")
		if record.final && record.tag == last {
			return c.NoContent(http.StatusNoContent) // tells a browser not to come again
		}
		out := newEventStream(c, of.name, s.sendTimeout)
		defer out.close()
		if err := s.stream(c, out, watch, record, last); errors.Is(err, os.ErrDeadlineExceeded) {
			s.cutOff(c)
		}
		return nil
	}
}

// stream sends the record and its changes until the stream ends, and says why it ends.
func (s *server) stream(c echo.Context, out *eventStream, watch *watch, record *encodedRecord, last string) error {
	if err := out.greet(); err != nil {
		return err
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		if record.tag != last {
			if err := out.event(record); err != nil {
				return err
			}
			last = record.tag
		}
		if record.final {
			return nil
		}
		select {
		case <-watch.changed:
			changed, err := s.reread(watch)
			switch tasks.CodeOf(err) {
			case tasks.OK:
				record = changed
			case tasks.NoJob:
				return out.send(": the record has expired", nil)
			case tasks.BadToken, tasks.TokenExpired, tasks.Forbidden:
				return out.refuse(err)
			default: // Redis is away
				s.watchers.tellAgain(watch)
			}
		case <-beat.C:
			if err := out.send(":", nil); err != nil {
				return err
			}
		case <-caller(c).Done():
			return nil
		case <-s.watchers.stopped:
			return out.send(": this process stops, another one goes on", nil)
		}
	}
}

// cutOff logs that a reader did not read. The reader cannot be told: the stream is full, and
// breaks off in the middle of an event.
func (s *server) cutOff(c echo.Context) {
	s.metrics.cutOff.Inc()
	s.log.Warn("stream cut off: its reader does not read", "request_id", requestID(c), "tenant", tenant(c), "waited", s.sendTimeout)
}

// eventStream writes to a reader who may be slow.
type eventStream struct {
	echo.Context
	name    string // of its events
	control *http.ResponseController
	timeout time.Duration
}

func newEventStream(c echo.Context, name string, timeout time.Duration) *eventStream {
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would keep events back
	c.Response().WriteHeader(http.StatusOK)
	return &eventStream{c, name, http.NewResponseController(c.Response()), timeout}
}

// greet says when to come back if the stream breaks.
func (e *eventStream) greet() error {
	ms := (reconnect/2 + rand.N(reconnect)).Milliseconds()
	return e.send("retry: "+strconv.FormatInt(ms, 10), nil)
}

func (e *eventStream) event(record *encodedRecord) error {
	return e.send("id: "+record.tag+"\nevent: "+e.name+"\ndata: ", record.data())
}

// refuse sends the last event of a stream whose token has ended: the error that a new request
// would get. A browser connects once more, gets that error, and stops.
func (e *eventStream) refuse(err error) error {
	_, refusal := answerTo(err)
	e.Set(codeKey, refusal.Code)
	text, err := json.Marshal(envelope{Code: refusal.Code, Message: refusal.Message})
	if err != nil {
		return err
	}
	return e.send("event: error\ndata: ", text)
}

// send sends a block of lines that ends with data.
func (e *eventStream) send(lines string, data []byte) error {
	return writeWithin(e.control, e.timeout, func() error {
		for _, part := range [][]byte{[]byte(lines), data, []byte("\n\n")} {
			if _, err := e.Response().Write(part); err != nil {
				return err
			}
		}
		return e.control.Flush()
	})
}

// writeWithin gives write some time, in place of the server's limit, which is for whole answers. Afterwards there is no
// limit: HTTP/2 ends a stream whose time is over also while nothing is written. Who has written all sets it once more.
// Errors: those of write, as os.ErrDeadlineExceeded if the time was over.
func writeWithin(control *http.ResponseController, timeout time.Duration, write func() error) error {
	end := time.Now().Add(timeout)
	if err := setWriteDeadline(control, end); err != nil {
		return err
	}
	if err := write(); err != nil {
		if !time.Now().Before(end) && !errors.Is(err, os.ErrDeadlineExceeded) { // HTTP/2 says that the stream is closed
			err = fmt.Errorf("%w: %w", os.ErrDeadlineExceeded, err)
		}
		return err
	}
	return setWriteDeadline(control, time.Time{})
}

// setWriteDeadline sets it where there are deadlines: not every writer has them.
func setWriteDeadline(control *http.ResponseController, end time.Time) error {
	if err := control.SetWriteDeadline(end); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// close gives the end of the answer time to be sent.
func (e *eventStream) close() { _ = setWriteDeadline(e.control, time.Now().Add(e.timeout)) }

// ticketParameter is the query parameter of a ticket: in a browser, an EventSource can send
// no header. Queries are neither logged nor traced here.
const ticketParameter = "ticket"

// ticket gives whoever may read a job or run a ticket for its events.
func (s *server) ticket(of *subject) echo.HandlerFunc {
	return func(c echo.Context) error {
		id, err := of.find(c)
		if err != nil {
			return err
		}
		ticket, err := s.store.NewTicket(c.Request().Context(), tokenOf(c), id)
		if err != nil {
			return err
		}
		return ok(c, ticket)
	}
}

// tokenOfTicket is the token with which the ticket of a request was made. The request may do what
// that token allows.
func (s *server) tokenOfTicket(c echo.Context) (tasks.Token, error) {
	if c.Request().Header.Get("X-Auth-Token") != "" { // of which tenant?
		return tasks.Token{}, tasks.Errorf(tasks.BadToken, "the request has a ticket and an X-Auth-Token; send only one of them")
	}
	return s.store.TicketToken(c.Request().Context(), c.QueryParam(ticketParameter), cmp.Or(c.Param("job"), c.Param("run")))
}
