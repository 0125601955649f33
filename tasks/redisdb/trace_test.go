package redisdb_test

import (
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func TestEveryDeliveryBelongsToTheTraceOfItsJob(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
		for _, want := range []string{traceparent, ""} {
			job, err := w.db.Records.Submit(t.Context(), tasks.Submission{
				Tenant: "acme", InstanceIDs: []string{"a"}, AllowUnregistered: true, Reason: "r", Labels: map[string]string{"l": "v"}, Traceparent: want,
			})
			if err != nil {
				t.Fatal(err)
			}
			d := job.Deliveries()[0]
			if err := w.db.Sweep.Redeliver(t.Context(), w.read(t, job.ID), d, func(int) time.Duration { return 0 }); err != nil {
				t.Fatal(err)
			}
			read := w.read(t, job.ID)
			if read.Traceparent != want || job.Traceparent != want || read.Reason != "r" || read.Labels["l"] != "v" {
				t.Errorf("record %+v", read)
			}
			for _, d := range []tasks.Delivery{d, read.Deliveries()[0]} {
				info, err := w.db.Redis.NewInspector().GetTaskInfo(job.Queue, d.TaskID())
				if err != nil || info.Headers["traceparent"] != want || want == "" && len(info.Headers) != 0 {
					t.Errorf("delivery %d: %v, %v", d.Number, info.Headers, err)
				}
			}
		}
	})
}
