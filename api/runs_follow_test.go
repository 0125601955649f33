package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/api"
	"batchreset/cmd/harness"
	"batchreset/cmd/harness/faketime"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/worker"
)

// runRest is how long a run is left alone after a look at it.
const runRest = time.Second

// followed is a run of three instances that requests wait for, under a fake clock.
type followed struct {
	service
	board *board
	runs  *fakeRuns
	id    string
	stop  func() // ends the telling
}

func following(t *testing.T, cfg api.Config, test func(t *testing.T, f *followed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &followed{board: newBoard(1), runs: newFakeRuns()}
		cfg.Runs = f.runs
		f.Handler, f.stop = runOn(t, f.board, cfg, slog.New(slog.DiscardHandler))
		defer f.stop()
		run, err := f.runs.Create(t.Context(), tasks.RunSubmission{Tenant: "acme", InstanceIDs: []string{"a", "b", "c"}, Options: tasks.RunOptions{MaxParallel: 1}})
		if err != nil {
			t.Fatal(err)
		}
		f.id = run.ID
		test(t, f)
	})
}

func (f *followed) path() string { return "/v1/runs/" + f.id }

// stream has somebody stream the run.
func (f *followed) stream(t *testing.T, w *window) (ended *sync.WaitGroup) {
	ended = &sync.WaitGroup{}
	ended.Go(func() { watchingAt(t.Context(), f, f.path(), w) })
	return ended
}

// advance ends instances, or the run.
func (f *followed) advance(succeeded int, state tasks.RunState) {
	f.runs.mu.Lock()
	defer f.runs.mu.Unlock()
	run := f.runs.kept[f.id]
	run.Closed.Succeeded, run.State = succeeded, state
	run.Revision++
	f.runs.kept[f.id] = run
}

func (f *followed) announce() {
	f.runs.mu.Lock()
	heard := f.runs.heard
	f.runs.mu.Unlock()
	heard(f.id)
}

func (f *followed) reads() int {
	f.runs.mu.Lock()
	defer f.runs.mu.Unlock()
	return f.runs.reads
}

func TestARunIsReadOnceASecondHoweverManyWatchIt(t *testing.T) {
	following(t, api.Config{MaxWaiters: 10_000}, func(t *testing.T, f *followed) {
		const each = 100
		var ended sync.WaitGroup
		windows := make([]window, each)
		for n := range windows {
			ended.Go(func() { watchingAt(t.Context(), f, f.path(), &windows[n]) })
			ended.Go(func() {
				if got := f.do(t, http.MethodGet, f.path(), "acme", nil, "Prefer", "wait=50"); !strings.Contains(string(got.Data), `"succeeded":3`) {
					t.Errorf("poll: %+v", got)
				}
			})
		}
		faketime.Pass(2 * time.Second)
		before := f.reads()
		for n := range 10 {
			f.advance(n%3, tasks.RunRunning)
			f.announce()
			faketime.Pass(time.Second)
		}
		if reads := f.reads() - before; reads < 8 || reads > 12 {
			t.Errorf("%d reads in 10 s", reads)
		}
		f.advance(3, tasks.RunSucceeded)
		f.announce()
		begin := time.Now()
		ended.Wait()
		if late := time.Since(begin); late > runRest+lookInterval {
			t.Errorf("the last was told %s after the end", late)
		}
		for n := range windows {
			if text := windows[n].String(); strings.Count(text, "event: run") < 8 || !strings.Contains(text, `"succeeded":3`) {
				t.Errorf("a stream says %q", text)
			}
		}
		before = f.reads()
		faketime.Pass(time.Minute)
		if reads := f.reads() - before; reads != 0 {
			t.Errorf("%d reads while nobody waits", reads)
		}
	})
}

func TestALongPollEndsWithItsRun(t *testing.T) {
	following(t, roomy, func(t *testing.T, f *followed) {
		const after = 12 * time.Second
		time.AfterFunc(after/2, func() { f.advance(2, tasks.RunPaused); f.announce() }) // is no end
		time.AfterFunc(after, func() { f.advance(3, tasks.RunSucceeded); f.announce() })
		begin := time.Now()
		got := f.do(t, http.MethodGet, f.path(), "acme", nil, "Prefer", "wait=50")
		if late := time.Since(begin) - after; late < 0 || late > runRest+lookInterval || !strings.Contains(string(got.Data), `"state":"succeeded"`) {
			t.Errorf("%s after the end: %+v", late, got)
		}
		if got.header.Get("Preference-Applied") != "wait=50" || got.header.Get("Retry-After") != "" {
			t.Errorf("headers %v", got.header)
		}
		tag := got.header.Get("ETag")
		if got := f.do(t, http.MethodGet, f.path(), "acme", nil, "Prefer", "wait=50", "If-None-Match", tag); got.status != http.StatusNotModified {
			t.Errorf("after the end: %+v", got)
		}
		if w := f.raw(t, http.MethodGet, f.path()+"/events", "acme", nil, "Last-Event-ID", strings.Trim(tag, `"`)); w.Code != http.StatusNoContent {
			t.Errorf("a stream after the end: %d %s", w.Code, w.Body)
		}
	})
	following(t, roomy, func(t *testing.T, f *followed) {
		begin := time.Now()
		got := f.do(t, http.MethodGet, f.path(), "acme", nil, "Prefer", "wait=3")
		if time.Since(begin) != 3*time.Second || got.header.Get("Preference-Applied") != "wait=3" || got.header.Get("Retry-After") == "" {
			t.Errorf("after %s: %+v", time.Since(begin), got)
		}
		time.AfterFunc(time.Second, f.stop)
		begin = time.Now()
		if got := f.do(t, http.MethodGet, f.path(), "acme", nil, "Prefer", "wait=50"); time.Since(begin) != time.Second || got.status != http.StatusOK {
			t.Errorf("of a process that stops, after %s: %+v", time.Since(begin), got)
		}
	})
}

func TestAStreamOfARun(t *testing.T) {
	t.Run("says little while nothing happens", func(t *testing.T) {
		following(t, roomy, func(t *testing.T, f *followed) {
			var w window
			ended := f.stream(t, &w)
			faketime.Pass(14 * time.Second)
			quiet := w.String()
			if !regexp.MustCompile(`^retry: [123]\d{3}\n\nid: \S+\nevent: run\ndata: \{"run_id":.*\}\n\n$`).MatchString(quiet) {
				t.Errorf("at first the stream says %q", quiet)
			}
			faketime.Pass(32 * time.Second)
			if got := strings.TrimPrefix(w.String(), quiet); got != ":\n\n:\n\n:\n\n" {
				t.Errorf("in 46 s of silence the stream says %q", got)
			}
			f.stop()
			ended.Wait()
			if !strings.HasSuffix(w.String(), "\n\n: this process stops, another one goes on\n\n") {
				t.Errorf("the stream says %q", w.String())
			}
		})
	})
	t.Run("ends when the run is deleted", func(t *testing.T) {
		following(t, roomy, func(t *testing.T, f *followed) {
			var w window
			ended := f.stream(t, &w)
			synctest.Wait() // it has not even been looked at
			f.runs.mu.Lock()
			delete(f.runs.kept, f.id)
			f.runs.mu.Unlock()
			ended.Wait()
			if !strings.HasSuffix(w.String(), "\n\n: the record has expired\n\n") {
				t.Errorf("the stream says %q", w.String())
			}
		})
	})
	t.Run("goes on when Redis is back", func(t *testing.T) {
		following(t, roomy, func(t *testing.T, f *followed) {
			var w window
			ended := f.stream(t, &w)
			faketime.Pass(time.Second)
			f.runs.mu.Lock()
			f.runs.lost = 3
			f.runs.mu.Unlock()
			f.advance(3, tasks.RunSucceeded) // the last change that there is
			begin := time.Now()
			ended.Wait()
			if late := time.Since(begin); late > 5*time.Second || !strings.Contains(w.String(), `"state":"succeeded"`) {
				t.Errorf("%s late the stream says %q", late, w.String())
			}
		})
	})
	t.Run("gives a slow reader the newest record next", func(t *testing.T) {
		following(t, roomy, func(t *testing.T, f *followed) {
			w := window{let: make(chan struct{})}
			ended := f.stream(t, &w)
			for n := range 20 {
				faketime.Pass(2 * time.Second)
				f.advance(n%3, tasks.RunRunning)
			}
			faketime.Pass(2 * time.Second)
			close(w.let) // the reader had not even read the first
			faketime.Pass(5 * time.Second)
			f.advance(3, tasks.RunSucceeded)
			ended.Wait()
			if n := strings.Count(w.String(), "event: run"); n != 3 {
				t.Errorf("%d events for 22 versions, want the first, the newest and the last", n)
			}
		})
	})
	t.Run("ends with its token", func(t *testing.T) {
		following(t, roomy, func(t *testing.T, f *followed) {
			var w window
			ended := f.stream(t, &w)
			faketime.Pass(time.Minute)
			f.board.setToken(func(k *tasks.Token) { k.RevokedAt = tasks.Time{Time: time.Now()} })
			f.advance(3, tasks.RunSucceeded) // which is not told any more
			ended.Wait()
			if got := w.String(); !strings.Contains(got, "event: error\ndata: ") || strings.Contains(got, "succeeded\",\"") {
				t.Errorf("the stream says %q", got)
			}
		})
	})
}

func TestThoseWhoWaitForRunsTakeTheRoomOfThoseWhoWaitForJobs(t *testing.T) {
	following(t, api.Config{MaxWaiters: 4}, func(t *testing.T, f *followed) { // half of them are for one tenant
		var ofRun, ofJob window
		ended := f.stream(t, &ofRun)
		ended.Go(func() { watching(t.Context(), f, f.board, &ofJob) })
		synctest.Wait()
		if got := f.do(t, http.MethodGet, f.path()+"/events", "acme", nil); got.status != http.StatusTooManyRequests || got.header.Get("Retry-After") != "10" {
			t.Errorf("a stream is answered %+v", got)
		}
		begin := time.Now()
		if got := f.do(t, http.MethodGet, f.path(), "acme", nil, "Prefer", "wait=30"); got.status != http.StatusOK || got.header.Get("Preference-Applied") != "" || time.Since(begin) != 0 {
			t.Errorf("a poll is answered %+v after %s", got, time.Since(begin))
		}
		f.advance(3, tasks.RunSucceeded)
		f.board.change(tasks.JobSucceeded)
		ended.Wait()
	})
}

func TestATicketOpensTheStreamOfItsRun(t *testing.T) {
	s, runs := newRunService(t, roomyOpen)
	_, run := s.postRun(t, `{"instance_ids":["a"]}`)
	if err := runs.Cancel(t.Context(), run.ID, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	job := s.cancelled(t)
	var ticket tasks.Ticket
	got := s.do(t, http.MethodPost, "/v1/runs/"+run.ID+"/ticket", "acme", nil)
	if err := json.Unmarshal(got.Data, &ticket); err != nil {
		t.Fatalf("%v, answer %+v", err, got)
	}
	if r := s.raw(t, http.MethodGet, "/v1/runs/"+run.ID+"/events?ticket="+ticket.Ticket, "", nil); r.Code != http.StatusOK || !strings.Contains(r.Body.String(), `"state":"cancelled"`) {
		t.Errorf("answer %d %s", r.Code, r.Body)
	}
	for _, path := range []string{"/v1/jobs/" + job + "/events?ticket=" + ticket.Ticket, "/v1/runs/" + run.ID + "/events?ticket=" + s.ticket(t, "acme", job)} {
		if got := s.do(t, http.MethodGet, path, "", nil); got.status != http.StatusUnauthorized || got.Code != tasks.BadToken {
			t.Errorf("%s: answer %+v", path, got)
		}
	}
	for _, r := range [][2]string{{http.MethodPost, "/ticket"}, {http.MethodGet, "/events"}} {
		for name, id := range map[string]string{"another tenant's run": run.ID, "no run": tasks.NewJobID(), "none": "x"} {
			if got := s.do(t, r[0], "/v1/runs/"+id+r[1], "other", nil); got.status != http.StatusNotFound || got.Code != tasks.NoJob {
				t.Errorf("%s of %s: answer %+v", r[1], name, got)
			}
		}
	}
}

// countedRuns counts how many whole records are read, and how many at the same time.
type countedRuns struct {
	api.RunRecords
	api.RunDecisions
	reads, now, most atomic.Int64
}

func (c *countedRuns) Run(ctx context.Context, id string) (tasks.Run, error) {
	c.reads.Add(1)
	now := c.now.Add(1)
	for most := c.most.Load(); now > most && !c.most.CompareAndSwap(most, now); most = c.most.Load() {
	}
	defer c.now.Add(-1)
	return c.RunRecords.Run(ctx, id)
}

// liveRuns is a service on a real Redis, with a runner.
type liveRuns struct {
	*live
	counted *countedRuns
}

func newLiveRuns(t *testing.T) liveRuns {
	t.Helper()
	cfg := api.Config{AllowUnregistered: true, MaxWaiters: 10_000}
	s := newServiceOn(t, cfg, redisdb.Options{URL: redistest.Start(t).URL()})
	counted := &countedRuns{RunRecords: s.db.Runs, RunDecisions: s.db.RunDecisions}
	cfg.Runs = counted
	s.Handler = api.New(cfg, storeOf(s.db), slog.New(slog.DiscardHandler))
	runner := worker.NewRunner(worker.RunnerStore{
		Runs: s.db.Runs, RunProgress: s.db.RunProgress, RunNotices: s.db.Notices, RunHalts: s.db.Policies, RunJobs: s.db.Records, RunFleet: s.db.Fleet,
	}, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- runner.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return liveRuns{liveOf(t, s), counted}
}

// endOne ends an instance of a run, as soon as one is in a job.
func (l liveRuns) endOne(t *testing.T, id string) {
	t.Helper()
	if err := harness.Until(t.Context(), 20*time.Second, func(ctx context.Context) error {
		run, err := l.db.Runs.Stored(ctx, id)
		if err != nil {
			return err
		}
		jobs, err := l.db.Runs.OpenJobs(ctx, run)
		if err != nil {
			return err
		}
		for _, job := range jobs {
			if !job.State.Final() {
				l.end(t, job.ID, tasks.Outcome{Transition: tasks.Succeed})
				return nil
			}
		}
		return errors.New("no instance is in a job")
	}); err != nil {
		t.Error(err)
	}
}

func TestAStreamOfARunShowsHowItGoesOn(t *testing.T) {
	t.Parallel()
	l := newLiveRuns(t)
	_, run := l.postRun(t, `{"instance_ids":["a","b","c","d"],"canary":1,"max_parallel":1}`)
	polled := make(chan reply, 1)
	go func() {
		polled <- l.do(t, http.MethodGet, "/v1/runs/"+run.ID, "acme", nil, "Prefer", "wait=50")
	}()
	r := l.get(t, "/v1/runs/"+run.ID+"/events")
	if r.StatusCode != http.StatusOK || r.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("answer %d %v", r.StatusCode, r.Header)
	}
	var stages, ids []string
	succeeded, ended := 0, 0
	var last tasks.Run
	readEvents(t, r.Body, func(e event) {
		var record struct {
			State  tasks.RunState
			Stage  string
			Counts tasks.Counts
		}
		if err := json.Unmarshal([]byte(e.data), &record); err != nil || e.name != "run" {
			t.Fatalf("event %+v, %v", e, err)
		}
		last.State, last.Counts = record.State, record.Counts
		if record.Counts.Succeeded < succeeded || record.Counts.Total() != 4 {
			t.Errorf("the counts are %+v, after %d had succeeded", record.Counts, succeeded)
		}
		succeeded = record.Counts.Succeeded
		if len(stages) == 0 || stages[len(stages)-1] != record.Stage {
			stages = append(stages, record.Stage)
		}
		if ids = append(ids, e.id); succeeded == ended && ended < 4 { // it was seen
			ended++
			l.endOne(t, run.ID)
		}
	})
	_ = r.Body.Close()
	if got := strings.Join(stages, ","); !regexp.MustCompile("^(wave 1,)?canary,wave 1,draining,$").MatchString(got) {
		t.Errorf("stages %s", got)
	}
	if last.State != tasks.RunSucceeded || last.Counts.Succeeded != 4 {
		t.Errorf("the last record is %s %+v", last.State, last.Counts)
	}
	if got := <-polled; got.Code != tasks.OK || !strings.Contains(string(got.Data), `"state":"succeeded"`) || got.header.Get("ETag") != fmt.Sprintf("%q", ids[len(ids)-1]) {
		t.Errorf("the poll is answered %+v", got)
	}
	// A reader who comes back has what is new, or is told to stay away.
	r = l.get(t, "/v1/runs/"+run.ID+"/events", "Last-Event-ID", ids[0])
	var again []string
	readEvents(t, r.Body, func(e event) { again = append(again, e.id) })
	_ = r.Body.Close()
	if len(again) != 1 || again[0] != ids[len(ids)-1] {
		t.Errorf("told %v again, of %v", again, ids)
	}
}

func TestManyWatchARunAndOneReads(t *testing.T) {
	t.Parallel()
	l := newLiveRuns(t)
	_, run := l.postRun(t, instancesBody(64))
	const each = 100
	var told sync.WaitGroup
	var wrong atomic.Int64
	final := func(path string, header ...string) {
		r := l.get(t, path, header...)
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil || strings.Count(string(body), `"state":"partial"`) != 1 {
			wrong.Add(1)
		}
	}
	for n := 1; n <= each; n++ {
		told.Go(func() { final("/v1/runs/" + run.ID + "/events") })
		told.Go(func() { final("/v1/runs/"+run.ID, "Prefer", "wait=50") })
		if n%10 == 0 { // so that nobody's time for Redis is over before its turn
			l.wait(t, 2*n)
		}
	}
	l.counted.reads.Store(0)
	for range 3 {
		l.endOne(t, run.ID)
		before := l.counted.reads.Load()
		harness.Eventually(t, 20*time.Second, "a look", func() bool { return l.counted.reads.Load() > before })
	}
	if err := l.db.RunDecisions.Cancel(t.Context(), run.ID, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	told.Wait()
	if n := wrong.Load(); n != 0 {
		t.Errorf("%d were not told of the end", n)
	}
	if most := l.counted.most.Load(); most != 1 {
		t.Errorf("%d reads at the same time", most)
	}
	if reads := l.counted.reads.Load(); reads > each {
		t.Errorf("%d reads for %d who were told of 4 changes", reads, 2*each)
	}
	l.wait(t, 0)
}

func TestAStreamOfARunOutlastsARedisThatStandsStill(t *testing.T) {
	t.Parallel()
	l := newLiveRuns(t)
	_, run := l.postRun(t, `{"instance_ids":["a","b"]}`)
	r := l.get(t, "/v1/runs/"+run.ID+"/events")
	var last string
	readEvents(t, r.Body, func(e event) {
		if last == "" {
			if err := l.rdb.Do(t.Context(), "CLIENT", "PAUSE", 4000, "ALL").Err(); err != nil {
				t.Error(err)
			}
			if err := harness.Until(t.Context(), 30*time.Second, func(ctx context.Context) error { return l.db.RunDecisions.Cancel(ctx, run.ID, tasks.Actor{}) }); err != nil {
				t.Error(err)
			}
		}
		last = e.data
	})
	_ = r.Body.Close()
	if !strings.Contains(last, `"state":"cancelled"`) {
		t.Errorf("the last event is %s", last)
	}
}
