// Package auth finds out who sends a request. A caller is known by one of
//
//   - X-Auth-Token with a token of this service, or else with one of a token service (Keystone, IAM),
//   - Authorization: SDK-HMAC-SHA256 …, a signature made with an access key of this service,
//   - Authorization: Bearer …, a token that an OpenID Connect issuer has signed,
//   - the certificate that its connection began with, if it sends nothing else.
//
// With more than one of them X-Auth-Token counts, because KooPhone's programs must send it.
//
// Refusals have the texts of Huawei's gateways, which programs may know: see tasks.NotAuthenticated.
package auth

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"batchreset/tasks"
)

// Store is what is asked about the credentials that this service has made.
type Store interface {
	// Token finds a token by its secret. Errors: tasks.BadToken, tasks.TokenExpired.
	Token(ctx context.Context, secret string) (tasks.Token, error)
	// TokensByHash returns those of the tokens and access keys that there are, ended ones too.
	TokensByHash(ctx context.Context, handles []string) (map[string]tasks.Token, error)
	// AccessKey finds an access key, ended ones too. Errors: tasks.BadToken.
	AccessKey(ctx context.Context, access, network string) (tasks.AccessKey, error)
	// WrongSignature counts one that came from a network, RightSignature ends the count.
	WrongSignature(ctx context.Context, access, network string) error
	RightSignature(ctx context.Context, access, network string) error
	// TakeSignature reports whether a signature comes for the first time, and remembers it for so long.
	TakeSignature(ctx context.Context, mac []byte, lasts time.Duration) (first bool, err error)
	// NoteUse notes when tokens were used last.
	NoteUse(ctx context.Context, used map[string]tasks.Time) error
}

// Clock is Redis's.
type Clock interface {
	Now() time.Time
}

// Config says who knows callers beside this service. The zero value: nobody.
type Config struct {
	IAM *IAM
	JWT *JWT
	// Certificates: every caller has one. nil: nobody is asked for one.
	Certificates *Certificates
	// BasePath is the path of the API behind a proxy, which may have removed it: callers sign it.
	BasePath string
}

// Callers finds out who sends requests. It is safe for concurrent use.
type Callers struct {
	cfg   Config
	store Store
	clock Clock
	log   *slog.Logger

	mu   sync.Mutex
	used map[string]tasks.Time // since it was noted last, by handle
}

// New makes Callers. Without Run, nobody notes when credentials were used.
func New(cfg Config, store Store, clock Clock, log *slog.Logger) *Callers {
	return &Callers{cfg: cfg, store: store, clock: clock, log: log, used: map[string]tasks.Time{}}
}

// Request is what a caller has sent.
type Request struct {
	*http.Request

	Address netip.Addr
	// Body returns all of the body as it was received. It is only asked for what is signed.
	Body func() ([]byte, error)
}

// Caller is who sends a request.
type Caller struct {
	tasks.Token
	// Once is there if the credential must be good only once for what changes something. It takes it, and
	// fails with tasks.BadToken if it was taken before.
	Once func(ctx context.Context) error
}

const (
	tokenHeader = "X-Auth-Token"
	// ownTokens is how every token of this service begins, so that none is ever shown to a token service.
	ownTokens = "brt_"
)

// Find says who sends a request. Errors: tasks.BadToken, tasks.TokenExpired; tasks.Forbidden from an
// address that the credential is not for; tasks.IAMAway.
func (c *Callers) Find(ctx context.Context, r Request) (Caller, error) {
	caller, err := c.find(ctx, r)
	if err != nil {
		return Caller{}, err
	}
	if err := caller.AllowFrom(r.Address); err != nil {
		return Caller{}, err
	}
	c.note(caller.Token)
	return caller, nil
}

func (c *Callers) find(ctx context.Context, r Request) (Caller, error) {
	if c.cfg.Certificates != nil {
		if err := c.cfg.Certificates.check(r.TLS); err != nil {
			return Caller{}, err
		}
	}
	switch tokens := r.Header.Values(tokenHeader); {
	case len(tokens) > 1: // of which tenant?
		return Caller{}, tasks.NotAuthenticated("x-auth-token is there more than once")
	case len(tokens) == 1 && tokens[0] != "":
		token, err := c.byToken(ctx, tokens[0])
		return Caller{Token: token}, err
	}
	if bearer, is := bearerOf(r.Header); is {
		token, err := c.byBearer(ctx, bearer)
		return Caller{Token: token}, err
	}
	if c.cfg.Certificates != nil && len(c.cfg.Certificates.rules) > 0 && r.Header.Get("Authorization") == "" {
		token, err := c.cfg.Certificates.token(r.TLS)
		return Caller{Token: token}, err
	}
	return c.bySignature(ctx, r)
}

func (c *Callers) byToken(ctx context.Context, secret string) (tasks.Token, error) {
	token, err := c.store.Token(ctx, secret)
	if c.cfg.IAM != nil && tasks.CodeOf(err) == tasks.BadToken && !strings.HasPrefix(secret, ownTokens) {
		return c.cfg.IAM.Token(ctx, secret)
	}
	return token, err
}

// bearerOf is the token of an Authorization header of the scheme Bearer.
func bearerOf(h http.Header) (token string, is bool) {
	scheme, rest, _ := strings.Cut(h.Get("Authorization"), " ")
	return strings.TrimSpace(rest), strings.EqualFold(scheme, "Bearer")
}

func (c *Callers) byBearer(ctx context.Context, bearer string) (tasks.Token, error) {
	if c.cfg.JWT == nil {
		return tasks.Token{}, tasks.NotAuthenticated("x-auth-token not found, and bearer tokens are not accepted here")
	}
	return c.cfg.JWT.Token(ctx, bearer)
}

// Credential is what a request says of who sends it, in a form that can be remembered. It is not checked.
func Credential(r *http.Request, network string) string {
	if token := r.Header.Get(tokenHeader); token != "" {
		return token
	}
	if bearer, is := bearerOf(r.Header); is {
		return bearer
	}
	if access := accessOf(r); access != "" {
		return access + " " + network
	}
	return fingerprint(r.TLS)
}

// maxName is how long a name is at most that another service says.
const maxName = 128

// isName reports whether what another service says can be the name of an owner: it is kept with each job and in the
// audit trail, and people read it there.
func isName(name string) bool {
	return name != "" && len(name) <= maxName && tasks.Visible(name) == name
}

func noOwner(what string) *tasks.Error {
	return tasks.Errorf(tasks.Forbidden, "%s does not say whose it is, or in more than %d characters, or in some that are not seen", what, maxName)
}

// InDoubt says of which credentials nobody can say now whether they hold, by their handles.
type InDoubt map[string]error

// Error implements error.
func (d InDoubt) Error() string { return fmt.Sprintf("%d credentials are in doubt", len(d)) }

// Known returns those of the credentials with these handles that still hold, or have ended and are
// remembered, for those who wait. An error that is InDoubt is about some of them; the others are there.
func (c *Callers) Known(ctx context.Context, handles []string) (map[string]tasks.Token, error) {
	var ours []string
	known, doubt := map[string]tasks.Token{}, InDoubt{}
	for _, handle := range handles {
		switch {
		case c.cfg.IAM != nil && strings.HasPrefix(handle, iamHandle):
			token, found, err := c.cfg.IAM.again(ctx, handle)
			if err != nil {
				doubt[handle] = err
			}
			if found {
				known[handle] = token
			}
		case c.cfg.JWT != nil && strings.HasPrefix(handle, jwtHandle):
			if token, found := c.cfg.JWT.again(handle); found {
				known[handle] = token
			}
		case c.cfg.Certificates != nil && strings.HasPrefix(handle, certificateHandle):
			if token, found := c.cfg.Certificates.again(handle); found {
				known[handle] = token
			}
		default:
			ours = append(ours, handle)
		}
	}
	if len(ours) > 0 {
		found, err := c.store.TokensByHash(ctx, ours)
		if err != nil {
			return nil, err
		}
		maps.Copy(known, found)
	}
	if len(doubt) > 0 {
		return known, doubt
	}
	return known, nil
}

// noteEvery is how often the use of credentials is noted.
const noteEvery = time.Minute

func (c *Callers) note(token tasks.Token) {
	if token.Kind != tasks.KindToken && token.Kind != tasks.KindKey {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used[token.Hash] = tasks.FromMillis(c.clock.Now().UnixMilli())
}

// Run notes now and then when credentials were used last, until ctx ends, and then once more.
func (c *Callers) Run(ctx context.Context) error {
	tick := time.NewTicker(noteEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			c.flush(ctx)
		case <-ctx.Done():
			c.flush(context.WithoutCancel(ctx))
			return nil
		}
	}
}

func (c *Callers) flush(ctx context.Context) {
	c.mu.Lock()
	used := c.used
	c.used = map[string]tasks.Time{}
	c.mu.Unlock()
	if len(used) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if err := c.store.NoteUse(ctx, used); err != nil { // people miss a time on a list, nothing else
		c.log.Debug("the use of tokens is not noted", "error", err)
	}
}
