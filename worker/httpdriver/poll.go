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

func origin(u *url.URL) string {
	port := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	return u.Scheme + "://" + net.JoinHostPort(strings.ToLower(u.Hostname()), cmp.Or(u.Port(), port))
}

// follow polls an accepted reset, first after wait, until it has ended. resumable
// says that a later attempt can go on from here.
func (d *Driver) follow(ctx context.Context, where string, wait time.Duration, resumable bool) error {
	for usual := d.pollFirst; ; usual = min(usual*3/2, d.pollLast) {
		select {
		case <-ctx.Done():
			return unknown("the control plane accepted the reset and had not finished it in time", resumable || d.cfg.Idempotent)
		case <-time.After(wait):
		}
		said, err := d.ask(ctx, where)
		wait = cmp.Or(said.retryAfter, usual)
		switch {
		case err != nil, retriable(said.status), said.status == http.StatusAccepted:
			// Not known yet; asking again does no harm.
		case said.status == http.StatusSeeOther:
			return nil // to the result, which there is only after the end
		case said.status/100 == 2:
			if ended, err := said.progress(); ended {
				return err
			}
		default:
			return unknown(fmt.Sprintf("the control plane accepted the reset, but asked about it answered %d %s",
				said.status, http.StatusText(said.status)), d.cfg.Idempotent)
		}
	}
}

// ask polls once. An answer that is cut off is none.
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
		return answer{}, err
	}
	said := readAnswer(response)
	return said, said.broken
}
