package httpdriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"batchreset/worker"
)

// sameOrigin resolves a location against the URL that it came from, and refuses
// another scheme, host or port: the bearer token is not for everyone.
func sameOrigin(target *url.URL, location string) (string, error) {
	u, err := target.Parse(location)
	if err != nil {
		return "", errors.New("is not a URL")
	}
	if origin(u) != origin(target) {
		return "", fmt.Errorf("leads to another host, %q", worker.Printable(u.Scheme+"://"+u.Host, 200))
	}
	u.User, u.Fragment = nil, ""
	return u.String(), nil
}

func origin(u *url.URL) string { return u.Scheme + "://" + hostPort(u) }

func hostPort(u *url.URL) string {
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	return net.JoinHostPort(strings.ToLower(u.Hostname()), cmp.Or(u.Port(), port))
}

// follow polls an accepted reset, first after wait, until it has ended. resumable
// says that a later attempt can go on from here.
func (d *Driver) follow(ctx context.Context, where string, wait time.Duration, resumable bool) error {
	pending := d.rules.unknown("the control plane accepted the reset and could not be asked about it in time")
	for usual := d.pollFirst; ; usual = min(usual*3/2, d.pollLast) {
		select {
		case <-ctx.Done():
			pending.Repeatable = pending.Repeatable || resumable
			return pending
		case <-time.After(wait):
		}
		said, err := d.ask(ctx, where)
		if err != nil { // not known yet; asking again does no harm
			wait = usual
			continue
		}
		over, verdict := d.rules.polled(said)
		switch {
		case over && verdict == nil:
			return nil
		case over:
			return verdict
		}
		pending = verdict
		asked, _ := said.RetryAfter()
		wait = cmp.Or(asked, usual)
	}
}

// ask polls once.
func (d *Driver) ask(ctx context.Context, where string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, d.pollTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return answer{}, err
	}
	d.dress(r)
	response, err := traced(d.poller, r)
	if err != nil {
		// What befell this connection may have befallen those that are kept.
		d.poller.CloseIdleConnections()
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	return answer{worker.ReadAnswer(response, maxAnswer)}, nil
}
