package api_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/api"
	"batchreset/cmd/harness/faketime"
	"batchreset/tasks"
)

// burst is how often an address may ask without a valid token.
const burst = 1000

// crowd asks from an address.
type crowd struct {
	http.Handler
	t *testing.T
}

func (c crowd) ask(path, token, remote string, header ...string) *httptest.ResponseRecorder {
	c.t.Helper()
	r := httptest.NewRequestWithContext(c.t.Context(), http.MethodGet, path, nil)
	r.RemoteAddr = net.JoinHostPort(remote, "1234")
	if token != "" {
		r.Header.Set("X-Auth-Token", token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	return w
}

// exhaust asks until the address may ask no more.
func (c crowd) exhaust(remote string, header ...string) {
	c.t.Helper()
	for n := range 2 * burst {
		if w := c.ask("/v1/made-up", "", remote, header...); w.Code == http.StatusTooManyRequests {
			if n < burst {
				c.t.Errorf("%s is turned away after %d requests", remote, n)
			}
			return
		}
	}
	c.t.Fatalf("%s may ask for ever", remote)
}

func TestStrangersAreTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(1)
		var log lockedLog
		a := api.New(api.Config{}, oneStore(fewTokens{b}), slog.New(slog.NewTextHandler(&log, nil)))
		c := crowd{a, t}
		valid := c.ask(b.path(), "acme", "192.0.2.1")
		if valid.Code != http.StatusOK {
			t.Fatal(valid)
		}
		c.exhaust("192.0.2.1")
		said := log.String()
		if n := strings.Count(said, "too many requests without a valid token"); n != 1 || !strings.Contains(said, "remote=192.0.2.1") {
			t.Errorf("the log says it %d times", n)
		}
		for range 100 {
			c.ask("/docs", "", "192.0.2.1")
		}
		if log.String() != said {
			t.Error("the log has more lines about an address that is turned away")
		}
		if n := metric(t, a, "batchreset_strangers_turned_away_total"); n != 101 {
			t.Errorf("%v turned away, want 101", n)
		}
		turned := service{Handler: a}.do(t, http.MethodGet, "/v1/jobs", "made-up", nil)
		wantTooMany(t, turned, "too many requests without a valid token come from this address")
		if turned.header.Get("Retry-After") != "1" {
			t.Errorf("Retry-After: %s", turned.header.Get("Retry-After"))
		}
		for _, row := range []struct {
			name, path, token, remote string
			status                    int
		}{
			{"a token that was never here", b.path(), "other", "192.0.2.1", 429},
			{"a token that was valid before", b.path(), "acme", "192.0.2.1", 200},
			{"another address", b.path(), "other", "192.0.2.2", 200},
			{"a probe", "/healthz", "", "192.0.2.1", 200},
			{"another probe", "/readyz", "", "192.0.2.1", 200},
			{"the contract", "/openapi.yaml", "", "192.0.2.1", 429},
		} {
			if w := c.ask(row.path, row.token, row.remote); w.Code != row.status {
				t.Errorf("%s: %d, want %d", row.name, w.Code, row.status)
			}
		}
		faketime.Pass(time.Second)
		for n := range 100 { // it may ask again, as often as time has passed
			if w := c.ask("/v1/made-up", "", "192.0.2.1"); w.Code != http.StatusNotFound {
				t.Fatalf("request %d a second later: %d", n, w.Code)
			}
		}
		if w := c.ask("/v1/made-up", "", "192.0.2.1"); w.Code != http.StatusTooManyRequests {
			t.Errorf("request 101 a second later: %d", w.Code)
		}
	})
}

// fewTokens is a board for two tokens.
type fewTokens struct{ *board }

func (f fewTokens) Token(ctx context.Context, secret string) (tasks.Token, error) {
	if secret != "acme" && secret != "other" {
		return tasks.Token{}, tasks.Errorf(tasks.BadToken, "X-Auth-Token is not valid")
	}
	return f.board.Token(ctx, secret)
}

func (f fewTokens) Check(context.Context) error { return nil }

func (f fewTokens) Accepting(context.Context) bool { return true }

// inOneMoment runs a subtest by a clock that stands still while something runs.
func inOneMoment(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

func TestStrangersAreToldApart(t *testing.T) {
	_, proxies, err := net.ParseCIDR("10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, first, second string
		forwarded           [2]string // for whom each of them says it asks
		proxies             []*net.IPNet
		same                bool
	}{
		{name: "IPv4", first: "192.0.2.1", second: "192.0.2.2"},
		{name: "IPv4 in IPv6", first: "192.0.2.1", second: "::ffff:192.0.2.1", same: true},
		{name: "one IPv6 network", first: "2001:db8:0:1::1", second: "2001:db8:0:1:ffff::2", same: true},
		{name: "two IPv6 networks", first: "2001:db8:0:1::1", second: "2001:db8:0:2::1"},
		{name: "who only says so", first: "192.0.2.1", second: "192.0.2.1", forwarded: [2]string{"198.51.100.1", "198.51.100.2"}, same: true},
		{name: "who is said so by a stranger", first: "192.0.2.1", second: "192.0.2.1", forwarded: [2]string{"198.51.100.1", "198.51.100.2"}, proxies: []*net.IPNet{proxies}, same: true},
		{name: "callers of a proxy", first: "10.0.0.1", second: "10.0.0.1", forwarded: [2]string{"198.51.100.1", "198.51.100.2"}, proxies: []*net.IPNet{proxies}},
		{name: "a caller of two proxies", first: "10.0.0.1", second: "10.0.0.2", forwarded: [2]string{"198.51.100.1", "198.51.100.1"}, proxies: []*net.IPNet{proxies}, same: true},
	} {
		inOneMoment(t, row.name, func(t *testing.T) {
			c := crowd{api.New(api.Config{TrustedProxies: row.proxies}, oneStore(fewTokens{newBoard(1)}), slog.New(slog.DiscardHandler)), t}
			header := func(n int) []string {
				if row.forwarded[n] == "" {
					return nil
				}
				return []string{"X-Forwarded-For", row.forwarded[n]}
			}
			c.exhaust(row.first, header(0)...)
			got := c.ask("/v1/made-up", "", row.second, header(1)...)
			if turned := got.Code == http.StatusTooManyRequests; turned != row.same {
				t.Errorf("after %s, %s is answered %d", row.first, row.second, got.Code)
			}
		})
	}
}

// Many callers may share an address, and each may ask as often as its tenant may.
func TestWhoHasATokenIsNoStranger(t *testing.T) {
	b := newBoard(1)
	c := crowd{api.New(api.Config{}, oneStore(fewTokens{b}), slog.New(slog.DiscardHandler)), t}
	for n := range 3 * burst {
		if w := c.ask(b.path(), "acme", "192.0.2.1"); w.Code != http.StatusOK {
			t.Fatalf("request %d: %d", n, w.Code)
		}
	}
	// One that was valid is no longer looked at first when it is not any more.
	b.setToken(func(k *tasks.Token) { k.Scopes = nil })
	c.exhaust("192.0.2.1")
	if w := c.ask(b.path(), "acme", "192.0.2.1"); w.Code != http.StatusForbidden {
		t.Errorf("a token without a scope: %d", w.Code)
	}
}

// Every operation but the probes says so in the way of the contract.
func TestEveryOperationTurnsStrangersAway(t *testing.T) {
	contract, err := written()
	if err != nil {
		t.Fatal(err)
	}
	for template, methods := range contract.paths {
		path := strings.NewReplacer("{file}", "page.js", "{job_id}", tasks.NewJobID(), "{task_id}", tasks.NewJobID(), "{run_id}", tasks.NewJobID()).Replace(template)
		for method := range methods {
			inOneMoment(t, method+" "+template, func(t *testing.T) {
				cfg := testConfig
				cfg.Runs = newFakeRuns()
				s := service{Handler: api.New(cfg, oneStore(fewTokens{newBoard(1)}), slog.New(slog.DiscardHandler))}
				crowd{s, t}.exhaust("192.0.2.1") // from where these tests ask
				got := s.do(t, strings.ToUpper(method), path, "", nil)
				if template != "/healthz" && template != "/readyz" {
					wantTooMany(t, got, "too many requests without a valid token")
				} else if got.status != http.StatusOK {
					t.Errorf("answer %+v", got)
				}
			})
		}
	}
}

func TestWhatStrangersSendDoesNotFillTheLog(t *testing.T) {
	for name, ask := range map[string]func(h http.Handler){
		"a path": func(h http.Handler) { crowd{h, t}.ask("/"+strings.Repeat("x", 60_000), "", "192.0.2.1") },
		"a path of escapes": func(h http.Handler) {
			crowd{h, t}.ask("/v1/jobs/"+strings.Repeat("%E2%80%AE", 6000), "", "192.0.2.1")
		},
		"a query": func(h http.Handler) { crowd{h, t}.ask("/docs?"+strings.Repeat("x", 60_000), "", "192.0.2.1") },
		"a token": func(h http.Handler) { crowd{h, t}.ask("/v1/jobs", strings.Repeat("x", 60_000), "192.0.2.1") },
		"a request ID": func(h http.Handler) {
			crowd{h, t}.ask("/docs", "", "192.0.2.1", "x-request-id", strings.Repeat("x", 60_000))
		},
		"a trace": func(h http.Handler) {
			crowd{h, t}.ask("/docs", "", "192.0.2.1", "traceparent", strings.Repeat("x", 60_000))
		},
		"an address": func(h http.Handler) {
			crowd{h, t}.ask("/docs", "", "192.0.2.1", "X-Forwarded-For", strings.Repeat("x", 60_000))
		},
		"a method": func(h http.Handler) {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), strings.Repeat("X", 60_000), "/docs", nil))
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log lockedLog
			ask(api.New(testConfig, oneStore(fewTokens{newBoard(1)}), slog.New(slog.NewJSONHandler(&log, nil))))
			if text := log.String(); text == "" || len(text) > 1000 || strings.Contains(text, "\u202e") || strings.ContainsRune(text, '\u202e') {
				t.Errorf("%d bytes in the log: %.500s", len(text), text)
			}
		})
	}
}
