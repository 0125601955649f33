package api_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"batchreset/api"
)

func TestPagesOfOtherOrigins(t *testing.T) {
	cfg := testConfig
	cfg.Origins = []string{"https://app.example", "http://localhost:3000"}
	open, closed := newService(t, cfg), newService(t, testConfig)
	ask := func(s service, method, path, origin string, header ...string) http.Header {
		t.Helper()
		r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		r.Header.Set("Origin", origin)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if method == http.MethodOptions && s.Handler == open.Handler && (w.Code != http.StatusNoContent || w.Body.Len() != 0) {
			t.Errorf("a preflight from %s is answered %d %s", origin, w.Code, w.Body)
		}
		if h := w.Header(); h.Get("Access-Control-Allow-Credentials") != "" || h.Get("Access-Control-Allow-Origin") == "*" {
			t.Errorf("%s is answered %v", origin, h)
		}
		return w.Header()
	}
	path := "/v1/jobs/" + open.submit(t, "a")
	for _, origin := range cfg.Origins {
		h := ask(open, http.MethodGet, path, origin, "X-Auth-Token", "acme")
		exposed := strings.Split(h.Get("Access-Control-Expose-Headers"), ",")
		for _, want := range []string{"Location", "ETag", "Retry-After", "Preference-Applied", "X-Request-Id"} {
			if !slices.Contains(exposed, want) {
				t.Errorf("%s may not read %s, but %v", origin, want, exposed)
			}
		}
		if h.Get("Access-Control-Allow-Origin") != origin || !strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
			t.Errorf("%s is answered %v", origin, h)
		}
		// It may read, too, why something is refused.
		if h := ask(open, http.MethodGet, path, origin); h.Get("Access-Control-Allow-Origin") != origin {
			t.Errorf("%s is refused with %v", origin, h)
		}
		h = ask(open, http.MethodOptions, batchReset, origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "x-auth-token,idempotency-key")
		may := strings.ToLower(h.Get("Access-Control-Allow-Headers"))
		if h.Get("Access-Control-Allow-Origin") != origin || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") || !strings.Contains(may, "x-auth-token") || !strings.Contains(may, "idempotency-key") {
			t.Errorf("a preflight from %s is answered %v", origin, h)
		}
	}
	for _, origin := range []string{"https://app.example.evil", "https://sub.app.example", "http://app.example", "https://app.example:8443", "https://appxexample", "null", "*", ""} {
		for method, s := range map[string]service{http.MethodGet: open, http.MethodOptions: open, http.MethodPost: closed} {
			if h := ask(s, method, path, origin, "X-Auth-Token", "acme", "Access-Control-Request-Method", "POST"); h.Get("Access-Control-Allow-Origin") != "" || h.Get("Access-Control-Allow-Headers") != "" {
				t.Errorf("%s from %s is answered %v", method, origin, h)
			}
		}
	}
	// Where nobody was named, there is no such thing.
	if h := ask(closed, http.MethodOptions, batchReset, "https://app.example", "Access-Control-Request-Method", "POST"); h.Get("Access-Control-Allow-Origin") != "" || strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
		t.Errorf("a preflight is answered %v", h)
	}
}

func TestOriginsAreAsBrowsersWriteThem(t *testing.T) {
	for _, good := range []string{"https://app.example", "http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:8080", "https://xn--kln-sna.example"} {
		if err := api.CheckOrigin(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"https://app.example/":     "write https://app.example",
		"https://app.example/path": "write https://app.example",
		"https://App.Example":      "write https://app.example",
		"https://app.example:443":  "write https://app.example",
		"http://app.example:80":    "write http://app.example",
		"https://me@app.example":   "write https://app.example",
		"https://app.example?x=y":  "write https://app.example",
		"https://köln.example":     "is not an origin such as",
		"https://*.example":        "is not an origin such as",
		"*":                        "is not an origin such as",
		"null":                     "is not an origin such as",
		"app.example":              "is not an origin such as",
		"file:///tmp/page":         "is not an origin such as",
		"ftp://app.example":        "is not an origin such as",
		"https://":                 "is not an origin such as",
		"":                         "is not an origin such as",
		"https://a b":              "is not an origin such as",
	} {
		if err := api.CheckOrigin(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
