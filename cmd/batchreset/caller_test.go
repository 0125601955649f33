package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const testToken = "demo-token"

// callResult is what a command left behind.
type callResult struct {
	code     int
	out, err string
}

// call runs a caller's command line against the service.
func (s *fakeService) call(t *testing.T, args ...string) callResult {
	t.Helper()
	return s.callWith(t.Context(), strings.NewReader(""), args...)
}

func (s *fakeService) callWith(ctx context.Context, in io.Reader, args ...string) callResult {
	return callCommand(ctx, in, append(args, "--server", s.URL, "--token", testToken)...)
}

func callCommand(ctx context.Context, in io.Reader, args ...string) callResult {
	var out, errs bytes.Buffer
	err := callOn(ctx, &streams{in: in, out: &out, err: &errs}, args...)
	complain(&errs, err, args, nil)
	return callResult{exitCode(err), out.String(), errs.String()}
}

func callOn(ctx context.Context, std *streams, args ...string) error {
	root := newRootCommand(nil, std)
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// interruptible is a context that interrupt ends as Ctrl-C does.
func interruptible(t *testing.T) (ctx context.Context, interrupt func()) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	return ctx, func() { cancel(&died{syscall.SIGINT}) }
}

// exitInterrupted is what a shell says of a command that was interrupted.
const exitInterrupted = exitSignal + int(syscall.SIGINT)

func (r callResult) want(t *testing.T, code int, out string, saying ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	if r.out != out {
		t.Errorf("standard output is %q, want %q", r.out, out)
	}
	r.says(t, saying...)
	if t.Failed() {
		t.Logf("standard error: %s", r.err)
	}
}

func (r callResult) says(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(r.err, part) {
			t.Errorf("standard error %q does not say %q", r.err, part)
		}
	}
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

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ids.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
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
		{"refuse an empty token file", []string{"--token-file", writeFile(t, "\n")}, "--token-file: "},
		{"refuse a token with a space", []string{"--token", "a b"}, "--token has spaces"},
		{"refuse a server that is no URL", []string{"--token", "a", "--server", "localhost:8080"}, `--server "localhost:8080" is not a URL`},
		{"refuse another output", []string{"--output", "xml"}, `must be one of text, json, jsonl, yaml, csv, table`},
	} {
		t.Run(row.name, func(t *testing.T) {
			callCommand(t.Context(), nil, append([]string{"jobs"}, row.args...)...).want(t, exitUsage, "", row.want)
		})
	}
	t.Run("take the token from a file", func(t *testing.T) {
		s := newFakeService(t)
		r := callCommand(t.Context(), nil, "jobs", "--server", s.URL, "--token-file", writeFile(t, testToken+"\n"))
		r.want(t, 0, "", "no jobs")
	})
	t.Run("lead to a server that may refuse the token", func(t *testing.T) {
		s := newFakeService(t)
		r := callCommand(t.Context(), nil, "jobs", "--server", s.URL, "--token", "other")
		r.want(t, exitRefused, "", "APIGW.0301: X-Auth-Token is not valid (HTTP 401")
	})
	t.Run("lead to a server that may not be there", func(t *testing.T) {
		s := httptest.NewServer(nil)
		s.Close()
		r := callCommand(t.Context(), nil, "jobs", "--server", s.URL, "--token", "a")
		r.want(t, exitAway, "", "no answer from "+s.URL)
	})
}
