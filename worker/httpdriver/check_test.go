package httpdriver

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCheckConnectsAndSendsNothing(t *testing.T) {
	nothing := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { t.Errorf("%s %s", r.Method, r.URL) })
	plain, secure := httptest.NewServer(nothing), httptest.NewTLSServer(nothing)
	secure.Config.ErrorLog = nil
	defer plain.Close()
	defer secure.Close()
	if err := newDriver(t, Config{URL: plain.URL}).Check(t.Context()); err != nil {
		t.Error(err)
	}
	if err := newDriver(t, Config{URL: secure.URL}).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
	if err := newDriver(t, Config{URL: "http://127.0.0.1:1"}).Check(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "url: the control plane cannot be reached: ") {
		t.Errorf("nobody there: %v", err)
	}
}
