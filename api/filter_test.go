package api_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"batchreset/api"
	"batchreset/tasks"
)

func TestListingJobsByLabelAndTime(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	before := time.Now().Add(-time.Second).Format(time.RFC3339Nano)
	for _, labels := range []string{`{"run":"n&1"}`, `{"run":"n&1","site":"north"}`, `{}`} {
		if got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["phone-1"],"labels":`+labels+`}`)); got.Code != tasks.OK {
			t.Fatal(got)
		}
	}
	label := func(texts ...string) string { return url.Values{"label": texts}.Encode() }
	for query, want := range map[string]int{
		label("run=n&1"):                        2,
		label("run=n&1", "site=north"):          1,
		label("run=n&1", "site=south"):          0,
		url.Values{"since": {before}}.Encode():  3,
		url.Values{"until": {before}}.Encode():  0,
		"since=&until=":                         3,
		"since=2026-01-02T03:04:05%2B01:00":     3,
		"until=2026-01-02T03:04:05.123456Z":     0,
		label("site=north") + "&limit=1&state=": 1,
	} {
		got := s.do(t, http.MethodGet, "/v1/jobs?"+query, "acme", nil)
		var page struct{ Jobs []any }
		if err := json.Unmarshal(got.Data, &page); err != nil || got.Code != tasks.OK || len(page.Jobs) != want {
			t.Errorf("%s: %d jobs, want %d; %+v, %v", query, len(page.Jobs), want, got, err)
		}
	}
	page := s.do(t, http.MethodGet, "/v1/jobs?limit=1&"+label("run=n&1"), "acme", nil)
	var first struct {
		Next string `json:"next_cursor"`
	}
	if err := json.Unmarshal(page.Data, &first); err != nil || first.Next == "" {
		t.Fatalf("%+v, %v", page, err)
	}
	for query, want := range map[string]string{
		"label=run":                           `label must be name=value, not "run"`,
		"label=":                              `label must be name=value, not ""`,
		"label==x":                            `label "=x" has no name`,
		"label=a%3D%00":                       `label "a=\x00" has a character that cannot be printed`,
		"label=a=" + strings.Repeat("x", 400): `label "a=x`,
		strings.Repeat("label=a=b&", 9):       "label is given 9 times, the limit is 8",
		"since=2h":                            `since must be a time such as 2026-01-02T15:04:05Z, not "2h"`,
		"since=2026-01-02":                    "since must be a time",
		"since=2026-01-02T03:04:05+01:00":     "a plus sign in a URL is written %2B",
		"until=1767323045":                    "until must be a time",
		"since=2026-01-02T03:04:05Z&until=2026-01-02T03:04:04Z": "since is after until",
		"cursor=" + first.Next:                     "cursor is of a list with other filters",
		"cursor=x" + first.Next:                    "cursor is not one that an earlier answer gave",
		"cursor=" + first.Next[:len(first.Next)-9]: "cursor is not one that an earlier answer gave",
	} {
		if got := s.do(t, http.MethodGet, "/v1/jobs?"+query, "acme", nil); got.Code != tasks.BadRequest || !strings.Contains(got.Message, want) {
			t.Errorf("%s: %s %q", query, got.Code, got.Message)
		}
	}
	if got := s.do(t, http.MethodGet, "/v1/jobs?cursor="+first.Next+"&"+label("run=n&1"), "acme", nil); got.Code != tasks.OK {
		t.Errorf("its own cursor: %+v", got)
	}
}
