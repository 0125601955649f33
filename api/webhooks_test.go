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
	told := map[tasks.Topic]bool{}
	for _, event := range job.UntoldEvents() {
		told[event.Topic] = true
		schema, err := c.compiler.Compile("openapi.json#/webhooks/" + string(event.Topic) + "/post/requestBody/content/application~1json/schema")
		if err != nil {
			t.Fatal(err)
		}
		body := job.Notice(event, tasks.Endpoint{}).Body
		value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(value); err != nil {
			t.Errorf("%s is not as the contract has it: %v\n%s", event.Topic, err, body)
		}
		other, _ := jsonschema.UnmarshalJSON(strings.NewReader(`{"type":"other","timestamp":"2026-01-02T15:05:09.120Z","data":{}}`))
		if schema.Validate(other) == nil {
			t.Errorf("the contract of %s allows anything", event.Topic)
		}
	}
	if len(told) != len(tasks.Topics) {
		t.Errorf("tested %v of %v", told, tasks.Topics)
	}
}
