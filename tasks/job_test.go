package tasks_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"batchreset/tasks"
)

func TestTimesAreUTCWithMillisecondsAndAbsentWhenUnknown(t *testing.T) {
	east := time.FixedZone("east", 3600)
	job := tasks.Job{CreatedAt: tasks.Time{Time: time.Date(2026, 11, 22, 11, 0, 0, 120_000_000, east)}}
	b, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"job_id":"","state":"","request_id":"","created_at":"2026-11-22T10:00:00.120Z","total":0,` +
		`"counts":{"pending":0,"running":0,"retrying":0,"succeeded":0,"failed":0,"unknown":0,"cancelled":0}}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	var back tasks.Job
	if err := json.Unmarshal(b, &back); err != nil || !back.CreatedAt.Equal(job.CreatedAt.Time) {
		t.Errorf("read back as %v, %v", back.CreatedAt, err)
	}
}

func TestItemIDs(t *testing.T) {
	job := tasks.NewJobID()
	if !tasks.ValidJobID(job) {
		t.Errorf("new job ID %q is not valid", job)
	}
	got, n, ok := tasks.ParseItemID(tasks.ItemID(job, 12))
	if got != job || n != 12 || !ok {
		t.Errorf("got %q %d %t", got, n, ok)
	}
	for _, bad := range []string{"", job, job + "-", job + "--1", job + "-1x", job[1:] + "-1", job + "-01"} {
		if _, _, ok := tasks.ParseItemID(bad); ok {
			t.Errorf("%q is taken for an item ID", bad)
		}
	}
}

func TestCodeOfLooksThroughWrapping(t *testing.T) {
	err := fmt.Errorf("outer: %w", tasks.Errorf(tasks.NoJob, "there is no job"))
	if got := tasks.CodeOf(err); got != tasks.NoJob {
		t.Errorf("got %s", got)
	}
	if got := tasks.CodeOf(errors.New("other")); got != tasks.Internal {
		t.Errorf("an error without a code has %s", got)
	}
	if got := tasks.CodeOf(nil); got != tasks.OK {
		t.Errorf("no error has %s", got)
	}
}
