package load

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"batchreset/tasks/sdkhmac"
)

// Caller is one connection to an api, for one goroutine. It does as little as it can,
// because it shares the machine with what it measures: net/http's client costs more than
// some of the answers.
type Caller struct {
	conn  net.Conn
	in    *bufio.Reader
	token string
	key   sdkhmac.Key // signs, in place of the token, if there is one
	out   []byte
	body  []byte
	etag  []byte
	stop  func() bool
}

// Answer is what came back. Its body and tag are good until the next request.
type Answer struct {
	Status int
	Body   []byte
	ETag   []byte // quoted, as it came
}

// Dial connects to an api, under a token. The connection breaks when ctx ends.
func Dial(ctx context.Context, addr, token string) (*Caller, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &Caller{conn: conn, in: bufio.NewReaderSize(conn, 16<<10), token: token}
	c.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	return c, nil
}

// Close ends the connection.
func (c *Caller) Close() {
	c.stop()
	_ = c.conn.Close()
}

// Do sends a request and reads the answer. header is one line with its end, or empty.
func (c *Caller) Do(method, path, header string, body []byte) (Answer, error) {
	credential := "X-Auth-Token: " + c.token
	if c.key.Access != "" {
		signed, err := c.sign(method, path, body)
		if err != nil {
			return Answer{}, err
		}
		credential = signed
	}
	c.out = fmt.Appendf(c.out[:0], "%s %s HTTP/1.1\r\nHost: bench\r\n%s\r\n%sContent-Length: %d\r\n\r\n", method, path, credential, header, len(body))
	c.out = append(c.out, body...)
	if _, err := c.conn.Write(c.out); err != nil {
		return Answer{}, err
	}
	return c.receive()
}

// sign is what a request says of its caller when it is signed as Huawei's SDKs do.
func (c *Caller) sign(method, path string, body []byte) (string, error) {
	r, err := http.NewRequestWithContext(context.Background(), method, "http://bench"+path, http.NoBody)
	if err != nil {
		return "", err
	}
	if err := sdkhmac.Sign(r, body, c.key, time.Now(), "Host"); err != nil {
		return "", err
	}
	return "X-Sdk-Date: " + r.Header.Get("X-Sdk-Date") + "\r\nAuthorization: " + r.Header.Get("Authorization"), nil
}

var (
	headerLength   = []byte("Content-Length")
	headerEncoding = []byte("Transfer-Encoding")
	headerTag      = []byte("Etag")
)

// receive reads an HTTP/1.1 answer.
func (c *Caller) receive() (a Answer, err error) {
	line, err := c.line()
	if err != nil {
		return a, err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) || len(line) < 12 {
		return a, fmt.Errorf("not an HTTP answer: %q", line)
	}
	if a.Status, err = strconv.Atoi(string(line[9:12])); err != nil {
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
	case a.Status == http.StatusNotModified || a.Status == http.StatusNoContent:
	case chunked:
		err = c.chunks()
	default:
		err = c.read(length)
	}
	a.Body, a.ETag = c.body, c.etag
	return a, err
}

// line reads a line, without its end.
func (c *Caller) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	return bytes.TrimRight(line, "\r\n"), err
}

// read adds n bytes to the body.
func (c *Caller) read(n int) error {
	from := len(c.body)
	c.body = append(c.body, make([]byte, n)...)
	_, err := io.ReadFull(c.in, c.body[from:])
	return err
}

// chunks reads a body whose length was not known when it began.
func (c *Caller) chunks() error {
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
