package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/bench/stack"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

// By themselves these are what goes into 'make test'; 'make test-large-run' has larger ones.
var (
	largeRun   = flag.Int("large-run", 2000, "how many `instances` TestARunWhoseProcessesAreKilled has")
	largeKills = flag.Duration("large-run.kills", 6*time.Second, "for `how long` it kills processes")
	largePause = flag.Duration("large-run.pause", 600*time.Millisecond, "`how long` it waits between two kills")
)

// victims are processes that are killed, one after the other, and started again.
type victims struct {
	t    *testing.T
	dir  string // of their logs
	all  []*harness.Process
	mu   sync.Mutex
	peak map[string]int64 // resident memory, by process
}

func (v *victims) start(name string, args ...string) {
	v.t.Helper()
	p, err := harness.Start(context.WithoutCancel(v.t.Context()), harness.Command{
		Name: name, Args: args, Env: []string{"BATCHRESET_DRAIN_DELAY=0"}, Dir: v.dir, Log: filepath.Join(v.dir, name+".log"),
	})
	if err != nil {
		v.t.Fatal(err)
	}
	v.t.Cleanup(p.Kill)
	v.all = append(v.all, p)
}

// kill kills one after the other for so long, and says how many it has killed.
func (v *victims) kill(ctx context.Context, lasts, pause time.Duration) (n int, err error) {
	for begin := time.Now(); time.Since(begin) < lasts && harness.Pause(ctx, pause); n++ {
		p := v.all[n%len(v.all)]
		v.measure(p)
		if err := p.Signal(syscall.SIGKILL); err != nil {
			return n, fmt.Errorf("%s ended by itself: %w", p.Name, err)
		}
		<-p.Ended()
		if err := p.Restart(context.WithoutCancel(ctx)); err != nil {
			return n, err
		}
	}
	return n, nil
}

// measure takes notice of a process's memory, where that can be known.
func (v *victims) measure(p *harness.Process) {
	if rss, err := stack.PeakRSS(p); err == nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.peak[p.Name] = max(v.peak[p.Name], rss)
	}
}

// tell logs the highest memory of each, and fails if one of them had a race, or ended by itself.
func (v *victims) tell() {
	for _, p := range v.all {
		v.measure(p)
		if err := p.Check(); err != nil {
			v.t.Error(err)
		}
		log, err := os.ReadFile(p.Log)
		if err != nil || strings.Contains(string(log), "DATA RACE") {
			v.t.Errorf("%s: %v\n%s", p.Name, err, log)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.peak)) {
		v.t.Logf("%s had up to %d MB of memory", name, v.peak[name]>>20)
	}
}

// largeBinary is the program under test; that of a large list is built without the race detector, which takes
// many times the memory.
func largeBinary(t *testing.T) string {
	t.Helper()
	if *largeRun == 2000 {
		return binary
	}
	plain, err := harness.Build(t.Context(), "", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

// The api and the workers, and with them the runner, are killed while they work on a run. Each instance is reset
// once, the counts add up all the time, and the results are complete.
func TestARunWhoseProcessesAreKilled(t *testing.T) {
	t.Parallel()
	plane, url := newWiper(t)
	redis, program := redistest.Start(t).URL(), largeBinary(t)
	address, err := harness.FreeAddr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v := &victims{t: t, dir: t.TempDir(), peak: map[string]int64{}}
	v.start("api", program, "api", "--redis", redis, "--listen", address, "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	for n := range 3 {
		v.start(fmt.Sprintf("worker-%d", n+1), program, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0",
			"--driver", "http", "--driver-url", url, "--driver-idempotent", "--concurrency", "50")
	}
	environment := map[string]string{"BATCHRESET_REDIS": redis, "BATCHRESET_SERVER": "http://" + address}
	environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)
	if err := harness.Until(t.Context(), patience, func(ctx context.Context) error {
		return harness.Get(ctx, "http://"+address+"/readyz")
	}); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(environment["BATCHRESET_SERVER"], environment["BATCHRESET_TOKEN"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	list := filepath.Join(t.TempDir(), "list.txt")
	if err := os.WriteFile(list, []byte(strings.Join(phonesList(*largeRun), "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	submit := func() (made client.Run) {
		t.Helper()
		out := command(t, environment, "run", "submit", "--file", list, "--canary", "10", "--growth", "4", "--run-id", "k", "--yes", "--output", "json").OK(t).Out
		if err := json.Unmarshal([]byte(out), &made); err != nil || made.Total != *largeRun {
			t.Fatalf("%v: %s", err, out)
		}
		return made
	}
	begin, made := time.Now(), submit()
	if again := submit(); again.ID != made.ID {
		t.Errorf("the same request again is %s", again.Record)
	}
	var killing sync.WaitGroup
	killing.Go(func() {
		n, err := v.kill(t.Context(), *largeKills, *largePause)
		t.Logf("%d processes were killed", n)
		if err != nil {
			t.Error(err)
		}
	})
	run := watchCountsFor(t.Context(), t, 3*time.Minute+time.Duration(*largeRun)*10*time.Millisecond, c, made.ID)
	killing.Wait()
	t.Logf("%d instances took %s", *largeRun, time.Since(begin).Round(100*time.Millisecond))
	if run.State != "succeeded" || run.Counts.Succeeded != *largeRun {
		t.Errorf("run %s", run.Record)
	}
	plane.wantEach(t, *largeRun)
	wantResults(t, command(t, environment, "run", "results", made.ID, "--output", "csv").OK(t).Out, *largeRun)
	v.tell()
}

// wantEach fails unless each of the phones was wiped once, and nothing else.
func (w *wiper) wantEach(t *testing.T, phones int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	t.Logf("%d resets of %d phones", len(w.keys), len(w.wiped))
	for _, id := range phonesList(phones) {
		if w.wiped[id] != 1 {
			t.Errorf("%s was wiped %d times", id, w.wiped[id])
		}
	}
	if len(w.wiped) != phones {
		t.Errorf("%d phones were wiped", len(w.wiped))
	}
}

// wantResults fails unless each of the phones is in the results once, in the order of the list, and succeeded.
func wantResults(t *testing.T, results string, phones int) {
	t.Helper()
	rows := csv.NewReader(strings.NewReader(results))
	header, err := rows.Read()
	if err != nil {
		t.Fatal(err)
	}
	instance, state := slices.Index(header, "instance_id"), slices.Index(header, "state")
	for _, id := range phonesList(phones) {
		row, err := rows.Read()
		if err != nil || row[instance] != id || row[state] != "succeeded" {
			t.Fatalf("%s: %v, %v", id, row, err)
		}
	}
	if row, err := rows.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last phone: %v, %v", row, err)
	}
}
