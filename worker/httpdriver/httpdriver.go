package httpdriver

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"batchreset/worker"
)

// placeholder stands for the instance ID in the URL template.
const placeholder = "{instance_id}"

// Config says how the control plane is reached.
type Config struct {
	// URL is the template of the URL that resets an instance. It contains
	// {instance_id} in its path or query.
	URL string
	// Token is sent as a bearer token, if set.
	Token string
	// Idempotent says that the control plane does calls with the same
	// Idempotency-Key only once, so that a call whose answer was lost may be
	// repeated.
	Idempotent bool
}

// Driver resets instances over HTTP.
type Driver struct {
	cfg    Config
	sender *http.Client // for POST: a connection each, no redirects
	poller *http.Client // for GET: no redirects
	// Delays between polls when the control plane does not ask for one.
	pollFirst, pollLast time.Duration
}

// New returns a driver. Its errors continue a sentence that begins with the name
// of the URL's flag.
func New(cfg Config) (*Driver, error) {
	if err := checkTemplate(cfg.URL); err != nil {
		return nil, err
	}
	if strings.ContainsFunc(cfg.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("the bearer token has characters that a header cannot carry")
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Driver{
		cfg:       cfg,
		sender:    &http.Client{Transport: newSender(&tls.Config{MinVersion: tls.VersionTLS12}), CheckRedirect: stay},
		poller:    &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute}, CheckRedirect: stay},
		pollFirst: time.Second,
		pollLast:  10 * time.Second,
	}, nil
}

func checkTemplate(template string) error {
	if !strings.Contains(template, placeholder) {
		return fmt.Errorf("must contain %s", placeholder)
	}
	// An instance ID may only change the path or the query.
	a, errA := url.Parse(strings.ReplaceAll(template, placeholder, "a"))
	b, errB := url.Parse(strings.ReplaceAll(template, placeholder, "b"))
	switch {
	case errA != nil || errB != nil:
		return errors.New("is not a URL")
	case a.Scheme != "http" && a.Scheme != "https" || a.Host == "":
		return errors.New("must be an absolute URL with http or https")
	case a.User != nil:
		return errors.New("must not contain a user or password; use a bearer token")
	case a.Host != b.Host || a.Path == b.Path && a.RawQuery == b.RawQuery:
		return fmt.Errorf("must have %s in its path or query", placeholder)
	}
	return nil
}

// Repeatable says whether the control plane honours the driver key.
func (d *Driver) Repeatable() bool { return d.cfg.Idempotent }

// Close closes idle connections.
func (d *Driver) Close() { d.poller.CloseIdleConnections() }

// Reset asks the control plane to reset the instance and waits until it has.
func (d *Driver) Reset(ctx context.Context, a worker.Attempt) error {
	target := strings.ReplaceAll(d.cfg.URL, placeholder, url.PathEscape(a.InstanceID))
	if a.Checkpoint != "" {
		return d.resume(ctx, target, a.Checkpoint)
	}
	if a.Ambiguous && !d.cfg.Idempotent {
		return &worker.DriverError{Verdict: worker.Unknown, Message: "an earlier call may have reset the instance, and the control plane cannot be asked"}
	}
	said, err := d.post(ctx, target, a)
	if err != nil {
		return err
	}
	switch {
	case said.status == http.StatusAccepted:
		location := said.header.Get("Operation-Location")
		if location == "" {
			location = said.header.Get("Location")
		}
		if location == "" {
			return &worker.DriverError{Verdict: worker.Unknown, Message: "the control plane accepted the reset and gave no location to follow it"}
		}
		resolved, err := sameOrigin(target, location)
		if err != nil {
			return &worker.DriverError{Verdict: worker.Unknown, Message: "the control plane accepted the reset, but its location " + err.Error()}
		}
		// Without the checkpoint this attempt can still poll; only a later one
		// could not resume.
		saved := a.Save(ctx, resolved) == nil
		return d.poll(ctx, resolved, saved, said.retryAfter)
	case said.status/100 == 2 && said.refused():
		return said.failure(worker.Retryable, "the control plane refused with")
	case said.status/100 == 2:
		return nil
	case said.status == http.StatusConflict:
		return said.failure(worker.Busy, "the control plane says that the instance is busy:")
	case retriable(said.status):
		return said.failure(worker.Retryable, "the control plane answered")
	case said.status/100 == 3:
		return said.failure(worker.Permanent, "the control plane redirects, which is not followed:")
	}
	return said.failure(worker.Permanent, "the control plane refused with")
}

func retriable(status int) bool {
	return status/100 == 5 || slices.Contains([]int{
		http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests,
	}, status)
}

// post sends the reset, once.
func (d *Driver) post(ctx context.Context, target string, a worker.Attempt) (answer, error) {
	body, err := json.Marshal(map[string]any{"instance_id": a.InstanceID, "item_id": a.ItemID, "attempt": a.Number})
	if err != nil {
		return answer{}, err
	}
	s := &send{deadline: a.Deadline}
	// A plain reader: with a body that can be rewound, net/http would send again.
	r, err := http.NewRequestWithContext(context.WithValue(ctx, sendKey{}, s), http.MethodPost, target, io.NopCloser(bytes.NewReader(body)))
	if err != nil {
		return answer{}, &worker.DriverError{Verdict: worker.Permanent, Message: "the instance ID makes no URL"}
	}
	r.ContentLength = int64(len(body))
	d.dress(r)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", a.Key)
	response, err := d.sender.Do(r)
	if err == nil {
		said := readAnswer(response)
		if said.broken == nil || said.status/100 != 2 {
			return said, nil // what was refused was refused, whatever its text
		}
		err = said.broken
	}
	if !s.started.Load() {
		return answer{}, &worker.DriverError{Verdict: worker.Unreachable, Message: "nothing was sent: " + reason(err)}
	}
	return answer{}, &worker.DriverError{
		Verdict: worker.Unknown, Repeatable: d.cfg.Idempotent,
		Message: "the reset was sent and its answer was lost: " + reason(err),
	}
}

// dress sets the headers of every request.
func (d *Driver) dress(r *http.Request) {
	r.Header.Set("User-Agent", "batchreset")
	r.Header.Set("Accept", "application/json")
	if d.cfg.Token != "" {
		r.Header.Set("Authorization", "Bearer "+d.cfg.Token)
	}
}

// reason is an error without the URL that net/http puts in front, which the
// message need not repeat.
func reason(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return printable(err.Error())
}
