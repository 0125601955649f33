package webhook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"batchreset/tasks"
	"batchreset/worker"
)

const (
	// sendTimeout is what a receiver has to answer: the specification says 15 to 30 s.
	sendTimeout = 15 * time.Second
	// maxReply is how much of an answer is read, so that its connection can be used again.
	maxReply = 4096
	// pingAfter is how long an HTTP/2 connection may bring nothing before it is asked
	// whether it lives, and how long it may take to answer that. Together they are less
	// than sendTimeout: a second try must not be sent into a dead connection, too.
	pingAfter = 5 * time.Second
)

// Sender sends notices. It is safe for concurrent use.
type Sender struct {
	client  *http.Client
	agent   string
	now     func() time.Time
	timeout time.Duration
}

// NewSender makes a sender; agent is its User-Agent. now is the time by Redis's clock, which
// says for how long an old secret signs; a receiver does not take what is signed with a time
// that is minutes wrong.
func NewSender(agent string, allowPrivate bool, now func() time.Time) *Sender {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if !allowPrivate {
		dialer.Control = public.Safe
	}
	return &Sender{
		agent:   agent,
		now:     now,
		timeout: sendTimeout,
		client: &http.Client{
			Transport: &http.Transport{
				Proxy:                  nil, // it would be the one to resolve the name
				DialContext:            dialer.DialContext,
				TLSHandshakeTimeout:    10 * time.Second,
				ForceAttemptHTTP2:      true,
				HTTP2:                  &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingAfter},
				MaxIdleConns:           256,
				MaxIdleConnsPerHost:    16,
				IdleConnTimeout:        time.Minute,
				MaxResponseHeaderBytes: 64 << 10,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// Close closes idle connections.
func (s *Sender) Close() { s.client.CloseIdleConnections() }

// newRequest makes a signed request. Every secret of the endpoint signs.
func (s *Sender) newRequest(ctx context.Context, e tasks.Endpoint, eventID string, body []byte) (*http.Request, error) {
	now := s.now()
	var signatures []string
	for _, secret := range e.Secrets(now) {
		signer, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return nil, fmt.Errorf("the endpoint's secret cannot be used: %w", err)
		}
		signature, err := signer.Sign(eventID, now, body)
		if err != nil {
			return nil, err
		}
		signatures = append(signatures, signature)
	}
	r, err := s.newPlain(ctx, e.URL, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set(standardwebhooks.HeaderWebhookID, eventID)
	r.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	return r, nil
}

// newPlain makes a request that nobody signs.
func (s *Sender) newPlain(ctx context.Context, url string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", s.agent)
	return r, nil
}

// Send sends a notice once. It returns within some 15 s, sooner if ctx ends.
func (s *Sender) Send(ctx context.Context, e tasks.Endpoint, eventID string, body []byte) Reply {
	return s.do(ctx, func(ctx context.Context) (*http.Request, error) { return s.newRequest(ctx, e, eventID, body) })
}

// SendPlain is Send without a signature, to who knows by the URL who sends.
func (s *Sender) SendPlain(ctx context.Context, url string, body []byte) Reply {
	return s.do(ctx, func(ctx context.Context) (*http.Request, error) { return s.newPlain(ctx, url, body) })
}

func (s *Sender) do(ctx context.Context, newRequest func(ctx context.Context) (*http.Request, error)) Reply {
	patience := s.timeout
	if until, ok := ctx.Deadline(); ok { // who asks may have less
		patience = min(patience, time.Until(until).Round(time.Millisecond))
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var kept atomic.Bool // from an earlier request
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { kept.Store(c.Reused) }})
	r, err := newRequest(ctx)
	if err != nil {
		return Reply{Err: plain(err)}
	}
	answer, err := s.client.Do(r)
	if err != nil {
		if kept.Load() { // what befell it may have befallen the others
			s.client.CloseIdleConnections()
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %s", patience)
		}
		return Reply{Err: plain(err)}
	}
	// The status is the answer; what is wrong with the rest of it does not matter.
	text, _ := io.ReadAll(io.LimitReader(answer.Body, maxReply))
	_ = answer.Body.Close()
	wait, _ := worker.RetryAfter(answer.Header, time.Now())
	return Reply{Status: answer.StatusCode, RetryAfter: wait, Text: worker.Printable(string(text), maxReply)}
}

// SendTest sends an endpoint an event of the type webhook.test once, as Send does. It changes nothing of the endpoint's
// state.
func (s *Sender) SendTest(ctx context.Context, e tasks.Endpoint) Reply {
	now := s.now()
	body := tasks.NoticeBody("webhook.test", tasks.Time{Time: now}, map[string]string{"tenant": e.Tenant, "endpoint_id": e.ID})
	return s.Send(ctx, e, fmt.Sprintf("%s-test-%d", e.ID, now.UnixMilli()), body)
}

// plain leaves the URL out of an error, which may carry secrets of the receiver.
func plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return errors.New(worker.Printable(err.Error(), tasks.MaxMessage))
}
