package call

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vbauerster/mpb/v8"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
	"batchreset/cmd/harness/faketime"
)

func TestWatch(t *testing.T) {
	t.Run("tells each state and exits 0 when every instance was reset", func(t *testing.T) {
		s := newFakeService(t)
		s.Looks = 2
		s.Add("phone-1", "phone-2")
		s.call(t, "watch", job1).Wants(t, 0, "2 instances in 1 job: 2 succeeded\n",
			"job "+job1+": pending\n", "job "+job1+": running\n", "job "+job1+": succeeded\n")
	})
	t.Run("exits 2 when some were not, and says which on standard output", func(t *testing.T) {
		s := newFakeService(t)
		s.Add("phone-1")
		s.Add("failed-1", "phone-2")
		s.call(t, "watch", job1, job2, job1).Wants(t, 2, "3 instances in 2 jobs: 2 succeeded, 1 failed\n\n"+
			"INSTANCE  STATE   ATTEMPTS  CODE        MESSAGE\n"+
			"failed-1  failed  1         RESET.1007  no [U+001B][31mluck with failed-1\n")
	})
	t.Run("exits 2 when a job does not exist, after the others have ended", func(t *testing.T) {
		s := newFakeService(t)
		s.Add("failed-1")
		r := s.call(t, "watch", job2, job1)
		r.Wants(t, terminal.ExitSome, r.Out, "batchreset: job "+job2+": RESET.0001: there is no such job")
		if !strings.Contains(r.Out, "1 instance in 1 job: 1 failed") {
			t.Errorf("output %q", r.Out)
		}
	})
	t.Run("prints records and errors as JSON", func(t *testing.T) {
		s := newFakeService(t)
		s.Add("phone-1")
		r := s.call(t, "watch", job1, job2, "--output", "json")
		for _, part := range []string{`"job_id": "` + job1, `"state": "succeeded"`, `"job_id": "` + job2, `"error_code": "RESET.0001"`} {
			if !strings.Contains(r.Out, part) {
				t.Errorf("output %s does not have %s", r.Out, part)
			}
		}
		r.Wants(t, terminal.ExitSome, r.Out)
	})
	t.Run("survives an outage", func(t *testing.T) {
		s := newFakeService(t)
		s.Looks = 1
		s.Add("phone-1")
		s.Looking = func(w http.ResponseWriter, _ *http.Request, n int) bool {
			switch n {
			case 2:
				panic(http.ErrAbortHandler)
			case 3:
				w.WriteHeader(http.StatusBadGateway)
				return true
			}
			return false
		}
		s.call(t, "watch", job1).Wants(t, 0, "1 instance in 1 job: 1 succeeded\n")
	})
	t.Run("says once that the token is refused", func(t *testing.T) {
		s := newFakeService(t)
		second := make(chan struct{})
		s.Looking = func(w http.ResponseWriter, r *http.Request, n int) bool {
			if n == 2 {
				close(second)
				<-r.Context().Done() // until the command gives up asking
				panic(http.ErrAbortHandler)
			}
			<-second
			calltest.AnswerError(w, 401, "APIGW.0307", "expired")
			return true
		}
		r := s.call(t, "watch", job1, job2)
		r.Wants(t, terminal.ExitRefused, "", "APIGW.0307: expired")
		if strings.Count(r.Said, "APIGW.0307") != 1 {
			t.Errorf("standard error %q", r.Said)
		}
	})
	t.Run("leaves the jobs alone at Ctrl-C", func(t *testing.T) {
		s := newFakeService(t)
		s.Looks = 1000
		s.Add("phone-1")
		ctx, interrupt := terminaltest.Interruptible(t)
		s.Looking = func(_ http.ResponseWriter, r *http.Request, n int) bool {
			if n == 2 {
				interrupt()
				<-r.Context().Done() // it hangs up
			}
			return n == 2
		}
		s.callWith(ctx, nil, "watch", job1).Wants(t, terminaltest.ExitInterrupted, "1 instance in 1 job: 1 pending\n", "batchreset: interrupted; the jobs go on; 'batchreset watch "+job1+"' follows them, 'batchreset cancel "+job1+"' takes back")
	})
	t.Run("refuses what is not a job ID, and asks nobody", func(t *testing.T) {
		s := newFakeService(t)
		s.call(t, "watch", job1, strings.ToUpper("abcdef")).Wants(t, terminal.ExitUsage, "", `"ABCDEF" is not a job ID`)
		s.call(t, "watch").Wants(t, terminal.ExitUsage, "", "the job ID is missing")
		if n := s.Requests(); n != 0 {
			t.Errorf("%d requests were sent", n)
		}
	})
}

func recordOf(id string, counts client.Counts) client.Job {
	return client.Job{ID: id, State: "running", Total: 10, Counts: counts}
}

func TestProgressLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		n := &notices{w: &out}
		jobs := newTally([]client.Job{{ID: job1}, {ID: job2}})
		changed, stop := showLines(n, jobs.line)
		expect := func(what, want string) {
			t.Helper()
			synctest.Wait()
			n.mu.Lock()
			defer n.mu.Unlock()
			if got := out.String(); got != want {
				t.Errorf("%s: got %q, want %q", what, got, want)
			}
			out.Reset()
		}
		changed()
		expect("while nothing is known", "")
		faketime.Pass(linesEvery)
		jobs.update(recordOf(job1, client.Counts{Pending: 10}))
		changed()
		expect("the first change", "0 of 10 ended: 10 pending\n")
		jobs.update(recordOf(job1, client.Counts{Pending: 9, Running: 1}))
		changed()
		jobs.update(recordOf(job2, client.Counts{Running: 4, Retrying: 3, Succeeded: 1, Failed: 1, Unknown: 1}))
		changed()
		faketime.Pass(linesEvery - time.Millisecond)
		expect("changes soon after", "")
		faketime.Pass(time.Millisecond)
		expect("the same, later", "3 of 20 ended: 9 pending, 5 running, 3 retrying, 1 succeeded, 1 failed, 1 unknown; 1.5/s, about 11s to go\n")
		faketime.Pass(time.Hour)
		changed()
		expect("the same, when the pace is long over", "3 of 20 ended: 9 pending, 5 running, 3 retrying, 1 succeeded, 1 failed, 1 unknown\n")
		faketime.Pass(time.Hour)
		changed()
		expect("no change", "")
		waiting := recordOf(job2, client.Counts{Pending: 10})
		waiting.Held.Reason = "no living worker has the driver lab"
		jobs.update(waiting)
		changed()
		expect("a reason to wait", "0 of 20 ended: 19 pending, 1 running; some wait: no living worker has the driver lab\n")
		faketime.Pass(time.Hour)
		jobs.update(recordOf(job2, client.Counts{Succeeded: 10}))
		changed()
		expect("a change", "10 of 20 ended: 9 pending, 1 running, 10 succeeded\n")
		jobs.update(recordOf(job1, client.Counts{Succeeded: 9, Failed: 1}))
		changed()
		stop()
		expect("the end, at once", "20 of 20 ended: 19 succeeded, 1 failed\n")
	})
}

// TestProgressIsOfOneMoment looks at each line while records change.
func TestProgressIsOfOneMoment(t *testing.T) {
	jobs := newTally([]client.Job{recordOf(job1, client.Counts{Pending: 10})})
	stop := make(chan struct{})
	var changing sync.WaitGroup
	changing.Go(func() {
		for n := 0; ; n = (n + 1) % 11 {
			jobs.update(recordOf(job1, client.Counts{Pending: 10 - n, Succeeded: n}))
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for range 1000 {
		done, _, line := jobs.progress()
		var told, succeeded int
		if _, err := fmt.Sscanf(line, "%d of 10 ended:", &told); err != nil || told != done {
			t.Fatalf("%q: %v", line, err)
		}
		if before, _, found := strings.Cut(line, " succeeded"); found {
			_, _ = fmt.Sscanf(before[strings.LastIndex(before, " ")+1:], "%d", &succeeded)
		}
		if succeeded != told {
			t.Fatalf("%q does not add up", line)
		}
	}
	close(stop)
	changing.Wait()
}

func TestProgressBar(t *testing.T) {
	var out bytes.Buffer
	n := &notices{w: &out}
	jobs := newTally([]client.Job{recordOf(job1, client.Counts{Pending: 10})})
	changed, stop := showBar(n, jobs, mpb.WithAutoRefresh())
	jobs.update(recordOf(job1, client.Counts{Succeeded: 9, Failed: 1}))
	changed()
	if _, err := n.Write([]byte("a line above\n")); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := n.Write([]byte("a line below\n")); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	above, bar, below := strings.Index(text, "a line above\n"), strings.LastIndex(text, "10 of 10 ended: "), strings.Index(text, "a line below\n")
	if above < 0 || bar < above || below < bar {
		t.Errorf("lines and bar are not in order in %q", text)
	}
	if !strings.Contains(text, "9 succeeded, 1 failed") {
		t.Errorf("the bar does not tell the states in %q", text)
	}
}

func TestNotices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		n := &notices{w: &out}
		n.retry(context.DeadlineExceeded, time.Second-1)
		if out.Len() > 0 {
			t.Errorf("a short wait is told: %q", &out)
		}
		for range 3 {
			n.retry(context.DeadlineExceeded, time.Second)
		}
		faketime.Pass(10 * time.Second)
		n.retry(context.DeadlineExceeded, time.Second)
		if got := strings.Count(out.String(), "waiting to try again: context deadline exceeded\n"); got != 2 {
			t.Errorf("told %d times, want 2: %q", got, &out)
		}
	})
}
