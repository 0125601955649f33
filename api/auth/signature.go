package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"batchreset/api/ratelimit"
	"batchreset/tasks"
	"batchreset/tasks/sdkhmac"
)

// tolerance is how far the date of a signature may be from Redis's clock: as far as Huawei's gateways let it.
const tolerance = 15 * time.Minute

// stepMargin is for a Redis clock that is set back while a signature is remembered.
const stepMargin = time.Minute

// accessOf is the access key that a request says it is signed with.
func accessOf(r *http.Request) string {
	signature, err := sdkhmac.Read(r)
	if err != nil {
		return ""
	}
	return signature.Access
}

// bySignature finds the access key that a request was signed with. What was never signed, and what nobody
// could verify, costs no look-up.
func (c *Callers) bySignature(ctx context.Context, r Request) (Caller, error) {
	read, err := sdkhmac.Read(r.Request)
	switch {
	case errors.Is(err, sdkhmac.ErrNone):
		return Caller{}, tasks.NotAuthenticated("x-auth-token not found")
	case err != nil:
		return Caller{}, notSigned(err)
	case r.Header.Get("X-Security-Token") != "":
		return Caller{}, tasks.NotAuthenticated("verify aksk signature fail: X-Security-Token goes with temporary access keys, which are not accepted here")
	}
	network := ratelimit.Network(r.Address.String()).String()
	key, err := c.store.AccessKey(ctx, read.Access, network)
	if err != nil {
		return Caller{}, err
	}
	now := c.clock.Now()
	if key.Wrong >= tasks.MaxWrongSignatures {
		return Caller{}, tasks.NotAuthenticated(fmt.Sprintf("AK access failed to reach the limit,forbidden (%d wrong signatures; wait %s)", key.Wrong, tasks.WrongSignaturesLock))
	}
	if err := key.Check(now); err != nil {
		return Caller{}, err
	}
	if off := now.Sub(read.Date); off.Abs() > tolerance { // before the body is read
		return Caller{}, notSigned(read.Verify(key.Secret, nil, now, tolerance))
	}
	body, err := r.Body()
	if err != nil {
		return Caller{}, err
	}
	switch err := c.verify(r, key.Secret, body, now); {
	case errors.Is(err, sdkhmac.ErrMismatch):
		if err := c.store.WrongSignature(ctx, key.ID, network); err != nil {
			c.log.Warn("a wrong signature is not counted", "access_key", key.ID, "error", err)
		}
		return Caller{}, notSigned(err)
	case err != nil:
		return Caller{}, notSigned(err)
	}
	if key.Wrong > 0 {
		if err := c.store.RightSignature(ctx, key.ID, network); err != nil {
			c.log.Warn("wrong signatures are not forgotten", "access_key", key.ID, "error", err)
		}
	}
	lasts := read.Date.Add(tolerance + stepMargin).Sub(now)
	return Caller{Token: key.Token, Once: func(ctx context.Context) error { return c.once(ctx, read.MAC[:], lasts) }}, nil
}

// verify checks a signature over the path as it was received or, behind a proxy that removes the base
// path, as it was sent.
func (c *Callers) verify(r Request, secret string, body []byte, now time.Time) error {
	err := sdkhmac.ErrMismatch
	for _, uri := range c.uris(r.Request) {
		if err = verifyAs(r.Request, uri, secret, body, now); !errors.Is(err, sdkhmac.ErrMismatch) {
			return err
		}
	}
	return err
}

// uris are those that a caller may have signed.
func (c *Callers) uris(r *http.Request) []string {
	uris := []string{r.RequestURI}
	if base := c.cfg.BasePath; base != "" && !strings.HasPrefix(r.RequestURI, base+"/") {
		uris = append(uris, base+r.RequestURI)
	}
	return uris
}

func verifyAs(r *http.Request, uri, secret string, body []byte, now time.Time) error {
	u, err := url.ParseRequestURI(uri)
	if err != nil {
		return fmt.Errorf("%w: its address cannot be read", sdkhmac.ErrMalformed)
	}
	as := r.WithContext(r.Context()) // a copy: r is the handlers'
	as.URL = u
	signature, err := sdkhmac.Read(as)
	if err != nil {
		return err
	}
	return signature.Verify(secret, body, now, tolerance)
}

// once takes a signature. A second request with it is the first one, recorded and sent again; or the same
// program has sent the same request twice within a second.
func (c *Callers) once(ctx context.Context, mac []byte, lasts time.Duration) error {
	first, err := c.store.TakeSignature(ctx, mac, lasts)
	if err == nil && !first {
		err = tasks.NotAuthenticated("verify aksk signature fail: this signature was used before; sign the request anew, at least a second later")
	}
	return err
}

// notSigned is the answer to a signature that is not accepted.
func notSigned(err error) *tasks.Error {
	return tasks.NotAuthenticated("verify aksk signature fail: " + err.Error())
}
