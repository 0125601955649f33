package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"batchreset/api"
	"batchreset/tasks"
)

func TestTheSeedRequest(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids": ["a44uhlf7", "efjy72gs"]}`))
	if got.status != http.StatusOK || got.Code != "0" || got.Message != "ok" {
		t.Fatalf("answer %+v", got)
	}
	var data struct {
		TaskID  string              `json:"task_id"`
		CmdJobs []map[string]string `json:"cmd_jobs"`
	}
	if err := json.Unmarshal(got.Data, &data); err != nil {
		t.Fatal(err)
	}
	want := []map[string]string{
		{"instance_id": "a44uhlf7", "job_id": data.TaskID + "-0"},
		{"instance_id": "efjy72gs", "job_id": data.TaskID + "-1"},
	}
	if fmt.Sprint(data.CmdJobs) != fmt.Sprint(want) || !tasks.ValidJobID(data.TaskID) {
		t.Errorf("data %s", got.Data)
	}
	if location := got.header.Get("Location"); location != "/v1/jobs/"+data.TaskID {
		t.Errorf("Location: %s", location)
	}

	query := s.do(t, http.MethodGet, "/v1/instances/tasks/"+data.TaskID, "acme", nil)
	if want := fmt.Sprintf(`{"jobs":[{"job_id":"%[1]s-0","status":1,"error_code":"","error_msg":"","execute_msg":""},`+
		`{"job_id":"%[1]s-1","status":1,"error_code":"","error_msg":"","execute_msg":""}]}`, data.TaskID); string(query.Data) != want {
		t.Errorf("task query %s", query.Data)
	}
}

func TestBadRequestsAreRefusedByFieldAndLeaveNothing(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	ids := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf(`"phone-%d"`, i)
		}
		return `{"instance_ids":[` + strings.Join(list, ",") + `]}`
	}
	for _, row := range []struct{ name, body, message string }{
		{"an empty body", ``, "not JSON"},
		{"text", `hello`, "not JSON"},
		{"cut-off JSON", `{"instance_ids":["a"`, "not JSON"},
		{"something after the JSON", `{"instance_ids":["a"]} x`, "not JSON"},
		{"an array", `["a"]`, "must be a JSON object"},
		{"a string", `"a"`, "must be a JSON object"},
		{"null", `null`, "must be a JSON object"},
		{"no list", `{}`, "instance_ids is missing"},
		{"a null list", `{"instance_ids":null}`, "instance_ids must be an array"},
		{"a string for a list", `{"instance_ids":"a"}`, "instance_ids must be an array"},
		{"an object for a list", `{"instance_ids":{"a":1}}`, "instance_ids must be an array"},
		{"an empty list", `{"instance_ids":[]}`, "instance_ids must list at least one"},
		{"33 instances", ids(33), "the limit is 32"},
		{"a number", `{"instance_ids":["a",7]}`, "instance_ids[1] must be a string"},
		{"a null", `{"instance_ids":[null]}`, "instance_ids[0] must be a string"},
		{"an empty ID", `{"instance_ids":[""]}`, "instance_ids[0] is empty"},
		{"a space", `{"instance_ids":["a b"]}`, "instance_ids[0]"},
		{"a slash", `{"instance_ids":["a/b"]}`, "instance_ids[0]"},
		{"a control character", `{"instance_ids":["a\u0007"]}`, "instance_ids[0]"},
		{"invalid UTF-8", "{\"instance_ids\":[\"a\xff\"]}", "instance_ids[0]"},
		{"a fraction of a failure", `{"instance_ids":["a"],"max_failures":0.5}`, "max_failures must be"},
		{"dry_run of text", `{"instance_ids":["a"],"dry_run":"yes"}`, "dry_run must be true or false"},
		{"dry_run null", `{"instance_ids":["a"],"dry_run":null}`, "dry_run must be true or false"},
		{"a number for a reason", `{"instance_ids":["a"],"reason":7}`, "reason must be a string"},
		{"a reason of 257 characters", `{"instance_ids":["a"],"reason":"` + strings.Repeat("ü", 257) + `"}`, "reason is 257 characters long, the limit is 256"},
		{"a reason of two lines", `{"instance_ids":["a"],"reason":"a\nb"}`, "reason has a character"},
		{"labels in an array", `{"instance_ids":["a"],"labels":["x"]}`, "labels must be an object of strings"},
		{"a label that is a number", `{"instance_ids":["a"],"labels":{"x":1}}`, "labels must be an object of strings"},
		{"a label that is null", `{"instance_ids":["a"],"labels":{"x":null}}`, "labels must be an object of strings"},
		{"nine labels", `{"instance_ids":["a"],"labels":{"1":"","2":"","3":"","4":"","5":"","6":"","7":"","8":"","9":""}}`, "labels has 9 labels, the limit is 8"},
		{"a label without a name", `{"instance_ids":["a"],"labels":{"":"x"}}`, "labels has a label without a name"},
		{"a long label", `{"instance_ids":["a"],"labels":{"x":"` + strings.Repeat("y", 257) + `"}}`, `labels has the label "x", which is 257`},
		{"a time in words", `{"instance_ids":["a"],"not_before":"tomorrow"}`, `not_before must be a time such as "2026-01-02T15:04:05Z", not "tomorrow"`},
		{"a time in seconds", `{"instance_ids":["a"],"not_before":1790000000}`, "not_before must be a time"},
		{"a time in the past", `{"instance_ids":["a"],"not_before":"2020-01-01T00:00:00Z"}`, "not_before is in the past"},
		{"a time in a year", `{"instance_ids":["a"],"not_before":"` + time.Now().AddDate(1, 0, 0).Format(time.RFC3339) + `"}`, "not_before is more than 7 days ahead"},
		{"a dry run in the past", `{"instance_ids":["a"],"dry_run":true,"not_before":"2020-01-01T00:00:00Z"}`, "not_before is in the past"},
		{"65 characters", `{"instance_ids":["` + strings.Repeat("x", 65) + `"]}`, "instance_ids[0] is 65 bytes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(row.body))
			if got.status != http.StatusBadRequest || got.Code != tasks.BadRequest || !strings.Contains(got.Message, row.message) {
				t.Errorf("answer %d %s %q, want it to say %q", got.status, got.Code, got.Message, row.message)
			}
			s.wantNothingStored(t)
		})
	}
}

func TestRepeatedInstancesAreOneItem(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	job, err := s.db.Jobs.Job(t.Context(), s.submit(t, "b", "a", "b"))
	if err != nil || job.Total != 2 || job.Items[0].InstanceID != "b" || job.Items[1].InstanceID != "a" {
		t.Errorf("job %+v, %v", job, err)
	}
}

func TestAFormContentTypeIsReadAsJSON(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a"]}`),
		"Content-Type", "application/x-www-form-urlencoded")
	if got.Code != tasks.OK {
		t.Errorf("answer %+v", got)
	}
}

func TestMaxFailuresIsChecked(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	for _, value := range []string{"-1", `"1"`, "1000000001", "1.5", "null", "[]", "1e99"} {
		got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a","b"],"max_failures":`+value+`}`))
		if got.status != http.StatusBadRequest || got.Code != tasks.BadRequest || !strings.HasPrefix(got.Message, "max_failures") {
			t.Errorf("%s: answer %+v", value, got)
		}
	}
	s.wantNothingStored(t)
	// A pipeline may say 5 whatever the length of its lists.
	got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a","b"],"max_failures":5}`))
	if got.status != http.StatusOK {
		t.Errorf("more failures than instances: answer %+v", got)
	}
}

// FuzzBatchReset: no body makes a 500, a panic, or a job with an instance ID
// that is not one.
func FuzzBatchReset(f *testing.F) {
	for _, seed := range []string{
		`{"instance_ids":["a44uhlf7","efjy72gs"]}`, `{"instance_ids":null}`, `{"instance_ids":[1]}`,
		`{"INSTANCE_IDS":["a"]}`, `[]`, `{`, "\xff", `{"instance_ids":["a"],"instance_ids":["b"]}`,
	} {
		f.Add([]byte(seed))
	}
	s := newService(f, api.Config{AllowUnregistered: true})
	f.Fuzz(func(t *testing.T, body []byte) {
		got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(string(body)))
		switch {
		case got.status == http.StatusOK && got.Code == tasks.OK:
			var data struct {
				CmdJobs []struct {
					InstanceID string `json:"instance_id"`
				} `json:"cmd_jobs"`
			}
			if err := json.Unmarshal(got.Data, &data); err != nil || len(data.CmdJobs) == 0 {
				t.Fatalf("accepted without instances: %s, %v", got.Data, err)
			}
			for _, j := range data.CmdJobs {
				if err := tasks.CheckInstanceID(j.InstanceID); err != nil {
					t.Fatalf("accepted an instance ID that %v", err)
				}
			}
		case got.status == http.StatusBadRequest && got.Code == tasks.BadRequest && got.Message != "":
		case got.status == http.StatusRequestEntityTooLarge:
		default:
			t.Fatalf("%q answers %d %s %q", body, got.status, got.Code, got.Message)
		}
	})
}
