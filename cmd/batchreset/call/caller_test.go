package call

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

// fakeService is a service that the commands of this package are called on.
type fakeService struct{ *calltest.Service }

func newFakeService(t *testing.T) *fakeService {
	t.Helper()
	return &fakeService{calltest.NewService(t)}
}

// call runs a caller's command line against the service.
func (s *fakeService) call(t *testing.T, args ...string) terminaltest.Result {
	t.Helper()
	return s.callWith(t.Context(), strings.NewReader(""), args...)
}

func (s *fakeService) callWith(ctx context.Context, in io.Reader, args ...string) terminaltest.Result {
	return callCommand(ctx, in, append(args, "--server", s.URL, "--token", calltest.Token)...)
}

func callCommand(ctx context.Context, in io.Reader, args ...string) terminaltest.Result {
	return terminaltest.Run(ctx, newRootCommand, &terminal.Streams{In: in}, args...)
}

// sameJSON compares two JSON texts whatever their spaces.
func sameJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w bytes.Buffer
	if err := json.Compact(&g, []byte(got)); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if err := json.Compact(&w, []byte(want)); err != nil {
		t.Fatalf("%v in %s", err, want)
	}
	if g.String() != w.String() {
		t.Errorf("got  %s\nwant %s", &g, &w)
	}
}

func TestCallerFlags(t *testing.T) {
	for _, row := range []struct {
		name string
		args []string
		want string
	}{
		{"refuse a missing token", nil, "--token is missing: give --token, --token-file"},
		{"refuse two tokens", []string{"--token", "a", "--token-file", "b"}, "--token and --token-file do not go together"},
		{"refuse a token file that is not there", []string{"--token-file", "/no/such/file"}, "--token-file: open /no/such/file: no such file"},
		{"refuse an empty token file", []string{"--token-file", terminaltest.File(t, "\n")}, "--token-file: "},
		{"refuse a token with a space", []string{"--token", "a b"}, "--token has spaces"},
		{"refuse a server that is no URL", []string{"--token", "a", "--server", "localhost:8080"}, `--server "localhost:8080" is not a URL`},
		{"refuse another output", []string{"--output", "xml"}, `must be one of text, json, jsonl, yaml, csv, table`},
	} {
		t.Run(row.name, func(t *testing.T) {
			callCommand(t.Context(), nil, append([]string{"jobs"}, row.args...)...).Wants(t, terminal.ExitUsage, "", row.want)
		})
	}
	t.Run("take the token from a file", func(t *testing.T) {
		s := newFakeService(t)
		r := callCommand(t.Context(), nil, "jobs", "--server", s.URL, "--token-file", terminaltest.File(t, calltest.Token+"\n"))
		r.Wants(t, 0, "", "no jobs")
	})
	t.Run("lead to a server that may refuse the token", func(t *testing.T) {
		s := newFakeService(t)
		r := callCommand(t.Context(), nil, "jobs", "--server", s.URL, "--token", "other")
		r.Wants(t, terminal.ExitRefused, "", "APIGW.0301: X-Auth-Token is not valid (HTTP 401")
	})
	t.Run("lead to a server that may not be there", func(t *testing.T) {
		s := httptest.NewServer(nil)
		s.Close()
		r := callCommand(t.Context(), nil, "jobs", "--server", s.URL, "--token", "a")
		r.Wants(t, terminal.ExitAway, "", "no answer from "+s.URL)
	})
}
