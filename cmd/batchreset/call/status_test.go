package call

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
)

func TestStatus(t *testing.T) {
	t.Run("shows the record as text and exits 0 whatever became of the job", func(t *testing.T) {
		s := newFakeService(t)
		s.Add("phone-1", "failed-1")
		s.call(t, "status", job1).Wants(t, 0, `Job         `+job1+`
State       partial
Instances   2: 1 succeeded, 1 failed
Created     2026-01-02T03:04:05Z
Started     2026-01-02T03:04:06Z
Finished    2026-01-02T03:04:08Z
Request ID  R1

INSTANCE  STATE      ATTEMPTS  TOOK  CODE        MESSAGE
phone-1   succeeded  1         -     -           
failed-1  failed     1         -     RESET.1007  no [U+001B][31mluck with failed-1
`)
	})
	t.Run("prints the record itself as JSON", func(t *testing.T) {
		s := newFakeService(t)
		s.Add("phone-1")
		r := s.call(t, "status", job1, "--output", "json")
		record, err := json.Marshal(s.Jobs[0].Job)
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, r.Out, string(record))
		r.Wants(t, 0, r.Out)
	})
	t.Run("exits 1 when there is no such job", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "status", job1).Wants(t, terminal.ExitRefused, "", "RESET.0001: there is no such job (HTTP 404")
	})
	t.Run("wants one job ID", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "status").Wants(t, terminal.ExitUsage, "", "the job ID is missing")
		s.call(t, "status", job1, job2).Wants(t, terminal.ExitUsage, "", "unexpected argument \""+job2)
		s.call(t, "status", "x/../y").Wants(t, terminal.ExitUsage, "", `"x/../y" is not a job ID`)
	})
}

func TestWriteJob(t *testing.T) {
	t.Run("shows reason, labels and how long an instance took", func(t *testing.T) {
		start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		var out strings.Builder
		err := writeJob(&out, client.Job{
			ID: job1, State: "running", Total: 1, Counts: client.Counts{Succeeded: 1}, RequestID: "R\x1b[1m",
			Reason: "spring\ncleaning", Labels: map[string]string{"b": "2", "a": "1"},
			Items: []client.Item{{InstanceID: "i", State: "succeeded", Attempts: 2, StartedAt: start, FinishedAt: start.Add(2340 * time.Millisecond)}},
		})
		if err != nil {
			t.Fatal(err)
		}
		want := `Job         ` + job1 + `
State       running
Instances   1: 1 succeeded
Created     -
Started     -
Finished    -
Request ID  R[U+001B][1m
Reason      spring cleaning
Labels      a=1 b=2

INSTANCE  STATE      ATTEMPTS  TOOK  CODE  MESSAGE
i         succeeded  2         2.3s  -     
`
		if out.String() != want {
			t.Errorf("got\n%s\nwant\n%s", &out, want)
		}
	})
}
