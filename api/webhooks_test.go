package api_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"batchreset/tasks"
)

// The contract tells what endpoints are sent, too.
func TestNoticesAreAsTheContractHasThem(t *testing.T) {
	c, err := readContract()
	if err != nil {
		t.Fatal(err)
	}
	now, id := tasks.Time{Time: time.Now()}, tasks.NewJobID()
	job := tasks.Job{
		ID: id, Tenant: "acme", CreatedAt: now, StartedAt: now, FinishedAt: now, Total: 2, Reason: "a<b", Labels: map[string]string{"a": "b"},
		Items: []tasks.Item{
			{ID: tasks.ItemID(id, 0), InstanceID: "phone-1", State: tasks.ItemSucceeded, Delivery: 1, FinishedAt: now},
			{
				ID: tasks.ItemID(id, 1), InstanceID: "phone-2", State: tasks.ItemFailed, Delivery: 1, FinishedAt: now, StartedAt: now,
				Attempts: 2, Code: tasks.ResetFailed, Message: "no", History: []tasks.PastAttempt{{Number: 1, Outcome: "failed"}},
			},
		},
	}
	job.Counts = tasks.Count(job.Items)
	job.State = job.Counts.State()
	var notices []tasks.Notice
	for _, event := range job.UntoldEvents() {
		notices = append(notices, job.Notice(event, tasks.Endpoint{}))
	}
	notices = append(notices, noticesOfRun(now)...)
	told := map[tasks.Topic]bool{}
	for _, n := range notices {
		told[n.Topic] = true
		schema, err := c.compiler.Compile("openapi.json#/webhooks/" + string(n.Topic) + "/post/requestBody/content/application~1json/schema")
		if err != nil {
			t.Fatal(err)
		}
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(n.Body))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s is not as the contract has it: %v\n%s", n.Topic, err, n.Body)
		}
		other, _ := jsonschema.UnmarshalJSON(strings.NewReader(`{"type":"other","timestamp":"2026-01-02T15:05:09.120Z","data":{}}`))
		if schema.Validate(other) == nil {
			t.Errorf("the contract of %s allows anything", n.Topic)
		}
	}
	if len(told) != len(tasks.Topics) {
		t.Errorf("tested %v of %v", told, tasks.Topics)
	}
}

// noticesOfRun are one of each topic, with all that can be in them.
func noticesOfRun(now tasks.Time) (notices []tasks.Notice) {
	run := tasks.Run{
		ID: tasks.NewJobID(), Tenant: "acme", Name: "recall 7", Principal: "alice", CreatedAt: now, Total: 40, Parts: 2, ListSHA256: tasks.ListHash([]string{"phone-1"}),
		Reason: "a<b", Labels: map[string]string{"a": "b"}, Counts: tasks.Counts{Pending: 40}, Round: 1, RunOptions: tasks.RunOptions{MaxParallel: 32},
		Approval: &tasks.Approval{Approvers: 1, ExpiresAt: now, Decisions: []tasks.RunDecision{}},
	}
	tell := func(topic tasks.Topic, state tasks.RunState) {
		run.State = state
		event := run.Event(topic, now.Time)
		event.Principal = "bob"
		notices = append(notices, run.Notice(event, tasks.Endpoint{}))
	}
	tell(tasks.TopicRunWaiting, tasks.RunWaiting)
	run.Approval.Decisions = append(run.Approval.Decisions, tasks.RunDecision{Principal: "bob", Decision: tasks.Approved, Comment: "looked at it", At: now})
	tell(tasks.TopicRunDecided, tasks.RunWaiting)
	run.Held.Reason = "paused by hand"
	tell(tasks.TopicRunPaused, tasks.RunPaused)
	tell(tasks.TopicRunFinished, tasks.RunPartial)
	return notices
}
