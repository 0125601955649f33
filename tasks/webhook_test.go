package tasks_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
)

// ended is a job of three items, one of each kind of ending.
func ended() tasks.Job {
	id := strings.Repeat("0a", 16)
	at := tasks.FromMillis(1795428000120)
	job := tasks.Job{
		ID: id, Tenant: "acme", CreatedAt: at, FinishedAt: at, Total: 3,
		Items: []tasks.Item{
			{ID: tasks.ItemID(id, 0), InstanceID: "phone-1", State: tasks.ItemSucceeded, Delivery: 1},
			{
				ID: tasks.ItemID(id, 1), InstanceID: "phone-2", State: tasks.ItemFailed, Delivery: 2, Attempts: 5, FinishedAt: at,
				Code: tasks.ResetFailed, Message: "no", History: []tasks.PastAttempt{{Number: 1}},
			},
			{ID: tasks.ItemID(id, 2), InstanceID: "phone-3", State: tasks.ItemUnknown, Delivery: 1, FinishedAt: at},
		},
	}
	job.Counts = tasks.Count(job.Items)
	job.State = job.Counts.State()
	return job
}

func eventIDs(job tasks.Job) []string {
	ids := []string{}
	for _, n := range job.UntoldEvents() {
		ids = append(ids, strings.TrimPrefix(job.Notice(n, tasks.Endpoint{}).EventID, job.ID))
	}
	return ids
}

func TestEventsHaveAnIDOfTheirEnding(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*tasks.Job)
		want   []string
	}{
		{"each item that did not succeed, and the job", func(*tasks.Job) {}, []string{"-1-failed-2", "-2-failed-1", "-finished-4"}},
		{"a job that was told of has no event", func(j *tasks.Job) { j.Told = 4 }, []string{"-1-failed-2", "-2-failed-1"}},
		{"nor is an item", func(j *tasks.Job) { j.Items[1].Told = 2 }, []string{"-2-failed-1", "-finished-4"}},
		{
			"but another ending is", func(j *tasks.Job) {
				j.Told, j.Items[1].Told = 4, 2
				j.Items[1].Delivery = 3
			},
			[]string{"-1-failed-3", "-2-failed-1", "-finished-5"},
		},
		{
			"a job that goes on is not told of, its failed items are", func(j *tasks.Job) { j.State = tasks.JobRunning },
			[]string{"-1-failed-2", "-2-failed-1"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			job := ended()
			row.change(&job)
			if got := eventIDs(job); !slices.Equal(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestWhatANoticeSays(t *testing.T) {
	job := ended()
	want := map[tasks.Topic]string{
		tasks.TopicItemFailed: `{"type":"job.item_failed","timestamp":"2026-11-23T10:00:00.120Z","data":{"job_id":"` + job.ID +
			`","item":{"item_id":"` + job.ID + `-1","instance_id":"phone-2","state":"failed","attempts":5,"finished_at":"2026-11-23T10:00:00.120Z",` +
			`"error_code":"RESET.1007","error_msg":"no"}}}`,
		tasks.TopicJobFinished: `{"type":"job.finished","timestamp":"2026-11-23T10:00:00.120Z","data":{"job_id":"` + job.ID +
			`","state":"partial","request_id":"","created_at":"2026-11-23T10:00:00.120Z","finished_at":"2026-11-23T10:00:00.120Z","total":3,` +
			`"counts":{"pending":0,"running":0,"retrying":0,"succeeded":1,"failed":1,"unknown":1,"cancelled":0}}}`,
	}
	for topic, body := range want {
		i := slices.IndexFunc(job.UntoldEvents(), func(n tasks.Event) bool { return n.Topic == topic })
		if got := string(job.Notice(job.UntoldEvents()[i], tasks.Endpoint{}).Body); got != body {
			t.Errorf("got  %s\nwant %s", got, body)
		}
	}
	if len(job.Items) != 3 || job.Items[1].History == nil {
		t.Error("the job itself was changed")
	}
}

func TestNoticeSurvivesTheQueue(t *testing.T) {
	job := ended()
	n := job.Notice(job.UntoldEvents()[2], tasks.Endpoint{ID: "ep_1"})
	got, err := tasks.DecodeNotice(n.Encode())
	if err != nil || fmt.Sprint(got) != fmt.Sprint(n) {
		t.Fatalf("got %+v, %v; want %+v", got, err, n)
	}
	if want := job.ID + "-finished-4-ep_1"; n.TaskID() != want {
		t.Errorf("task ID %s, want %s", n.TaskID(), want)
	}
	for name, damage := range map[string]func(*tasks.Notice){
		"without event":    func(n *tasks.Notice) { n.EventID = "" },
		"without topic":    func(n *tasks.Notice) { n.Topic = "" },
		"without tenant":   func(n *tasks.Notice) { n.Tenant = "" },
		"without endpoint": func(n *tasks.Notice) { n.EndpointID = "" },
	} {
		bad := n
		damage(&bad)
		if _, err := tasks.DecodeNotice(bad.Encode()); err == nil {
			t.Errorf("accepted a notice %s", name)
		}
	}
	for _, text := range []string{"", "x", "{}", `{"event_id":"e","event":"t","tenant":"a","endpoint_id":"ep"}`} {
		if _, err := tasks.DecodeNotice([]byte(text)); err == nil {
			t.Errorf("accepted %q", text)
		}
	}
}

func TestEndpoint(t *testing.T) {
	now := time.Now()
	e := tasks.Endpoint{Topics: []tasks.Topic{tasks.TopicJobFinished}, Secret: "new", OldSecret: "old", OldUntil: tasks.Time{Time: now}}
	if !e.Wants(tasks.TopicJobFinished) || e.Wants(tasks.TopicItemFailed) {
		t.Error("an endpoint wants what it has not asked for")
	}
	if got := e.Secrets(now.Add(-time.Second)); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("in the overlap %q sign", got)
	}
	if got := e.Secrets(now); !slices.Equal(got, []string{"new"}) {
		t.Errorf("after the overlap %q sign", got)
	}
	if b, err := json.Marshal(e); err != nil || strings.Contains(string(b), `"new"`) || strings.Contains(string(b), `"old"`) {
		t.Errorf("an endpoint tells its secrets: %s, %v", b, err)
	}
	e.DisabledAt = tasks.Time{Time: now}
	if e.Wants(tasks.TopicJobFinished) {
		t.Error("a disabled endpoint wants something")
	}
}

func TestWhatANoticeSaysOfARun(t *testing.T) {
	at, later := tasks.FromMillis(1795428000120), tasks.FromMillis(1795428060000)
	run := tasks.Run{
		ID: strings.Repeat("0b", 16), Tenant: "acme", Name: "recall 7", State: tasks.RunPartial, CreatedAt: at, Total: 3, Parts: 1, ListSHA256: "5f", Round: 1,
		Counts: tasks.Counts{Succeeded: 2, Failed: 1}, Failures: []tasks.RunFailure{{Code: tasks.ResetFailed, Count: 1}},
	}
	event := run.Event(tasks.TopicRunFinished, later.Time)
	event.Number = 7
	// Somebody has retried it before it was told.
	now := run
	now.State, now.Round, now.Counts, now.Failures = tasks.RunRunning, 2, tasks.Counts{Succeeded: 2, Running: 1}, nil
	now.Held, now.RatePerSecond, now.EstimatedFinishAt = tasks.Held{Reason: "a quota", Since: later}, 2, later
	n := now.Notice(event, tasks.Endpoint{ID: "ep_1"})
	if want := run.ID + "-finished-1795428000120-7"; n.EventID != want || n.TaskID() != want+"-ep_1" {
		t.Errorf("event %s, task %s", n.EventID, n.TaskID())
	}
	if kind, id := n.About(); kind != "run" || id != run.ID {
		t.Errorf("about %s %s", kind, id)
	}
	want := `{"type":"run.finished","timestamp":"2026-11-23T10:01:00.000Z","data":{"run_id":"` + run.ID + `","name":"recall 7","state":"partial","request_id":"",` +
		`"created_at":"2026-11-23T10:00:00.120Z","finished_at":"2026-11-23T10:01:00.000Z","total":3,"repeats":0,` +
		`"counts":{"pending":0,"running":0,"retrying":0,"succeeded":2,"failed":1,"unknown":0,"cancelled":0},` +
		`"failures":[{"error_code":"RESET.1007","count":1}],"list_sha256":"5f","max_parallel":0,"round":1}}`
	if got := string(n.Body); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
