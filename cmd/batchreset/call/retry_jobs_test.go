package call

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
)

func labelledJobs(t *testing.T) *fakeService {
	t.Helper()
	s := newFakeService(t)
	s.AddLabelled()
	return s
}

func TestWatchByLabel(t *testing.T) {
	s := labelledJobs(t)
	r := s.call(t, "watch", "--label", "site=7")
	if r.Code != 2 || !strings.Contains(r.Out, "4 instances in 3 jobs: 3 succeeded, 1 failed\n") {
		t.Errorf("exit code %d, %s", r.Code, r.Out)
	}
	r = s.call(t, "watch", "-l", "run=9")
	if r.Code != terminal.ExitRefused {
		t.Errorf("what does not exist has exit code %d", r.Code)
	}
	r.Says(t, "RESET.0001: there is no such job")
	s.call(t, "watch", job1, "--label", "site=7").Wants(t, terminal.ExitUsage, "", "jobs by name and flags that select jobs do not go together")
	s.call(t, "watch", "--all", "--label", "site=7").Wants(t, terminal.ExitUsage, "", "--all and --label do not go together")
	s.call(t, "watch").Wants(t, terminal.ExitUsage, "", "the job ID is missing")
	t.Run("all that have not ended", func(t *testing.T) {
		s := labelledJobs(t)
		if r := s.call(t, "watch", "--all"); r.Code != 0 || !strings.Contains(r.Out, "1 instance in 1 job: 1 succeeded\n") {
			t.Errorf("exit code %d, %s", r.Code, r.Out)
		}
	})
}

func TestRetryOfJobs(t *testing.T) {
	retried := func(s *fakeService) []string { s.Mu.Lock(); defer s.Mu.Unlock(); return slices.Clone(s.Retries) }
	t.Run("by label opens those that have ended and have failures", func(t *testing.T) {
		s := labelledJobs(t)
		r := s.call(t, "retry", "--label", "site=7", "--state", "failed,unknown")
		r.Says(t, "1 instance of 1 job to reset again\n")
		if got := retried(s); r.Code != 0 || len(got) != 1 || got[0] != `{"states":["failed","unknown"]}` {
			t.Errorf("exit code %d, retries %q", r.Code, got)
		}
	})
	t.Run("finds none", func(t *testing.T) {
		s := labelledJobs(t)
		s.call(t, "retry", "--label", "run=9").Wants(t, 0, "", "0 instances of 0 jobs to reset again\n")
		s.call(t, "retry", "--label", "site=7", "--state", "cancelled").Wants(t, 0, "", "0 instances of 0 jobs to reset again\n")
		if got := retried(s); len(got) > 0 {
			t.Errorf("retries %q", got)
		}
	})
	t.Run("waits for the end, which gives the exit code", func(t *testing.T) {
		s := labelledJobs(t)
		r := s.call(t, "retry", job1, job2, "--wait")
		if r.Code != 2 || !strings.Contains(r.Out, "3 instances in 2 jobs: 2 succeeded, 1 failed\n") || len(retried(s)) != 2 {
			t.Errorf("exit code %d, %s", r.Code, r.Out)
		}
		if r := s.call(t, "retry", job2, "-w"); r.Code != 0 {
			t.Errorf("exit code %d, %s", r.Code, r.Said)
		}
	})
	t.Run("goes on after a job that is not there", func(t *testing.T) {
		s := labelledJobs(t)
		missing := strings.Repeat("f", 32)
		r := s.call(t, "retry", missing, job1, "--wait")
		r.Says(t, "job "+missing+": RESET.0001")
		if r.Code != terminal.ExitSome || !strings.Contains(r.Out, "2 instances in 1 job") {
			t.Errorf("exit code %d, %s", r.Code, r.Out)
		}
	})
	t.Run("stops where all would fare the same", func(t *testing.T) {
		s := labelledJobs(t)
		s.Looking = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			calltest.AnswerError(w, 401, "APIGW.0307", "expired")
			return true
		}
		r := s.call(t, "retry", job1, job2)
		if r.Says(t, "APIGW.0307"); r.Code == 0 || len(retried(s)) != 1 {
			t.Errorf("exit code %d, retries %q", r.Code, retried(s))
		}
	})
	t.Run("refuses", func(t *testing.T) {
		s := labelledJobs(t)
		for args, want := range map[string]string{
			job1 + " --label site=7":                      "do not go together",
			"--failed-from x.csv --since 1h":              "--failed-from and --since do not go together",
			"--failed-from x.csv --label a=1 --label a=2": "--label a is given twice",
			"--failed-from x.csv --label a":               "--label must be name=value",
			job1 + " --result x.csv":                      "--result goes with --failed-from",
			"--label site=7 --state succeeded":            "--state",
			job1 + " --reason x":                          "--reason goes with --failed-from",
		} {
			if r := s.call(t, append([]string{"retry"}, strings.Fields(args)...)...); r.Code == 0 || !strings.Contains(r.Said, want) {
				t.Errorf("%s: exit code %d, %s", args, r.Code, r.Said)
			}
		}
		if got := retried(s); len(got) > 0 {
			t.Errorf("retries %q", got)
		}
	})
}
