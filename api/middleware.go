package api

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/trace"

	"batchreset/api/auth"
	"batchreset/api/ratelimit"
	"batchreset/tasks"
)

// Keys of what a request carries with it.
const (
	requestIDKey = "request_id"
	jobKey       = "job"
	runKey       = "run"
	codeKey      = "error_code"
	callerKey    = "caller"
	tokenKey     = "token"
	waitedKey    = "waited"   // there, if the request had a watch
	strangerKey  = "stranger" // there, while the request counts as one without a valid token
	turnedKey    = "turned"   // there, if the request was turned away as one of too many of those
	startKey     = "start"    // there, if the request is traced
	bodyKey      = "body"     // as it was received, once it was read
	onceKey      = "once"     // there, if the request's credential is good only once for what changes something
)

func requestID(c echo.Context) string {
	id, _ := c.Get(requestIDKey).(string)
	return id
}

// tokenOf is the caller's token; the zero Token before that is known.
func tokenOf(c echo.Context) tasks.Token {
	token, _ := c.Get(tokenKey).(tasks.Token)
	return token
}

func tenant(c echo.Context) string { return tokenOf(c).Tenant }

// identify gives the request its ID: the caller's, if it can be logged and stored, else a new one.
// It also forbids caching, unless a handler allows it; a cache that keeps an answer all the same
// must not give it to others.
func (s *server) identify(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		id := c.Request().Header.Get(echo.HeaderXRequestID)
		if id == "" && c.Path() == batchQueryPath {
			id = c.QueryParam(requestIDParameter)
		}
		if !printable(id) || len(id) > 128 {
			id = rand.Text()
		}
		c.Set(requestIDKey, id)
		h := c.Response().Header()
		h.Set(echo.HeaderXRequestID, id)
		h.Set(echo.HeaderCacheControl, "no-store")
		if guarded(c) {
			h.Add(echo.HeaderVary, "X-Auth-Token, Authorization")
		}
		return next(c)
	}
}

// guarded reports whether the route of a request asks for a token.
func guarded(c echo.Context) bool {
	return strings.HasPrefix(c.Path(), "/v1/") && c.Path() != proofKeysPath
}

func printable(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// accessLog answers errors, counts each request, and writes a line about it.
func (s *server) accessLog(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		if s.cfg.Tracer != nil {
			c.Set(startKey, start)
		}
		err := next(c)
		half := err != nil && c.Response().Committed
		if err != nil {
			c.Error(err)
		}
		if s.cfg.Tracer != nil {
			s.endSpan(c)
		}
		s.logRequest(c, start)
		if half {
			panic(http.ErrAbortHandler) // breaks the connection: nobody may take a part for the whole
		}
		return nil
	}
}

// logRequest and checkToken are separate from the middleware that calls next: see status.go.
func (s *server) logRequest(c echo.Context, start time.Time) {
	duration := time.Since(start)
	s.count(c, duration)
	if c.Get(turnedKey) != nil {
		return // one line for many of these: see turnAway
	}
	code, _ := c.Get(codeKey).(tasks.Code)
	job, _ := c.Get(jobKey).(string)
	token := tokenOf(c)
	attrs := []slog.Attr{
		slog.String("method", cut(c.Request().Method)), slog.String("path", cut(c.Request().URL.EscapedPath())),
		slog.Int("status", c.Response().Status), slog.String("code", string(code)), slog.Duration("duration", duration),
		slog.String("request_id", requestID(c)), slog.String("tenant", token.Tenant), slog.String("token", token.ID), slog.String("job", job),
		slog.String("remote", c.RealIP()),
	}
	if run, _ := c.Get(runKey).(string); run != "" {
		attrs = append(attrs, slog.String("run", run))
	}
	if span := trace.SpanContextFromContext(c.Request().Context()); span.IsValid() {
		attrs = append(attrs, slog.String("trace_id", span.TraceID().String()))
	}
	s.log.LogAttrs(c.Request().Context(), slog.LevelInfo, "request", attrs...)
}

// cut shortens what a request says for log and traces, so that nobody can fill them. The text is
// ASCII.
func cut(text string) string {
	const enough = 256
	if len(text) <= enough {
		return text
	}
	return text[:enough] + "..."
}

// limitBody reads the body before anything is asked of Redis: a body that is too
// large is refused whoever sends it.
func limitBody(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		body, err := io.ReadAll(http.MaxBytesReader(c.Response(), r.Body, maxBody))
		if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
			return tasks.Errorf(tasks.TooLarge, "the body is larger than %d bytes", maxBody)
		}
		if err != nil {
			return errHalfBody
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		c.Set(bodyKey, body)

		// The time for Redis starts now, so that it does not include the upload.
		c.Set(callerKey, r.Context())
		defer timeForRedis(c, storeTimeout)()
		return next(c)
	}
}

// errHalfBody is the answer to a request whose body did not come in whole.
var errHalfBody = tasks.Errorf(tasks.BadRequest, "the body could not be read to its end")

// limitUpload bounds a body that the handler reads as it comes, once the token was checked: nobody
// without one can make this process keep 8 MiB.
func limitUpload(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		r := c.Request()
		if r.ContentLength > maxRunBody {
			return tasks.Errorf(tasks.TooLarge, "the body is larger than %d bytes", maxRunBody)
		}
		r.Body = http.MaxBytesReader(c.Response(), r.Body, maxRunBody)
		c.Set(callerKey, r.Context())
		defer timeForRedis(c, storeTimeout)()
		return next(c)
	}
}

// caller is a context that ends when the caller hangs up.
func caller(c echo.Context) context.Context {
	if ctx, ok := c.Get(callerKey).(context.Context); ok {
		return ctx
	}
	return c.Request().Context()
}

// takeBrakeTime gives what stops something more time: it must not fail because Redis stands still.
func takeBrakeTime(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		defer timeForRedis(c, brakeTimeout)()
		return next(c)
	}
}

// timeForRedis gives the request some time from now on.
func timeForRedis(c echo.Context, d time.Duration) context.CancelFunc {
	ctx, cancel := context.WithTimeout(caller(c), d)
	c.SetRequest(c.Request().WithContext(ctx))
	return cancel
}

// anyScope is for what every token may do.
const anyScope tasks.Scope = ""

// whoami answers with what is known of the caller's token.
func (s *server) whoami(c echo.Context) error { return ok(c, tokenOf(c)) }

// admit finds out who sends a request, checks what that caller may do, counts the request against the
// tenant's limit if the route has one, and refuses parameters and bodies that the route does not
// take.
func (s *server) admit(scope tasks.Scope, t takes, counted bool) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			_, byTicket := t.query[ticketParameter]
			if err := s.checkToken(c, scope, byTicket, counted); err != nil {
				return err
			}
			if err := t.check(c.Request()); err != nil {
				return err
			}
			if err := s.takeOnce(c, scope, counted); err != nil {
				return err
			}
			return next(c)
		}
	}
}

func (s *server) checkToken(c echo.Context, scope tasks.Scope, byTicket, counted bool) error {
	find := s.tokenOfHeader
	if byTicket && c.QueryParams().Has(ticketParameter) {
		find = s.tokenOfTicket
	}
	token, err := find(c)
	if err != nil {
		return fmt.Errorf("check token: %w", err)
	}
	c.Set(tokenKey, token)
	s.welcome(c)
	if s.cfg.Tracer != nil {
		s.startSpan(callersTrace(c), c)
	}
	if scope != anyScope {
		err = token.Allow(scope)
	}
	if err != nil {
		return err
	}
	if !counted {
		return nil
	}
	return s.store.Pace(c.Request().Context(), token.Tenant)
}

// tokenOfHeader is the credential that a request comes with.
func (s *server) tokenOfHeader(c echo.Context) (tasks.Token, error) {
	r := c.Request()
	address, _ := netip.ParseAddr(c.RealIP()) // one that cannot be read is in no network
	began := time.Now()
	credential := auth.Credential(r, ratelimit.Network(c.RealIP()).String())
	who, err := s.callers.Find(r.Context(), auth.Request{Request: r, Address: address, Body: func() ([]byte, error) { return s.bodyOf(c) }})
	switch {
	case err == nil:
		s.strangers.remember(credential)
	case tasks.CodeOf(err) != tasks.Internal && tasks.CodeOf(err) != tasks.IAMAway:
		s.strangers.forget(credential)
	}
	if err == nil && who.Once != nil {
		c.Set(onceKey, who.Once)
	}
	if d := time.Since(began); d > storeTimeout/4 { // another service was asked, or a long body came: Redis has all of its time
		_ = timeForRedis(c, storeTimeout) // it ends with the request, which has a time of its own
	}
	return who.Token, err
}

// bodyOf is the body of a request as it was received. A long one waits for its turn; anybody may have a
// short one read.
func (s *server) bodyOf(c echo.Context) ([]byte, error) {
	if body, read := c.Get(bodyKey).([]byte); read {
		return body, nil
	}
	r := c.Request()
	if r.ContentLength < 0 || r.ContentLength > maxBody {
		end, err := s.uploads.begin(caller(c), auth.Credential(r, ratelimit.Network(c.RealIP()).String()))
		if err != nil {
			return nil, err
		}
		defer end()
	}
	body, err := io.ReadAll(r.Body)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, tasks.Errorf(tasks.TooLarge, "the body is larger than %d bytes", maxRunBody)
	}
	if err != nil {
		return nil, errHalfBody
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	c.Set(bodyKey, body)
	return body, nil
}

// takeOnce takes a credential that is good only once, if the request changes something. What stops
// something goes on where Redis has no room to remember that: it must work then, too, and to be stopped
// twice harms nobody.
func (s *server) takeOnce(c echo.Context, scope tasks.Scope, counted bool) error {
	once, is := c.Get(onceKey).(func(context.Context) error)
	if !is || scope == tasks.ScopeRead || scope == anyScope {
		return nil
	}
	err := once(c.Request().Context())
	if !counted && tasks.CodeOf(err) != tasks.BadToken {
		return nil
	}
	return err
}

// waitingTokens are looked at for those who wait.
type waitingTokens struct {
	*auth.Callers
	Clock
}

// TokensByHash implements tokenLooks.
func (w waitingTokens) TokensByHash(ctx context.Context, handles []string) (map[string]tasks.Token, error) {
	return w.Known(ctx, handles)
}
