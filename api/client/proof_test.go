package client

import (
	"errors"
	"net/http"
	"strings"
	"testing"
)

func TestProof(t *testing.T) {
	const compact = "e30.e30.c2ln"
	t.Run("returns what the service has signed, byte by byte", func(t *testing.T) {
		s := serve(t, step{header: map[string]string{"Content-Type": typeJOSE}, body: compact})
		c, _ := connect(t, s.URL)
		if got, err := c.Proof(t.Context(), jobID); got != compact || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if r := s.requests[0]; r.Method != http.MethodGet || r.URL.Path != "/v1/jobs/"+jobID+"/proof" || r.Header.Get("Accept") != typeJOSE {
			t.Errorf("sent %s %s %v", r.Method, r.URL.Path, r.Header)
		}
	})
	for name, answer := range map[string]step{
		"a proxy's page":     {header: map[string]string{"Content-Type": "text/html"}, body: compact},
		"an envelope":        {body: okay(`{"job_id":"x"}`)},
		"nothing":            {header: map[string]string{"Content-Type": typeJOSE}, body: ""},
		"too long an answer": {header: map[string]string{"Content-Type": typeJOSE}, body: string(make([]byte, maxAnswer+1))},
	} {
		t.Run("takes no proof from "+name, func(t *testing.T) {
			c, _ := connect(t, serve(t, answer).URL)
			if got, err := c.Proof(t.Context(), jobID); err == nil {
				t.Errorf("got %.80q", got)
			}
		})
	}
	t.Run("takes no record from a proof", func(t *testing.T) {
		c, _ := connect(t, serve(t, step{header: map[string]string{"Content-Type": typeJOSE}, body: compact}).URL)
		if got, err := c.Job(t.Context(), jobID); err == nil {
			t.Errorf("got %+v", got)
		}
	})
}

func TestRunProof(t *testing.T) {
	const begin, signature = `{"run_id":"x","total":1}` + "\n" + `{"instance_id":"a \u003c"}` + "\n", `{"signature":"e30.e30.c2ln"}` + "\n"
	lines := map[string]string{"Content-Type": typeLines}
	read := func(s step) (string, *script, error) {
		server := serve(t, s)
		c, _ := connect(t, server.URL)
		var b strings.Builder
		err := c.Runs().Proof(t.Context(), jobID, &b)
		return b.String(), server, err
	}
	got, s, err := read(step{header: lines, body: begin + signature})
	if got != begin+signature || err != nil || s.requests[0].URL.Path != "/v1/runs/"+jobID+"/proof" {
		t.Errorf("got %q, %v, asked %s", got, err, s.requests[0].URL)
	}
	for name, answer := range map[string]step{
		"that breaks off":         {header: lines, body: begin, short: true},
		"without a signature":     {header: lines, body: begin},
		"with nothing in it":      {header: lines},
		"that ends within a line": {header: lines, body: begin + signature[:9]},
	} {
		if got, _, err := read(answer); !errors.Is(err, ErrNoAnswer) || strings.Contains(got, "c2ln") {
			t.Errorf("an answer %s: %q, %v", name, got, err)
		}
	}
	if got, _, err := read(step{header: map[string]string{"Content-Type": "text/html"}, body: begin + signature}); err == nil || got != "" {
		t.Errorf("a proxy's page: %q, %v", got, err)
	}
	_, _, err = read(step{status: 409, body: `{"error_code":"RESET.0003","error_msg":"the run has not ended"}`})
	if e, ok := errors.AsType[*Error](err); !ok || e.HTTPStatus != http.StatusConflict {
		t.Errorf("a run that has not ended: %v", err)
	}
	full := errors.New("the disk is full")
	c, _ := connect(t, serve(t, step{header: lines, body: begin + signature}).URL)
	if err := c.Runs().Proof(t.Context(), jobID, failingWriter{full}); !errors.Is(err, full) {
		t.Errorf("a full disk: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }
