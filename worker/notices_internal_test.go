package worker

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func TestWorkersTellOfWhatEndsWithThem(t *testing.T) {
	fail := driverFunc(func(context.Context, Attempt) error { return &DriverError{Verdict: Permanent, Message: "no"} })
	for _, row := range []struct {
		name  string
		opts  redisdb.Options
		items []string
		want  []string // behind the job's ID
	}{
		{"an item that fails while its job goes on", redisdb.Options{}, []string{"phone-1", "phone-2"}, []string{"-0-failed-1-ep_1"}},
		{"a job, and the item that failed with it", redisdb.Options{}, []string{"phone-1"}, []string{"-0-failed-1-ep_1", "-finished-1-ep_1"}},
		{
			"a job that ends without an attempt",
			redisdb.Options{GiveUpAfter: time.Nanosecond},
			[]string{"phone-1"},
			[]string{"-0-failed-1-ep_1", "-finished-1-ep_1"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.opts.URL, row.opts.Embedded = "redis://"+miniredis.RunT(t).Addr(), true
			b := newBenchOn(t, row.opts, fail)
			if _, err := b.db.Endpoints.Add(t.Context(), tasks.Endpoint{
				ID: "ep_1", Tenant: "acme", URL: "https://acme.example", Topics: tasks.Topics, Secret: "whsec_1",
			}, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
			job := b.submit(t, row.items...)
			wantArchived(t, b.deliver(t, job))
			list, err := b.db.Redis.NewInspector().ListPendingTasks(redisdb.WebhookQueue)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, task := range list {
				got = append(got, strings.TrimPrefix(task.ID, job.ID))
			}
			slices.Sort(got)
			if !slices.Equal(got, row.want) {
				t.Errorf("told %q, want %q", got, row.want)
			}
		})
	}
}
