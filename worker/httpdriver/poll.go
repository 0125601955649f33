package httpdriver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"batchreset/worker"
)

// sameOrigin resolves a location against the URL that it came from, and refuses
// another host: the bearer token is not for everyone.
func sameOrigin(target, location string) (string, error) {
	base, err := url.Parse(target)
	if err != nil {
		return "", err
	}
	u, err := base.Parse(location)
	if err != nil {
		return "", errors.New("is not a URL")
	}
	if u.Scheme != base.Scheme || u.Host != base.Host {
		return "", fmt.Errorf("leads to another host, %q", printable(u.Host))
	}
	u.Fragment = ""
	return u.String(), nil
}

// resume follows a reset that an earlier attempt had accepted.
func (d *Driver) resume(ctx context.Context, target, location string) error {
	// A checkpoint from before a change of the template may lead elsewhere.
	if _, err := sameOrigin(target, location); err != nil {
		return &worker.DriverError{Verdict: worker.Unknown, Message: "the location of the accepted reset " + err.Error()}
	}
	return d.poll(ctx, location, true, time.Nanosecond)
}

// poll follows a reset that was accepted, beginning after delay; 0 is the default
// delay. resumable says that a later attempt can go on from here.
func (d *Driver) poll(ctx context.Context, location string, resumable bool, delay time.Duration) error {
	usual := d.pollFirst
	for {
		if delay == 0 {
			delay = usual
			usual = min(usual*3/2, d.pollLast)
		}
		select {
		case <-ctx.Done():
			return &worker.DriverError{
				Verdict: worker.Unknown, Repeatable: resumable || d.cfg.Idempotent,
				Message: "the control plane accepted the reset and had not finished it in time",
			}
		case <-time.After(delay):
		}
		said, err := d.ask(ctx, location)
		delay = said.retryAfter
		switch {
		case err != nil, retriable(said.status), said.status == http.StatusAccepted:
			// Not known yet; asking again does no harm.
		case said.status == http.StatusSeeOther:
			return nil // to the result, which there is only after the end
		case said.status/100 == 2:
			switch said.progress() {
			case done:
				return nil
			case failed:
				return said.failure(worker.Retryable, "the control plane accepted the reset and failed:")
			}
		default:
			return &worker.DriverError{Verdict: worker.Unknown, Message: fmt.Sprintf(
				"the control plane accepted the reset and does not know it any more: %d %s", said.status, http.StatusText(said.status))}
		}
	}
}

// ask polls once.
func (d *Driver) ask(ctx context.Context, location string) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return answer{}, err
	}
	d.dress(r)
	response, err := d.poller.Do(r)
	if err != nil {
		return answer{}, err
	}
	said := readAnswer(response)
	return said, said.broken
}
