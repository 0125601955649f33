package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	codeOK      = "0"
	codeNoRoute = "APIGW.0101"
	codeNoJob   = "RESET.0001"
	// codeEnded says of a job that there is nothing to cancel or to retry.
	codeEnded = "RESET.0003"

	requestTimeout = 30 * time.Second
	maxAnswer      = 8 << 20 // far above a record of 100 items with the longest messages
	maxConnections = 32      // to one server, however many jobs are watched
	// pingAfter is how long an HTTP/2 connection may bring nothing before it is asked
	// whether it lives, and how long it may take to answer that.
	pingAfter = 15 * time.Second

	maxTries    = 4           // of reading from a server that does not answer, or with a 5xx
	patience    = time.Minute // for all waits of one call together
	firstWait   = 200 * time.Millisecond
	longestWait = 2 * time.Second
)

// Client calls one server with one token. It is safe for concurrent use.
type Client struct {
	server  string // without a slash at the end
	shown   string // the same, without a password
	token   string
	http    *http.Client
	streams *http.Client // for answers that take as long as a job
	// certified: it shows a certificate
	certified bool
	onRetry   func(err error, wait time.Duration)
	sleep     func(ctx context.Context, d time.Duration) error

	// reached tells an outage of the server from an address where there is none.
	reached atomic.Bool
}

// Option changes a Client.
type Option func(*Client)

// OnRetry has f called, possibly by several goroutines at once, before the
// client waits to repeat a request that failed with err.
func OnRetry(f func(err error, wait time.Duration)) Option {
	return func(c *Client) { c.onRetry = f }
}

// TLS has the client trust the authorities and show the certificate of a configuration. With a certificate it
// needs no token, if the server knows whose it is.
func TLS(config *tls.Config) Option {
	return func(c *Client) {
		c.certified = len(config.Certificates) > 0
		for _, through := range []*http.Client{c.http, c.streams} {
			through.Transport.(*http.Transport).TLSClientConfig = config.Clone()
		}
	}
}

// New returns a client for the server at an http or https URL. Nothing is sent
// yet.
func New(server, token string, options ...Option) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("server %.200q is not a URL such as http://127.0.0.1:8080", server)
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("server %.200q has a query or a fragment", u.Redacted())
	}
	if strings.IndexFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return nil, errors.New("token has spaces or other characters that no token has")
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = maxConnections
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter}
	bounded := transport.Clone()
	bounded.MaxConnsPerHost = maxConnections // streams, which stay, must not use these up
	// A redirect would carry the token, and maybe the batch, to somewhere that nobody
	// named.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c := &Client{
		server:  strings.TrimRight(u.String(), "/"),
		shown:   strings.TrimRight(u.Redacted(), "/"),
		token:   token,
		http:    &http.Client{Transport: bounded, Timeout: requestTimeout, CheckRedirect: stay},
		streams: &http.Client{Transport: transport, CheckRedirect: stay},
		onRetry: func(error, time.Duration) {},
		sleep:   sleep,
	}
	for _, option := range options {
		option(c)
	}
	if token == "" && !c.certified {
		return nil, errors.New("token is empty")
	}
	return c, nil
}

// Server is the URL of the server, without a password.
func (c *Client) Server() string { return c.shown }

// Close closes the connections that are kept for further requests.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	c.streams.CloseIdleConnections()
}

// answer is what came back for one request.
type answer struct {
	url       string
	requestID string
	status    int
	header    http.Header
	data      json.RawMessage // of the envelope, or the whole body if that is signed; none with a 304
}

// unusable is the error for an answer that is not what the contract says. It
// ends the sentence "the server answered 200 with".
func (a answer) unusable(format string, args ...any) *Error {
	message := fmt.Sprintf("%s answered %d %s with ", a.url, a.status, http.StatusText(a.status)) + fmt.Sprintf(format, args...)
	return a.failure("", message)
}

func (a answer) failure(code, message string) *Error {
	return &Error{
		HTTPStatus: a.status, Code: printable(code), Message: printable(message),
		RequestID: a.requestID, RetryAfter: parseRetryAfter(a.header),
	}
}

// decode reads the data into v.
func (a answer) decode(v any) error {
	if err := json.Unmarshal(a.data, v); err != nil {
		return a.unusable("data that cannot be read: %v", err)
	}
	return nil
}

// get reads, and repeats where that can help.
func (c *Client) get(ctx context.Context, path string, header http.Header) (answer, error) {
	return c.retry(ctx,
		func() (answer, error) { return c.try(ctx, http.MethodGet, path, header, nil) },
		func(tries int, waited time.Duration, err error) bool {
			e, answered := errors.AsType[*Error](err)
			switch {
			case waited > patience:
				return false
			case answered && e.HTTPStatus == http.StatusTooManyRequests:
				return true
			case answered && e.HTTPStatus < http.StatusInternalServerError:
				return false
			default:
				return tries < maxTries
			}
		})
}

// retry calls try until it succeeds, or again says no. again is told how often it was
// tried, and how long the waits would be with the next one.
func (c *Client) retry(ctx context.Context, try func() (answer, error), again func(tries int, waited time.Duration, err error) bool) (answer, error) {
	var waited time.Duration
	for tries := 1; ; tries++ {
		a, err := try()
		if err == nil || ctx.Err() != nil {
			return a, err
		}
		wait := max(backoff(tries), retryAfter(err))
		if waited += wait; !again(tries, waited, err) {
			return a, err
		}
		if interrupted := c.pause(ctx, wait, err); interrupted != nil {
			return a, fmt.Errorf("%w; not tried again: %w", err, interrupted)
		}
	}
}

// outlast asks until there is an answer of the service. One that has answered this
// client before may go away for any time; what no waiting can repair is an error at once.
func (c *Client) outlast(ctx context.Context, ask func() error) error {
	for failures := 1; ; failures++ {
		err := ask()
		if err == nil || ctx.Err() != nil || !c.reached.Load() || !passing(err) {
			return err
		}
		if interrupted := c.pause(ctx, max(backoff(failures), retryAfter(err)), err); interrupted != nil {
			return interrupted
		}
	}
}

// pause waits at least d before a request that failed with err is repeated.
func (c *Client) pause(ctx context.Context, d time.Duration, err error) error {
	c.onRetry(err, d)
	return c.sleep(ctx, spread(d))
}

// backoff is the wait after the nth (from 1) time in vain.
func backoff(n int) time.Duration {
	return min(longestWait, firstWait<<min(n-1, 10))
}

// spread makes a wait up to a quarter longer, so that callers who were turned
// away together do not come back together.
func spread(d time.Duration) time.Duration { return d + mathrand.N(d/4+1) }

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// envelope is the shape of every answer.
type envelope struct {
	Code    string          `json:"error_code"`
	Message string          `json:"error_msg"`
	Data    json.RawMessage `json:"data"`
}

// try sends one request. Its error is an [*Error] if the server answered, and
// any other if no whole answer came.
func (c *Client) try(ctx context.Context, method, path string, header http.Header, body []byte) (answer, error) {
	a, resp, err := c.send(ctx, c.http, method, path, header, body)
	if err != nil {
		return a, err
	}
	defer func() { _ = resp.Body.Close() }()
	return c.read(a, resp.Body)
}

// read reads the rest of an answer that comes as a whole.
func (c *Client) read(a answer, body io.Reader) (answer, error) {
	raw, err := io.ReadAll(io.LimitReader(body, maxAnswer+1))
	if err != nil {
		c.Close()
		return answer{}, fmt.Errorf("%w from %s that is whole: %w", ErrNoAnswer, c.shown, err)
	}
	if a.status == http.StatusNotModified {
		return a, nil
	}
	if len(raw) > maxAnswer {
		return answer{}, a.unusable("more than %d bytes", maxAnswer)
	}
	if a.signed() {
		c.reached.Store(true)
		a.data = raw
		return a, nil
	}
	var e envelope
	switch {
	case a.status >= 300 && a.status < 400:
		return answer{}, a.unusable("a redirect to %q; if that is the right server, name it", a.header.Get("Location"))
	case len(raw) == 0:
		return answer{}, a.unusable("nothing, which the service never does")
	case json.Unmarshal(raw, &e) != nil || e.Code == "":
		return answer{}, a.unusable("something that the service does not say: %.120q", raw)
	}
	if a.status < http.StatusInternalServerError {
		c.reached.Store(true)
	}
	if e.Code != codeOK || a.status >= 300 {
		if e.Code == codeNoRoute { // the URL of the server may have a path too many
			e.Message += " at " + a.url
		}
		return answer{}, a.failure(e.Code, e.Message)
	}
	a.data = e.Data
	return a, nil
}

// send sends one request and returns the head of its answer. Whoever calls it closes
// the body.
func (c *Client) send(ctx context.Context, through *http.Client, method, path string, header http.Header, body []byte) (answer, *http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.server+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, nil, err
	}
	if header != nil {
		req.Header = header.Clone()
	}
	id := rand.Text()
	if c.token != "" {
		req.Header.Set("X-Auth-Token", c.token)
	}
	req.Header.Set("X-Request-Id", id)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := through.Do(req)
	if err != nil {
		c.Close() // what befell this connection may have befallen those that are kept
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err // without the URL, which shown says better
		}
		return answer{}, nil, fmt.Errorf("%w from %s: %w", ErrNoAnswer, c.shown, err)
	}
	a := answer{url: c.shown + path, requestID: id, status: resp.StatusCode, header: resp.Header}
	if echoed := resp.Header.Get("X-Request-Id"); echoed != "" {
		a.requestID = printable(echoed)
	}
	return a, resp, nil
}

// parseRetryAfter reads a Retry-After header in either form, a time by the clock of who sent
// it; 0 if there is none.
func parseRetryAfter(header http.Header) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(max(0, min(seconds, 24*60*60))) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	now := time.Now()
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	return max(0, min(at.Sub(now), 24*time.Hour))
}
