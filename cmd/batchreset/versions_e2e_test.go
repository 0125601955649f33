package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

// versionBefore is the commit that stands for the release before: deploy/README.md, "Upgrades", says what may have changed since.
// With each release it becomes that release's tag.
const versionBefore = "44ae2969300f55e17b75154ead569de611291c3f"

// buildBefore builds the program of versionBefore.
func buildBefore(t *testing.T) (program string) {
	t.Helper()
	source, dir := t.TempDir(), t.TempDir()
	if err := exec.CommandContext(t.Context(), "git", "-C", root, "cat-file", "-e", versionBefore+"^{commit}").Run(); err != nil {
		t.Skipf("NOT CHECKED: the commit %s is not in this clone ('git fetch --unshallow' gets it): %v", versionBefore, err) // .ci/test says it, too
	}
	archive := exec.CommandContext(t.Context(), "sh", "-c", `git -C "$0" archive --format=tar "$1" | tar -x -C "$2"`, root, versionBefore, source)
	if out, err := archive.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	program, err := harness.Build(t.Context(), source, dir, "-trimpath") // so that Go's cache has it the next time
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// versions are two apis and two workers, each of which is of one of two versions of the program.
type versions struct {
	*testing.T
	programs  map[bool]string // by whether it is the new one
	redis     string
	phones    string // URL
	plane     *ledger
	apis      [2]*process
	workers   [2]*process
	clients   [2]atomic.Pointer[client.Client]
	approvers [2]atomic.Pointer[client.Client]
	tokens    [2]string // of who asks, and of who approves
	everyone  []*process
}

func (v *versions) start(isNew bool, args ...string) *process {
	v.Helper()
	args = append(args, "--redis", v.redis, "--ops-listen", "127.0.0.1:0")
	p := startCommand(v.T, nil, args[0], append([]string{v.programs[isNew]}, args...)...)
	v.everyone = append(v.everyone, p)
	return p
}

func (v *versions) startAPI(n int, isNew bool) {
	v.Helper()
	v.apis[n] = v.start(isNew, "api", "--listen", "127.0.0.1:0", "--fleet", "open")
	server, _ := v.apis[n].logged("api started")["api"].(string)
	for i, of := range []*[2]atomic.Pointer[client.Client]{&v.clients, &v.approvers} {
		c, err := client.New(server, v.tokens[i])
		if err != nil {
			v.Fatal(err)
		}
		v.Cleanup(c.Close)
		of[n].Store(c)
	}
}

func (v *versions) startWorker(n int, isNew bool) {
	v.Helper()
	v.workers[n] = v.start(isNew, "worker", "--concurrency", "8", "--driver", "http", "--driver-url", fmt.Sprintf("%s/%d/{instance_id}", v.phones, n),
		"--webhook-allow-private", "--shutdown-timeout", "20s")
	v.workers[n].logged("worker started")
}

// end stops a process as a service manager does.
func (v *versions) end(p *process) {
	v.Helper()
	if err := p.Signal(syscall.SIGTERM); err != nil {
		v.Fatal(err)
	}
	select {
	case err := <-p.done:
		if err != nil {
			v.Errorf("%s: %v", p.Name, err)
		}
	case <-time.After(patience):
		v.Fatalf("%s does not stop", p.Name)
	}
}

// becomes replaces a worker or an api by one of a version, and waits until it takes part.
func (v *versions) becomes(worker bool, n int, isNew bool) {
	v.Helper()
	if !worker {
		v.end(v.apis[n])
		v.startAPI(n, isNew)
		return
	}
	id := fmt.Sprint(n)
	v.end(v.workers[n])
	began, ended := v.plane.by(id)
	if began != ended {
		v.Errorf("worker %d stopped with %d calls under way", n, began-ended)
	}
	v.startWorker(n, isNew)
	harness.Eventually(v, patience, "the worker to take part", func() bool {
		now, _ := v.plane.by(id)
		return now > began
	})
}

// asked is what callers have asked for, and had accepted.
type asked struct {
	mu        sync.Mutex
	jobs      map[string]bool
	keys      int
	runs      []string
	cancelled []string // jobs
}

// load submits batches of 4 through one api, and through the other one under the same key when it does not answer, until stop is closed.
func (v *versions) load(a *asked, submitter int, stop <-chan struct{}) error {
	for n := submitter; ; n += 2 {
		select {
		case <-stop:
			return nil
		case <-time.After(80 * time.Millisecond):
		}
		batch := nthBatch(n)
		var err error
		for try := range 20 {
			var accepted client.Accepted
			if accepted, err = v.clients[(n+try)%2].Load().Submit(v.Context(), batch); err == nil {
				a.mu.Lock()
				a.jobs[accepted.JobID] = true
				a.keys++
				a.mu.Unlock()
				break
			}
		}
		if err != nil {
			return err
		}
	}
}

// ask makes a run through one api, which somebody else approves through the other one, and a job that is cancelled there.
func (v *versions) ask(a *asked, step int) {
	v.Helper()
	one, other := step%2, (step+1)%2
	request := client.RunRequest{Canary: 2, Approval: true, IdempotencyKey: fmt.Sprintf("run-%d", step)}
	for i := range 10 {
		request.InstanceIDs = append(request.InstanceIDs, fmt.Sprintf("run-%d-%d", step, i))
	}
	run, err := v.clients[one].Load().Runs().Submit(v.Context(), request)
	if err == nil {
		_, err = v.approvers[other].Load().Runs().Approve(v.Context(), run.ID, run.ListSHA256, "looked at it")
	}
	if err != nil {
		v.Fatal(err)
	}
	a.runs = append(a.runs, run.ID)
	job, err := v.clients[one].Load().Submit(v.Context(), client.Batch{
		InstanceIDs: []string{fmt.Sprintf("cancelled-%d", step)}, NotBefore: time.Now().Add(time.Hour), IdempotencyKey: fmt.Sprintf("cancelled-%d", step),
	})
	if err == nil {
		_, err = v.clients[other].Load().Cancel(v.Context(), job.JobID)
	}
	if err != nil {
		v.Fatal(err)
	}
	a.cancelled = append(a.cancelled, job.JobID)
}

// TestTwoVersionsSideBySide upgrades a service under load, process by process, and takes it back to the version before, in the order that
// deploy/RUNBOOK.md has. Nothing is lost, nothing is done twice, and whoever waits sees no error.
func TestTwoVersionsSideBySide(t *testing.T) {
	t.Parallel()
	before := buildBefore(t)
	plane := &ledger{calls: map[string]int{}, active: map[string]int{}, began: map[string]int{}, ended: map[string]int{}}
	mux := http.NewServeMux()
	mux.Handle("POST /{worker}/{instance}", plane)
	phones := httptest.NewServer(mux)
	defer phones.Close()
	hooks := newReceiver(t)
	hooks.open(t)
	v := &versions{T: t, programs: map[bool]string{false: before, true: binary}, redis: redistest.Start(t).URL(), phones: phones.URL, plane: plane}
	old := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), before, args...)
		cmd.Env = append(os.Environ(), "BATCHRESET_REDIS="+v.redis)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	v.tokens = [2]string{old("token", "add", "--tenant", "acme", "--owner", "alice"), old("token", "add", "--tenant", "acme", "--owner", "bob", "--scope", "read,approve")}
	old("webhook", "add", "--tenant", "acme", "--webhook-allow-private", "--events", "job.finished", "--url", "http://"+hooks.addr)
	for n := range 2 {
		v.startAPI(n, false)
		v.startWorker(n, false)
	}
	a := &asked{jobs: map[string]bool{}}
	stop := make(chan struct{})
	var load errgroup.Group
	for submitter := range 2 {
		load.Go(func() error { return v.load(a, submitter, stop) })
	}
	for step, s := range []struct {
		worker bool
		n      int
		isNew  bool
	}{
		{true, 0, true}, {true, 1, true}, {false, 0, true}, {false, 1, true}, // upgrade
		{false, 0, false}, {false, 1, false}, {true, 0, false}, {true, 1, false}, // rollback
	} {
		v.ask(a, step)
		v.becomes(s.worker, s.n, s.isNew)
		v.ask(a, 100+step)
	}
	close(stop)
	if err := load.Wait(); err != nil {
		t.Fatal(err)
	}
	v.look(a, hooks)
	for _, p := range slices.Concat(v.apis[:], v.workers[:]) {
		v.end(p)
	}
	for _, p := range v.everyone {
		for line := range strings.Lines(p.said()) {
			if strings.Contains(line, `"level":"ERROR"`) && !strings.Contains(line, `"msg":"asynq"`) {
				t.Errorf("%s logged %s", filepath.Base(p.Args[0]), line)
			}
		}
	}
}

// look looks at what has become of all that was asked for.
func (v *versions) look(a *asked, hooks *receiver) {
	t := v.T
	c := v.clients[0].Load()
	began := time.Now()
	for _, id := range a.runs {
		if run := watchCounts(t.Context(), t, c, id); run.State != "succeeded" || run.Counts.Succeeded != 10 {
			t.Errorf("run %+v", run)
		}
	}
	for _, id := range a.cancelled {
		if job, err := c.Job(t.Context(), id); err != nil || job.Counts != (client.Counts{Cancelled: 1}) {
			t.Errorf("cancelled job %+v, %v", job, err)
		}
	}
	missing, err := c.WaitAll(t.Context(), slices.Collect(maps.Keys(a.jobs)), func(client.Job) {})
	if err != nil || len(missing) > 0 {
		t.Fatalf("missing %v, %v", missing, err)
	}
	if _, err := c.Read(t.Context(), slices.Collect(maps.Keys(a.jobs)), func(job client.Job) {
		if job.Counts != (client.Counts{Succeeded: 4}) {
			t.Errorf("job %+v", job)
		}
	}); err != nil {
		t.Error(err)
	}
	v.plane.mu.Lock()
	for item, calls := range v.plane.calls {
		if calls != 1 {
			t.Errorf("item %s has %d calls", item, calls)
		}
	}
	if called := len(v.plane.calls); len(a.jobs) != a.keys || called != 4*a.keys+10*len(a.runs) {
		t.Errorf("%d keys became %d jobs, and with %d runs %d items were called", a.keys, len(a.jobs), len(a.runs), called)
	}
	if v.plane.worst != 1 {
		t.Errorf("%d resets of one instance at a time", v.plane.worst)
	}
	v.plane.mu.Unlock()
	// Each end is told, under one ID.
	events := map[string]map[string]bool{}
	soon(t, func() error {
		got, _ := hooks.got()
		for _, h := range got {
			for id := range a.jobs {
				if strings.HasPrefix(h.id(), id) {
					if events[id] == nil {
						events[id] = map[string]bool{}
					}
					events[id][h.id()] = true
				}
			}
		}
		if len(events) != len(a.jobs) {
			return fmt.Errorf("the ends of %d of %d jobs are told", len(events), len(a.jobs))
		}
		return nil
	})
	for id, ids := range events {
		if len(ids) != 1 {
			t.Errorf("the end of %s is told under %d IDs", id, len(ids))
		}
	}
	t.Logf("%d jobs and %d runs in two versions; all had ended %s after the last step", len(a.jobs), len(a.runs), time.Since(began).Round(time.Second))
}
