package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"code.dny.dev/ssrf"
)

// MaxURL is how long an endpoint's URL may be, in bytes.
const MaxURL = 2048

// resolveTimeout bounds the look-up of an endpoint's name when it is checked.
const resolveTimeout = 5 * time.Second

// public lets only addresses of the public Internet through: nothing in the IANA registries
// of special addresses, which have loopback, link-local, private, shared, multicast and
// metadata addresses, and those that embed one.
var public = ssrf.New(
	ssrf.WithAnyPort(),
	// Azure serves its metadata here, which is not in any registry.
	ssrf.WithDeniedV4Prefixes(netip.MustParsePrefix("168.63.129.16/32")),
)

// CheckURL returns a sentence that says what is wrong with an endpoint's URL, or nil. The
// name must resolve. Unless private addresses are allowed the scheme must be https, and
// every address of the name a public one.
func CheckURL(ctx context.Context, raw string, allowPrivate bool) error {
	if len(raw) > MaxURL {
		return fmt.Errorf("is %d bytes long, the limit is %d", len(raw), MaxURL)
	}
	u, err := url.Parse(raw)
	if e, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("is not a URL: %w", e.Err)
	}
	switch {
	case u.Scheme == "http" && !allowPrivate:
		return errors.New("must be an https URL; http is for tests, with --webhook-allow-private")
	case u.Scheme != "https" && u.Scheme != "http":
		return errors.New("must be an https URL, such as https://example.com/hooks")
	case u.Hostname() == "":
		return errors.New("has no host")
	case u.User != nil:
		return errors.New("must not contain a user or password; the signature says who sends")
	case u.Fragment != "" || u.RawFragment != "":
		return errors.New("must not have a fragment (#…), which is never sent")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("has the port %s, which does not exist", port)
		}
	}
	return checkHost(ctx, u.Hostname(), allowPrivate)
}

func checkHost(ctx context.Context, host string, allowPrivate bool) error {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return fmt.Errorf("cannot be resolved: %w", err)
	}
	for _, a := range addresses {
		if err := public.SafeAddr(a.Unmap()); err != nil && !allowPrivate {
			return fmt.Errorf("leads to %s, which is not a public address; --webhook-allow-private allows it, there and for the workers", a.Unmap())
		}
	}
	return nil
}
