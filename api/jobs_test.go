package api_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"batchreset/api"
	"batchreset/tasks"
)

func TestTheJobStatusRecord(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	id := s.submit(t, "phone-1", "phone-2")
	got := s.do(t, http.MethodGet, "/v1/jobs/"+id, "acme", nil)
	if got.header.Get("Retry-After") == "" {
		t.Error("no Retry-After on an unfinished job")
	}
	etag := got.header.Get("ETag")
	for _, match := range []string{etag, "W/" + etag, `"other", ` + etag, "*"} {
		again := s.do(t, http.MethodGet, "/v1/jobs/"+id, "acme", nil, "If-None-Match", match)
		if again.status != http.StatusNotModified || again.header.Get("ETag") != etag {
			t.Errorf("If-None-Match: %s answers %d", match, again.status)
		}
	}

	job, err := s.db.Jobs.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for n, outcome := range []tasks.Outcome{
		{Transition: tasks.Succeed},
		{Transition: tasks.Fail, Code: "CPS.0005", Message: "Phone not found."},
	} {
		d := job.Deliveries()[n]
		if _, err := s.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := s.db.Attempts.Finish(t.Context(), d, "t", outcome, false); err != nil {
			t.Fatal(err)
		}
	}
	got = s.do(t, http.MethodGet, "/v1/jobs/"+id, "acme", nil, "If-None-Match", etag)
	if got.status != http.StatusOK || got.header.Get("Retry-After") != "" {
		t.Errorf("final job: %d, Retry-After %q", got.status, got.header.Get("Retry-After"))
	}
	var record map[string]any
	if err := json.Unmarshal(got.Data, &record); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"created_at", "started_at", "finished_at"} {
		at, _ := record[field].(string)
		if _, err := time.Parse("2006-01-02T15:04:05.000Z", at); err != nil {
			t.Errorf("%s: %v", field, err)
		}
	}
	if record["job_id"] != id || record["state"] != "partial" || record["total"] != 2.0 || record["request_id"] == "" {
		t.Errorf("record %s", got.Data)
	}
	items, _ := record["items"].([]any)
	failed, _ := items[1].(map[string]any)
	if failed["item_id"] != id+"-1" || failed["state"] != "failed" || failed["attempts"] != 1.0 ||
		failed["error_code"] != "CPS.0005" || failed["error_msg"] != "Phone not found." {
		t.Errorf("failed item %v", failed)
	}

	query := s.do(t, http.MethodGet, "/v1/instances/tasks/"+id, "acme", nil)
	for _, want := range []string{`"status":2`, `"status":-1,"error_code":"CPS.0005","error_msg":"Phone not found."`} {
		if !strings.Contains(string(query.Data), want) {
			t.Errorf("task query %s lacks %s", query.Data, want)
		}
	}
}

func TestListingJobs(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	first, second := s.submit(t, "phone-1"), s.submit(t, "phone-2")
	type list struct {
		Jobs []struct {
			ID    string `json:"job_id"`
			Items []any  `json:"items"`
		} `json:"jobs"`
		Next string `json:"next_cursor"`
	}
	ask := func(query, tenant string) (l list) {
		t.Helper()
		got := s.do(t, http.MethodGet, "/v1/jobs"+query, tenant, nil)
		if err := json.Unmarshal(got.Data, &l); err != nil || got.status != http.StatusOK || l.Jobs == nil {
			t.Fatalf("%s: %+v, %v", query, got, err)
		}
		return l
	}
	page := ask("?limit=1", "acme")
	if len(page.Jobs) != 1 || page.Jobs[0].Items != nil || page.Next == "" {
		t.Fatalf("first page %+v", page)
	}
	rest := ask("?cursor="+page.Next, "acme")
	if len(rest.Jobs) != 1 || rest.Jobs[0].ID == page.Jobs[0].ID || rest.Next != "" {
		t.Errorf("second page %+v", rest)
	}
	if l := ask("?instance_id=phone-2", "acme"); len(l.Jobs) != 1 || l.Jobs[0].ID != second {
		t.Errorf("by instance %+v, want %s and not %s", l, second, first)
	}
	if l := ask("?state=succeeded", "acme"); len(l.Jobs) != 0 {
		t.Errorf("by state %+v", l)
	}
	if l := ask("", "other"); len(l.Jobs) != 0 {
		t.Errorf("another tenant sees %+v", l)
	}
	for query, field := range map[string]string{
		"?state=done": "state", "?limit=0": "limit", "?limit=101": "limit", "?limit=x": "limit",
		"?cursor=x": "cursor", "?instance_id=a%20b": "instance_id",
	} {
		if got := s.do(t, http.MethodGet, "/v1/jobs"+query, "acme", nil); got.Code != tasks.BadRequest || !strings.HasPrefix(got.Message, field) {
			t.Errorf("%s: %s %q", query, got.Code, got.Message)
		}
	}
}
