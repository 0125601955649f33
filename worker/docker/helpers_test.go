package docker

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"batchreset/worker"
)

// trip is a round trip of a test.
type trip func(*http.Request) (*http.Response, error)

func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// mustFail makes sure that an attempt ended with this verdict, and that its message has this text.
func mustFail(t *testing.T, err error, want worker.Verdict, text string) *worker.DriverError {
	t.Helper()
	e, ok := errors.AsType[*worker.DriverError](err)
	if !ok || e.Verdict != want || !strings.Contains(e.Message, text) {
		t.Fatalf("the attempt ended with %v; want %s: …%s…", err, want, text)
	}
	return e
}
