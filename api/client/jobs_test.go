package client

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestJobs(t *testing.T) {
	other := strings.Replace(running, jobID, strings.Repeat("f", 32), 1)
	list := func(t *testing.T, c *Client, atMost int) (ids []string) {
		t.Helper()
		for job, err := range c.Jobs(t.Context(), JobsFilter{
			State: "running", InstanceID: "i:1", Limit: 5, Labels: []string{"run=a&b", "x=="},
			Since: time.Date(2026, 1, 2, 4, 4, 5, 500, time.FixedZone("", 3600)), Until: time.Date(2026, 1, 3, 0, 0, 0, 0, time.UTC),
		}) {
			if err != nil {
				t.Fatal(err)
			}
			if ids = append(ids, job.ID); len(ids) == atMost {
				break
			}
		}
		return ids
	}
	pages := []step{{body: okay(`{"jobs":[` + running + `,` + other + `],"next_cursor":"c/2"}`)}, {body: okay(`{"jobs":[` + done + `]}`)}}
	t.Run("follows the cursor, with the filter", func(t *testing.T) {
		s := serve(t, pages...)
		c, _ := connect(t, s.URL)
		if got := list(t, c, 100); !slices.Equal(got, []string{jobID, strings.Repeat("f", 32), jobID}) {
			t.Errorf("listed %v", got)
		}
		const filter = "instance_id=i%3A1&label=run%3Da%26b&label=x%3D%3D&limit=5" +
			"&since=2026-01-02T03%3A04%3A05.0000005Z&state=running&until=2026-01-03T00%3A00%3A00Z"
		for i, want := range []string{filter, "cursor=c%2F2&" + filter} {
			if got := s.requests[i].URL.RawQuery; got != want {
				t.Errorf("query %s, want %s", got, want)
			}
		}
	})
	t.Run("asks for no page that nobody wants", func(t *testing.T) {
		s := serve(t, pages...)
		c, _ := connect(t, s.URL)
		if got := list(t, c, 2); len(got) != 2 || s.seen() != 1 {
			t.Errorf("listed %v with %d requests", got, s.seen())
		}
	})
	t.Run("ends with an error", func(t *testing.T) {
		s := serve(t, pages[0], step{status: 400, body: `{"error_code":"KOOPHONE.API.1000","error_msg":"cursor"}`})
		c, _ := connect(t, s.URL)
		var last error
		n := 0
		for _, err := range c.Jobs(t.Context(), JobsFilter{}) {
			n++
			last = err
		}
		if e, ok := errors.AsType[*Error](last); n != 3 || !ok || e.Code != "KOOPHONE.API.1000" {
			t.Errorf("%d turns, the last with %v", n, last)
		}
	})
}

// TestAnswersWithoutWhatWasAskedFor: nothing said is not nothing there. A "cancel --all" would
// have found no job.
func TestAnswersWithoutWhatWasAskedFor(t *testing.T) {
	ask := map[string]func(c *Client) error{
		"jobs": func(c *Client) (err error) {
			for _, err = range c.Jobs(t.Context(), JobsFilter{}) {
			}
			return err
		},
		"ids":    func(c *Client) error { _, _, err := c.JobsByID(t.Context(), jobID); return err },
		"whoami": func(c *Client) error { _, err := c.WhoAmI(t.Context()); return err },
		"dry run": func(c *Client) error {
			_, err := c.DryRun(t.Context(), Batch{InstanceIDs: []string{"i-1"}})
			return err
		},
	}
	for what, data := range map[string][]string{
		"jobs": {`{}`, `{"jobs":null}`, `{"jobs":[{}]}`}, "ids": {`{}`, `{"missing":[]}`, `{"jobs":[{"job_id":"` + jobID + `"}]}`},
		"whoami": {`{}`, `{"token_id":"a"}`, `{"tenant":"b"}`}, "dry run": {`{"dry_run":true}`, `{"dry_run":true,"instances":[]}`},
	} {
		for _, data := range data {
			s := serve(t, step{body: okay(data)})
			c, _ := connect(t, s.URL)
			if e, ok := errors.AsType[*Error](ask[what](c)); !ok || e.HTTPStatus != 200 {
				t.Errorf("%s takes %s for an answer: %v", what, data, e)
			}
		}
	}
}

func TestJobsByID(t *testing.T) {
	s := serve(t, step{body: okay(`{"jobs":[` + running + `]}`)}, step{body: okay(`{"jobs":[],"missing":["x"]}`)})
	c, _ := connect(t, s.URL)
	var ids []string
	for n := range 101 {
		ids = append(ids, fmt.Sprintf("%032x", n))
	}
	jobs, missing, err := c.JobsByID(t.Context(), ids...)
	if err != nil || len(jobs) != 1 || !slices.Equal(missing, []string{"x"}) {
		t.Errorf("%v, missing %v, %v", jobs, missing, err)
	}
	for i, want := range []string{strings.Join(ids[:100], ","), ids[100]} {
		if got := s.requests[i].URL.Query().Get("ids"); got != want {
			t.Errorf("request %d asks for %s", i, got)
		}
	}
}
