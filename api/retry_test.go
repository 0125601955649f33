package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"batchreset/api"
	"batchreset/tasks"
)

func TestCancelAndRetry(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	id := s.submit(t, "phone-1", "phone-2")
	post := func(what, job, tenant string) reply {
		t.Helper()
		return s.do(t, http.MethodPost, "/v1/jobs/"+job+"/"+what, tenant, nil)
	}
	for _, what := range []string{"cancel", "retry"} {
		if got := post(what, id, "other"); got.status != http.StatusNotFound || got.Code != tasks.NoJob {
			t.Errorf("%s of another tenant's job: %+v", what, got)
		}
		if got := post(what, tasks.NewJobID(), "acme"); got.status != http.StatusNotFound || got.Code != tasks.NoJob {
			t.Errorf("%s of no job: %+v", what, got)
		}
	}
	if got := post("retry", id, "acme"); got.status != http.StatusConflict || got.Code != tasks.JobFinal {
		t.Errorf("retry of a job that has not ended: %+v", got)
	}
	cancelled := post("cancel", id, "acme")
	if cancelled.status != http.StatusOK || !strings.Contains(string(cancelled.Data), `"state":"cancelled"`) ||
		!strings.Contains(string(cancelled.Data), `"error_code":"RESET.1003"`) {
		t.Errorf("cancel: %+v", cancelled)
	}
	if got := post("cancel", id, "acme"); got.status != http.StatusConflict || got.Code != tasks.JobFinal {
		t.Errorf("second cancel: %+v", got)
	}
	if got := post("retry", id, "acme"); got.status != http.StatusConflict || got.Code != tasks.JobFinal ||
		got.Message != "no item is failed; 2 are cancelled: name the state to retry them" {
		t.Errorf("retry of what failed, where nothing did: %+v", got)
	}
	retried := s.do(t, http.MethodPost, "/v1/jobs/"+id+"/retry", "acme", strings.NewReader(`{"states":["cancelled"]}`))
	if retried.status != http.StatusOK || !strings.Contains(string(retried.Data), `"state":"pending"`) ||
		strings.Contains(string(retried.Data), "RESET.1003") {
		t.Errorf("retry: %+v", retried)
	}
	if got := post("retry", id, "acme"); got.status != http.StatusConflict {
		t.Errorf("second retry: %+v", got)
	}
}

func TestARetryNamesItsStates(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	id := s.submit(t, "failed-1", "unknown-1", "cancelled-1", "good-1")
	job, err := s.db.Jobs.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for n, event := range map[int]tasks.Transition{0: tasks.Fail, 1: tasks.LoseTrack, 3: tasks.Succeed} {
		d := job.Deliveries()[n]
		if _, err := s.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := s.db.Attempts.Finish(t.Context(), d, "t", tasks.Outcome{Transition: event, Code: "CPS.0005"}, true); err != nil {
			t.Fatal(err)
		}
	}
	retry := func(body string) reply {
		t.Helper()
		return s.do(t, http.MethodPost, "/v1/jobs/"+id+"/retry", "acme", strings.NewReader(body))
	}
	if got := retry(`{"states":["unknown"]}`); got.Code != tasks.JobFinal || !strings.Contains(got.Message, "has not ended") {
		t.Errorf("retry of a job that has not ended: %+v", got)
	}
	if err := s.db.Records.Cancel(t.Context(), id, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	s.rdb.Del(t.Context(), "reset:audit")
	for body, want := range map[string]string{
		`{"states":[]}`:                      "states must name at least one of failed, unknown or cancelled",
		`{"states":null}`:                    "states must be an array of strings",
		`{"states":"failed"}`:                "states must be an array of strings",
		`{"states":[1]}`:                     "states must be an array of strings",
		`{"states":["failed",null]}`:         "states must be an array of strings",
		`{"states":["failed","failed"]}`:     `states has "failed" twice`,
		`{"states":["succeeded"]}`:           `states has "succeeded", which is none of failed, unknown or cancelled`,
		`{"states":["UNKNOWN"]}`:             `states has "UNKNOWN", which is none of failed, unknown or cancelled; did you mean "unknown"?`,
		`{"states":["failed","everything"]}`: `states has "everything", which is none of failed, unknown or cancelled`,
		`["failed"]`:                         "the body must be a JSON object",
		`failed`:                             "the body is not JSON",
	} {
		if got := retry(body); got.status != http.StatusBadRequest || got.Code != tasks.BadRequest || !strings.HasPrefix(got.Message, want) {
			t.Errorf("%s: %d %s %q, want %q", body, got.status, got.Code, got.Message, want)
		}
	}
	if now, err := s.db.Jobs.Job(t.Context(), id); err != nil || !now.State.Final() {
		t.Fatalf("job %+v, %v", now, err)
	}
	if got := s.trail(t); got != nil {
		t.Errorf("what was refused is in the trail: %v", got)
	}
	// An empty body and an empty object mean what failed; each retry is about its own.
	for _, row := range []struct{ body, opened string }{
		{"", "failed-1"},
		{"{}", "failed-1"},
		{`{"states":["unknown"]}`, "unknown-1"},
		{`{"states":["cancelled"]}`, "cancelled-1"},
		{`{"states":["unknown","cancelled"]}`, "unknown-1 cancelled-1"},
	} {
		s.rdb.Del(t.Context(), "reset:audit")
		before, err := s.db.Jobs.Job(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if got := retry(row.body); got.status != http.StatusOK {
			t.Fatalf("%s: %+v", row.body, got)
		}
		after, err := s.db.Jobs.Job(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var opened []string
		for n, it := range after.Items {
			if !it.State.Final() {
				opened = append(opened, it.InstanceID)
				// As it was, for the next retry.
				event := map[tasks.ItemState]tasks.Transition{tasks.ItemFailed: tasks.Fail, tasks.ItemUnknown: tasks.LoseTrack}[before.Items[n].State]
				if event == "" {
					continue
				}
				d := tasks.Delivery{ItemID: it.ID, Number: it.Delivery, InstanceID: it.InstanceID, Tenant: "acme", AllowUnregistered: true}
				s.rdb.Del(t.Context(), "reset:lock:{"+it.InstanceID+"}")
				if _, err := s.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); err != nil {
					t.Fatal(err)
				}
				if _, err := s.db.Attempts.Finish(t.Context(), d, "t", tasks.Outcome{Transition: event, Code: "CPS.0005"}, true); err != nil {
					t.Fatal(err)
				}
			} else if fmt.Sprint(it) != fmt.Sprint(before.Items[n]) {
				t.Errorf("%s: item %+v, before %+v", row.body, it, before.Items[n])
			}
		}
		if got := strings.Join(opened, " "); got != row.opened {
			t.Errorf("%s: opened %s, want %s", row.body, got, row.opened)
		}
		if trail := s.trail(t); len(trail) != 1 || !strings.Contains(trail[0], " ["+row.opened+"] ") {
			t.Errorf("%s: trail %v", row.body, trail)
		}
		if job, err = s.db.Jobs.Job(t.Context(), id); err == nil && !job.State.Final() {
			err = s.db.Records.Cancel(t.Context(), id, tasks.Actor{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
