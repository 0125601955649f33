package client

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// firstLine is how long a stream may take to begin: the server sends the record at
	// once.
	firstLine = 5 * time.Second
	// nextLine is how long it may be silent then. The server says something every 15 s.
	nextLine = 45 * time.Second
	// reconnect is when to come back to a stream that was cut, unless the server says.
	reconnect = 2 * time.Second
)

// stream reads the event stream of a job or run from the record on that etag came with, and
// calls take with each newer one, until the stream ends. heard says whether anything
// came at all, again when to come back. Why a stream ended does not matter: a look at
// the record tells.
func stream[T record](ctx context.Context, c *Client, id, etag string, take func(newer T, etag string)) (heard bool, again time.Duration) {
	again = reconnect
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silence := time.AfterFunc(firstLine, func() {
		cancel()
		c.Close() // the connections that are kept may be dead, too
	})
	defer silence.Stop()

	header := http.Header{"Accept": {"text/event-stream"}}
	if etag != "" {
		header.Set("Last-Event-ID", strings.Trim(etag, `"`))
	}
	var none T
	path, name := none.source(id)
	_, resp, err := c.send(ctx, c.streams, http.MethodGet, path+"/events", header, nil)
	if err != nil {
		return false, again
	}
	defer func() { _ = resp.Body.Close() }()
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "text/event-stream" || resp.StatusCode != http.StatusOK {
		return false, again
	}
	readEvents(resp.Body, func() {
		heard = true
		c.reached.Store(true)
		silence.Reset(nextLine)
	}, func(e event) {
		var newer T
		switch {
		case e.retry > 0:
			again = e.retry
		case e.name == name && json.Unmarshal([]byte(e.data), &newer) == nil && newer.isOf(id):
			take(newer, strconv.Quote(e.id))
		}
	})
	return heard, again
}

// event is one of a stream (WHATWG HTML, 9.2.6), or what it says about coming back.
type event struct {
	id, name, data string
	retry          time.Duration
}

// readEvents calls line with each line, comments too, and then got with each event. One
// that was cut is none.
func readEvents(r io.Reader, line func(), got func(event)) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxAnswer)
	var e event
	for lines.Scan() {
		line()
		field, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "id":
			e.id = value
		case "event":
			e.name = value
		case "data":
			if e.data != "" {
				e.data += "\n"
			}
			e.data += value
		case "retry":
			if ms, err := strconv.Atoi(value); err == nil {
				got(event{retry: max(firstWait, min(time.Duration(ms)*time.Millisecond, time.Minute))})
			}
		}
		if lines.Text() == "" {
			if e.data != "" {
				got(e)
			}
			e = event{}
		}
	}
}
