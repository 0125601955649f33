package httpdriver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// checkTimeout bounds a look whether the control plane is there.
const checkTimeout = 10 * time.Second

// Check connects to the control plane, with TLS if its URL says so, and sends nothing.
func (d *Driver) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	u, err := expand(d.cfg.URL, "a", "a")
	if err != nil {
		return fmt.Errorf("url %w", err)
	}
	var dialer interface {
		DialContext(ctx context.Context, network, address string) (net.Conn, error)
	} = &net.Dialer{}
	if proxy, _ := d.poller.Proxy(&http.Request{URL: u}); proxy != nil {
		u = proxy // which connects further only for a request
	} else if u.Scheme == "https" {
		dialer = &tls.Dialer{Config: d.cfg.TLS}
	}
	c, err := dialer.DialContext(ctx, "tcp", hostPort(u))
	if err != nil {
		return errors.New("url: the control plane cannot be reached: " + reason(err))
	}
	return c.Close()
}
