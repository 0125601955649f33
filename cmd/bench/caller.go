package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"batchreset/cmd/harness"
	"batchreset/tasks"
)

// caller is one connection to an api, for one goroutine. It does as little as it can,
// because it shares the machine with what it measures: net/http's client costs more than
// some of the answers.
type caller struct {
	conn  net.Conn
	in    *bufio.Reader
	token string
	out   []byte
	body  []byte
	etag  []byte
	stop  func() bool
}

// answer is what came back. Its body and tag are good until the next request.
type answer struct {
	status int
	body   []byte
	etag   []byte // quoted, as it came
}

// dial connects to an api, under a token. The connection breaks when ctx ends.
func dial(ctx context.Context, addr, token string) (*caller, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &caller{conn: conn, in: bufio.NewReaderSize(conn, 16<<10), token: token}
	c.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	return c, nil
}

func (c *caller) close() {
	c.stop()
	_ = c.conn.Close()
}

// do sends a request and reads the answer. header is one line, or empty.
func (c *caller) do(method, path, header string, body []byte) (answer, error) {
	c.out = fmt.Appendf(c.out[:0], "%s %s HTTP/1.1\r\nHost: bench\r\nX-Auth-Token: %s\r\n%sContent-Length: %d\r\n\r\n", method, path, c.token, header, len(body))
	c.out = append(c.out, body...)
	if _, err := c.conn.Write(c.out); err != nil {
		return answer{}, err
	}
	return c.receive()
}

var (
	headerLength   = []byte("Content-Length")
	headerEncoding = []byte("Transfer-Encoding")
	headerTag      = []byte("Etag")
)

// receive reads an HTTP/1.1 answer.
func (c *caller) receive() (a answer, err error) {
	line, err := c.line()
	if err != nil {
		return a, err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) || len(line) < 12 {
		return a, fmt.Errorf("not an HTTP answer: %q", line)
	}
	if a.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return a, err
	}
	length, chunked := 0, false
	c.etag = c.etag[:0]
	for {
		if line, err = c.line(); err != nil {
			return a, err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case bytes.EqualFold(name, headerLength):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return a, err
			}
		case bytes.EqualFold(name, headerEncoding):
			chunked = true
		case bytes.EqualFold(name, headerTag):
			c.etag = append(c.etag, value...)
		}
	}
	c.body = c.body[:0]
	switch {
	case a.status == http.StatusNotModified || a.status == http.StatusNoContent:
	case chunked:
		err = c.chunks()
	default:
		err = c.read(length)
	}
	a.body, a.etag = c.body, c.etag
	return a, err
}

// line reads a line, without its end.
func (c *caller) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	return bytes.TrimRight(line, "\r\n"), err
}

// read adds n bytes to the body.
func (c *caller) read(n int) error {
	from := len(c.body)
	c.body = append(c.body, make([]byte, n)...)
	_, err := io.ReadFull(c.in, c.body[from:])
	return err
}

// chunks reads a body whose length was not known when it began.
func (c *caller) chunks() error {
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil {
			return err
		}
		if err := c.read(int(n)); err != nil {
			return err
		}
		if _, err := c.line(); err != nil { // the end of the chunk, or of the trailers: there are none
			return err
		}
		if n == 0 {
			return nil
		}
	}
}

// submit posts a batch and returns the job's ID.
func (c *caller) submit(body []byte) (job string, err error) {
	a, err := c.do(http.MethodPost, "/v1/instances/batch-reset", "", body)
	if err != nil {
		return "", err
	}
	_, after, found := bytes.Cut(a.body, []byte(`"task_id":"`))
	if a.status != http.StatusOK || !found || len(after) < jobIDLength {
		return "", fmt.Errorf("submit: the api answers %d %.200s", a.status, a.body)
	}
	return string(after[:jobIDLength]), nil
}

const jobIDLength = 32

// errSlow says that a job was not final within the time given.
var errSlow = errors.New("the job is not final yet")

// await polls a job until it is final, at most for limit, and expects that it succeeded.
// Polls that find nothing new cost the api little.
func (c *caller) await(ctx context.Context, job string, limit time.Duration) error {
	path, header := "/v1/jobs/"+job, ""
	for begin := time.Now(); ; {
		a, err := c.do(http.MethodGet, path, header, nil)
		if err != nil {
			return err
		}
		if a.status != http.StatusNotModified {
			var record struct {
				Data struct {
					State tasks.JobState `json:"state"`
				} `json:"data"`
			}
			if err := json.Unmarshal(a.body, &record); a.status != http.StatusOK || err != nil {
				return fmt.Errorf("status of a job: the api answers %d %.200s", a.status, a.body)
			}
			switch state := record.Data.State; {
			case state == tasks.JobSucceeded:
				return nil
			case state.Final():
				return fmt.Errorf("job %s ended as %s", job, state)
			}
			header = "If-None-Match: " + string(a.etag) + "\r\n"
		}
		if time.Since(begin) > limit {
			return errSlow
		}
		if !harness.Pause(ctx, time.Millisecond) {
			return ctx.Err()
		}
	}
}
