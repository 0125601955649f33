package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// labelledJobs are three jobs of the run 7, of which the first has failures and the third has
// not ended, and one of another run with failures.
func labelledJobs(t *testing.T) *fakeService {
	t.Helper()
	s := newFakeService(t)
	for n, instances := range [][]string{{"failed-1", "phone-2"}, {"phone-3"}, {"phone-4"}, {"failed-5"}} {
		s.add(instances...)
		s.jobs[n].Labels = map[string]string{"run": map[bool]string{true: "7", false: "8"}[n < 3]}
		if n != 2 {
			s.jobs[n].advance(0)
		}
	}
	return s
}

func TestWatchByLabel(t *testing.T) {
	s := labelledJobs(t)
	r := s.call(t, "watch", "--label", "run=7")
	if r.code != 2 || !strings.Contains(r.out, "4 instances in 3 jobs: 3 succeeded, 1 failed\n") {
		t.Errorf("exit code %d, %s", r.code, r.out)
	}
	r = s.call(t, "watch", "-l", "run=9")
	if r.code != exitRefused {
		t.Errorf("what does not exist has exit code %d", r.code)
	}
	r.says(t, "RESET.0001: there is no such job")
	s.call(t, "watch", job1, "--label", "run=7").want(t, exitUsage, "", "jobs by name and flags that select jobs do not go together")
	s.call(t, "watch", "--all", "--label", "run=7").want(t, exitUsage, "", "--all and --label do not go together")
	s.call(t, "watch").want(t, exitUsage, "", "the job ID is missing")
	t.Run("all that have not ended", func(t *testing.T) {
		s := labelledJobs(t)
		if r := s.call(t, "watch", "--all"); r.code != 0 || !strings.Contains(r.out, "1 instance in 1 job: 1 succeeded\n") {
			t.Errorf("exit code %d, %s", r.code, r.out)
		}
	})
}

func TestRetryOfJobs(t *testing.T) {
	retried := func(s *fakeService) []string { s.mu.Lock(); defer s.mu.Unlock(); return slices.Clone(s.retries) }
	t.Run("by label opens those that have ended and have failures", func(t *testing.T) {
		s := labelledJobs(t)
		r := s.call(t, "retry", "--label", "run=7", "--state", "failed,unknown")
		r.says(t, "1 instance of 1 job to reset again\n")
		if got := retried(s); r.code != 0 || len(got) != 1 || got[0] != `{"states":["failed","unknown"]}` {
			t.Errorf("exit code %d, retries %q", r.code, got)
		}
	})
	t.Run("finds none", func(t *testing.T) {
		s := labelledJobs(t)
		s.call(t, "retry", "--label", "run=9").want(t, 0, "", "0 instances of 0 jobs to reset again\n")
		s.call(t, "retry", "--label", "run=7", "--state", "cancelled").want(t, 0, "", "0 instances of 0 jobs to reset again\n")
		if got := retried(s); len(got) > 0 {
			t.Errorf("retries %q", got)
		}
	})
	t.Run("waits for the end, which gives the exit code", func(t *testing.T) {
		s := labelledJobs(t)
		r := s.call(t, "retry", job1, job2, "--wait")
		if r.code != 2 || !strings.Contains(r.out, "3 instances in 2 jobs: 2 succeeded, 1 failed\n") || len(retried(s)) != 2 {
			t.Errorf("exit code %d, %s", r.code, r.out)
		}
		if r := s.call(t, "retry", job2, "-w"); r.code != 0 {
			t.Errorf("exit code %d, %s", r.code, r.err)
		}
	})
	t.Run("goes on after a job that is not there", func(t *testing.T) {
		s := labelledJobs(t)
		missing := strings.Repeat("f", 32)
		r := s.call(t, "retry", missing, job1, "--wait")
		r.says(t, "job "+missing+": RESET.0001")
		if r.code != exitSome || !strings.Contains(r.out, "2 instances in 1 job") {
			t.Errorf("exit code %d, %s", r.code, r.out)
		}
	})
	t.Run("stops where all would fare the same", func(t *testing.T) {
		s := labelledJobs(t)
		s.looking = func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			answerError(w, 401, "APIGW.0307", "expired")
			return true
		}
		r := s.call(t, "retry", job1, job2)
		if r.says(t, "APIGW.0307"); r.code == 0 || len(retried(s)) != 1 {
			t.Errorf("exit code %d, retries %q", r.code, retried(s))
		}
	})
	t.Run("refuses", func(t *testing.T) {
		s := labelledJobs(t)
		for args, want := range map[string]string{
			job1 + " --label run=7":                       "do not go together",
			"--failed-from x.csv --since 1h":              "--failed-from and --since do not go together",
			"--failed-from x.csv --label a=1 --label a=2": "--label a is given twice",
			"--failed-from x.csv --label a":               "--label must be name=value",
			job1 + " --result x.csv":                      "--result goes with --failed-from",
			"--label run=7 --state succeeded":             "--state",
			job1 + " --parallel 2":                        "--parallel goes with --failed-from",
		} {
			if r := s.call(t, append([]string{"retry"}, strings.Fields(args)...)...); r.code == 0 || !strings.Contains(r.err, want) {
				t.Errorf("%s: exit code %d, %s", args, r.code, r.err)
			}
		}
		if got := retried(s); len(got) > 0 {
			t.Errorf("retries %q", got)
		}
	})
}
