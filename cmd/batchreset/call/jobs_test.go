package call

import (
	"strings"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestJobs(t *testing.T) {
	s := newFakeService(t)
	for _, id := range []string{"phone-1", "phone-2", "phone-1", "phone-3", "phone-1"} {
		s.Add(id)
	}
	s.Jobs[0].Advance(0)
	id := func(n string) string { return strings.Repeat("0", 31) + n }
	ids := func(r terminaltest.Result) string {
		var found []string
		for line := range strings.Lines(r.Out) {
			if first, _, _ := strings.Cut(line, " "); len(first) == 32 {
				found = append(found, strings.TrimLeft(first, "0"))
			}
		}
		return strings.Join(found, " ")
	}

	t.Run("lists a table, newest first", func(t *testing.T) {
		r := s.call(t, "jobs", "--state", "succeeded")
		r.Wants(t, 0, `JOB                               STATE      CREATED               TOOK  INSTANCES  
`+id("1")+`  succeeded  2026-01-02T03:04:05Z  2s    1          1 succeeded
`)
		if got := ids(s.call(t, "jobs")); got != "5 4 3 2 1" {
			t.Errorf("listed %s", got)
		}
	})
	for _, row := range []struct {
		name string
		args []string
		want string
	}{
		{"lists as many as asked for, over several pages", []string{"--limit", "3"}, "5 4 3"},
		{"lists all", []string{"--all"}, "5 4 3 2 1"},
		{"finds the jobs of an instance", []string{"--instance", "phone-1"}, "5 3 1"},
		{"filters by both", []string{"--instance", "phone-1", "--state", "pending"}, "5 3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := s.call(t, append([]string{"jobs"}, row.args...)...)
			if got := ids(r); got != row.want || r.Code != 0 {
				t.Errorf("exit code %d, listed %s, want %s", r.Code, got, row.want)
			}
		})
	}
	t.Run("prints one JSON document, empty or not", func(t *testing.T) {
		r := s.call(t, "jobs", "--instance", "phone-3", "--output", "json")
		sameJSON(t, r.Out, `{"jobs":[{"job_id":"`+id("4")+`","state":"pending","request_id":"R1","created_at":"2026-01-02T03:04:08.000Z","total":1,`+
			`"counts":{"pending":1,"running":0,"retrying":0,"succeeded":0,"failed":0,"unknown":0,"cancelled":0}}]}`)
		sameJSON(t, s.call(t, "jobs", "--instance", "none", "--output", "json").Out, `{"jobs":[]}`)
	})
	t.Run("says that there are none", func(t *testing.T) {
		s.call(t, "jobs", "--state", "failed").Wants(t, 0, "", "no jobs")
	})

	before := s.Requests()
	for _, row := range []struct {
		name string
		args []string
		want string
	}{
		{"refuses a state that does not exist", []string{"--state", "done"}, `--state must be one of [pending running succeeded failed partial cancelled], not "done"`},
		{"refuses a bad instance ID", []string{"--instance", "a b"}, `--instance "a b" has characters`},
		{"refuses a label without a value", []string{"--label", "nightly"}, `--label must be name=value, not "nightly"`},
		{"refuses a time that is none", []string{"--since", "yesterday"}, `--since must be a time such as 2026-01-02T15:04:05Z or a duration such as 2h, not "yesterday"`},
		{"refuses a duration into the future", []string{"--until", "-2h"}, `--until must be a time`},
		{"refuses times the wrong way round", []string{"--since", "1h", "--until", "2h"}, "--since 1h is after --until 2h"},
		{"refuses a limit of none", []string{"--limit", "0"}, "--limit must be at least 1, not 0"},
		{"refuses a limit with all", []string{"--limit", "1", "--all"}, "--all and --limit do not go together"},
		{"refuses arguments", []string{"x"}, `unexpected argument "x"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			s.call(t, append([]string{"jobs"}, row.args...)...).Wants(t, terminal.ExitUsage, "", row.want)
		})
	}
	t.Run("reads labels and times, in both forms", func(t *testing.T) {
		got, err := (&jobsFilter{
			JobsFilter: client.JobsFilter{Labels: []string{"run=a,b", "x=="}}, period: period{since: "2h", until: "2026-01-02T04:04:05+01:00"},
		}).read(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
		if err != nil || !got.Since.Equal(time.Date(2026, 1, 2, 1, 4, 5, 0, time.UTC)) || !got.Until.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
			t.Errorf("%+v, %v", got, err)
		}
	})
	if s.Requests() != before {
		t.Error("a request was sent for a bad command line")
	}
}
