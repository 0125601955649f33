package call

import (
	"net/http"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

func TestCancel(t *testing.T) {
	id := func(n string) string { return strings.Repeat("0", 31) + n }
	// Five jobs: 2 has ended, 3 is running.
	service := func(t *testing.T) *fakeService {
		t.Helper()
		s := newFakeService(t)
		for _, instance := range []string{"phone-1", "phone-2", "phone-1", "phone-1", "phone-3"} {
			s.Add(instance, instance+"b")
		}
		s.Jobs[1].Advance(0)
		third := s.Jobs[2]
		third.Items[0].State = tasks.ItemRunning
		third.Counts = tasks.Count(third.Items)
		third.State = third.Counts.State()
		return s
	}
	// states are those of the jobs, by their first letters.
	states := func(s *fakeService) (all string) {
		s.Mu.Lock()
		defer s.Mu.Unlock()
		for _, job := range s.Jobs {
			all += string(job.State[0])
		}
		return all
	}
	for _, row := range []struct {
		name string
		args []string
		want string // states
		says string
	}{
		{"all that have not ended", []string{"--all"}, "csrcc", "4 jobs with 8 instances cancelled: 1 running, 7 cancelled"},
		{"those that fit", []string{"--instance", "phone-1"}, "csrcp", "3 jobs with 6 instances cancelled: 1 running, 5 cancelled"},
		{"those that are named, also if one has ended", []string{id("1"), id("2"), id("5")}, "csrpc", "2 jobs with 4 instances cancelled: 4 cancelled\n1 job had ended"},
		{"none if none fits", []string{"--instance", "phone-9"}, "psrpp", "0 jobs with 0 instances cancelled"},
	} {
		t.Run("takes back "+row.name, func(t *testing.T) {
			s := service(t)
			r := s.call(t, append([]string{"cancel"}, row.args...)...)
			if r.Says(t, row.says); r.Code != 0 || states(s) != row.want {
				t.Errorf("exit code %d, states %s, want %s", r.Code, states(s), row.want)
			}
			if listed := strings.Count(r.Out, "\n") - 1; listed > 0 && listed != strings.Count(states(s), "c")+strings.Count(row.says, "running") {
				t.Errorf("it prints\n%s", r.Out)
			}
		})
	}
	t.Run("prints the record of one job", func(t *testing.T) {
		s := service(t)
		if r := s.call(t, "cancel", id("1")); r.Code != 0 || !strings.Contains(r.Out, "phone-1b  cancelled") {
			t.Errorf("exit code %d:\n%s", r.Code, r.Out)
		}
		s.call(t, "cancel", id("2")).Wants(t, terminal.ExitRefused, "", "the job has ended")
	})
	t.Run("prints one JSON document", func(t *testing.T) {
		s := service(t)
		r := s.call(t, "cancel", "--instance", "phone-3", "--output", "json")
		if !strings.Contains(r.Out, `"jobs"`) || !strings.Contains(r.Out, `"state": "cancelled"`) {
			t.Error(r.Out)
		}
		sameJSON(t, s.call(t, "cancel", "--instance", "phone-3", "--output", "json").Out, `{"errors":[],"jobs":[]}`)
	})
	t.Run("says which jobs do not exist, and cancels the others", func(t *testing.T) {
		s := service(t)
		r := s.call(t, "cancel", id("1"), id("9"))
		if r.Says(t, "1 job with 2 instances cancelled", "there is no job "+id("9")); r.Code != terminal.ExitSome {
			t.Errorf("exit code %d", r.Code)
		}
		s.call(t, "cancel", id("8"), id("9")).Wants(t, terminal.ExitRefused, "", "there is no job "+id("8")+", "+id("9"))
		if got := states(s); got != "csrpp" {
			t.Error(got)
		}
	})
	t.Run("asks for patience with a service that goes away", func(t *testing.T) {
		s := service(t)
		away := 2
		handler := s.Config.Handler
		s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/cancel") && away > 0 {
				away--
				calltest.AnswerError(w, 500, "KOOPHONE.API.9999", "internal error")
				return
			}
			handler.ServeHTTP(w, r)
		})
		s.call(t, "cancel", "--since", "2026-01-01T00:00:00Z", "--instance", "phone-3").Says(t, "1 job with 2 instances cancelled")
		if away != 0 || states(s) != "psrpc" {
			t.Errorf("states %s", states(s))
		}
	})
	for name, row := range map[string]struct {
		args []string
		want string
	}{
		"nothing":               {nil, "the job ID is missing"},
		"all and some":          {[]string{"--all", "--label", "a=b"}, "--all and --label do not go together"},
		"a job and all":         {[]string{id("1"), "--all"}, "jobs by name and flags"},
		"a job and a filter":    {[]string{id("1"), "--since", "1h"}, "jobs by name and flags"},
		"a label without value": {[]string{"--label", "a"}, "--label"},
		"a bad time":            {[]string{"--since", "yesterday"}, "--since must be a time"},
		"what is no job":        {[]string{id("1"), "x"}, `"x" is not a job ID`},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			s := service(t)
			s.call(t, append([]string{"cancel"}, row.args...)...).Wants(t, terminal.ExitUsage, "", row.want)
			if got := states(s); got != "psrpp" {
				t.Errorf("states %s", got)
			}
		})
	}
}
