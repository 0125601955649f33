package api_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"batchreset/api"
	"batchreset/tasks"
)

// TestAnAnswerThatIsKeptIsNeverOld: polls are answered from memory, but Redis says
// each time whether the answer holds and whose it is.
func TestAnAnswerThatIsKeptIsNeverOld(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	id := s.submit(t, "phone-1", "phone-2")
	poll := func(token string) reply { return s.do(t, http.MethodGet, "/v1/jobs/"+id, token, nil) }
	first, second := poll("acme"), poll("acme")
	if first.status != http.StatusOK || !bytes.Equal(first.Data, second.Data) ||
		first.header.Get("ETag") != second.header.Get("ETag") || second.header.Get("Retry-After") != "1" {
		t.Fatalf("two polls of an unchanged job: %+v, %+v", first, second)
	}
	if got := poll("other"); got.status != http.StatusNotFound {
		t.Errorf("another tenant is answered from memory: %+v", got)
	}
	if err := s.db.Records.Cancel(t.Context(), id, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	got := poll("acme")
	if !strings.Contains(string(got.Data), `"state":"cancelled"`) || got.header.Get("ETag") == first.header.Get("ETag") || got.header.Get("Retry-After") != "" {
		t.Errorf("after a cancel: %+v", got)
	}
	if err := s.rdb.Del(t.Context(), "reset:{"+id+"}").Err(); err != nil {
		t.Fatal(err)
	}
	if got := poll("acme"); got.status != http.StatusNotFound || got.Code != tasks.NoJob {
		t.Errorf("after its retention: %+v", got)
	}
}
