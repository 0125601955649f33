package redisdb_test

import (
	"encoding/json"
	"strings"
	"testing"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func TestTheRecordKeepsWhoAsked(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		for _, want := range []struct{ by, from string }{
			{"token 3fa1c09b7e55d210", "2001:db8::7"}, {"token 3fa1c09b7e55d210", ""}, {"", "192.0.2.7"}, {"", ""},
		} {
			job, err := w.db.Records.Submit(t.Context(), tasks.Submission{
				Tenant: "acme", InstanceIDs: []string{"phone-1", "phone-2"}, AllowUnregistered: true, By: want.by, From: want.from,
				Reason: "recall", IdempotencyKey: want.by + want.from,
			})
			if err != nil {
				t.Fatal(err)
			}
			read, err := w.db.Jobs.Job(t.Context(), job.ID)
			if err != nil || read.By != want.by || read.From != want.from || read.Reason != "recall" || read.Total != 2 {
				t.Errorf("%+v: the record has %q %q, %v", want, read.By, read.From, err)
			}
			if job.By != want.by || job.From != want.from {
				t.Errorf("%+v: the job has %q %q", want, job.By, job.From)
			}
			public, err := json.Marshal(read)
			if err != nil || want.by != "" && strings.Contains(string(public), want.by) || want.from != "" && strings.Contains(string(public), want.from) {
				t.Errorf("the public record is %s, %v", public, err)
			}
		}
	})
}

func TestARecordOfAnOlderVersionDoesNotSayWhoAsked(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job, err := w.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true, By: "token x", From: "192.0.2.7"})
		if err != nil {
			t.Fatal(err)
		}
		if n := w.rdb.HDel(t.Context(), "reset:{"+job.ID+"}", "by").Val(); n != 1 {
			t.Fatal("the record does not have the field by")
		}
		if read, err := w.db.Jobs.Job(t.Context(), job.ID); err != nil || read.By != "" || read.From != "" || read.Total != 1 {
			t.Errorf("%+v, %v", read, err)
		}
	})
}
