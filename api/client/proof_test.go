package client

import (
	"net/http"
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
