//go:build !race

package main

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"batchreset/cmd/chaos/history"
	"batchreset/tasks/redisdb/wire"
)

var (
	simFirst = flag.Uint64("sim.first", 1, "the first `seed` of the simulation")
	simSeeds = flag.Int("sim.seeds", 0, "how many seeds the simulation runs, in this process; 0 = as many as -sim.time allows, in one process for each processor")
	simTime  = flag.Duration("sim.time", 10*time.Second, "after this `time` the simulation begins no other seed")
	simEvery = flag.Uint64("sim.every", 0, "take every `n`th seed, in this process")
)

// TestSimulation judges one seed after the other. A seed has one processor for itself, or it
// would not be a history, so the other processors get processes of their own.
func TestSimulation(t *testing.T) {
	if n := runtime.NumCPU(); n > 1 && *simSeeds == 0 && *simEvery == 0 {
		var running sync.WaitGroup
		for i := range n {
			running.Go(func() { simulateApart(t, *simFirst+uint64(i), n) })
		}
		running.Wait()
		return
	}
	wire.LogTo(slog.New(slog.DiscardHandler))
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // a seed leaves little behind
	start, n, failed, met := time.Now(), 0, 0, map[string]int{}
	for seed := *simFirst; n < *simSeeds || *simSeeds == 0 && time.Since(start) < *simTime; seed += max(1, *simEvery) {
		s := simulate(t, seed)
		n++
		s.count(met)
		if vs := history.Check(s.Run); len(vs) > 0 {
			t.Error(s.tell(seed, vs))
			if failed++; failed == 3 {
				break
			}
		}
	}
	t.Logf("%d seeds, %.0f seeds a minute; they met %v", n, float64(n)/time.Since(start).Minutes(), met)
	for _, what := range []string{"call", "call gone", "call turned", "call lie", "look initial", "look not initial", "look ", "read", "told", "item succeeded", "item failed", "item unknown", "item cancelled", "submit-run", "results"} {
		if n >= 20 && met[what] == 0 {
			t.Errorf("no seed has met: %s", what)
		}
	}
	for _, seldom := range []string{"read-run paused by itself", "pause-run", "resume-run", "cancel-run", "retry-run", "approve-run", "reject-run"} {
		if n >= 500 && met[seldom] == 0 {
			t.Errorf("no seed has met: %s", seldom)
		}
	}
}

// simulateApart has a process of its own take every nth seed.
func simulateApart(t *testing.T, first uint64, n int) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSimulation$", "-test.v",
		fmt.Sprintf("-sim.first=%d", first), fmt.Sprintf("-sim.every=%d", n), "-sim.time="+simTime.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("seed %d and every %d. after it: %v\n%s", first, n, err, out)
		return
	}
	t.Logf("%s", out)
}

// count adds what a seed has met.
func (s simulation) count(met map[string]int) {
	for _, e := range s.Events {
		what := string(e.Kind)
		if e.Error != "" {
			what += " refused"
		}
		met[what]++
		if e.Kind == history.Call && e.Gone {
			met["call gone"]++
		}
		if e.Kind == history.Call && e.Answer == history.TurnedAway {
			met["call turned"]++
		}
		if e.Kind == history.Call && e.Answer == history.Lie {
			met["call lie"]++
		}
		if e.RunRecord != nil && strings.Contains(e.RunRecord.Held.Reason, "failed") {
			met["read-run paused by itself"]++
		}
		if e.Kind == history.Look {
			met["look "+e.Answer]++
		}
	}
	for item := range history.LastItems(s.Run) {
		met["item "+item.State]++
	}
}

func (s simulation) tell(seed uint64, vs []history.Violation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d; again: go test ./cmd/chaos -run TestSimulation -sim.seeds 1 -sim.first %d\n", seed, seed)
	for _, step := range s.steps {
		fmt.Fprintf(&b, "  %s\n", step)
	}
	for _, v := range vs {
		b.WriteString(v.String())
	}
	return b.String()
}

// TestASeedIsAHistory: what was found can be looked at again. Under the race detector, which
// wakes goroutines in random order, it could not: hence the build tag of these files.
func TestASeedIsAHistory(t *testing.T) {
	wire.LogTo(slog.New(slog.DiscardHandler))
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // its goroutines would come in between
	for seed := uint64(1); seed <= 4; seed++ {
		first, again := simulate(t, seed), simulate(t, seed)
		for i := range max(len(first.Events), len(again.Events)) {
			if i >= len(first.Events) || i >= len(again.Events) || !same(first.Events[i], again.Events[i]) {
				t.Fatalf("seed %d: event %d differs: %v, %v", seed, i, first.Events[i:], again.Events[i:])
			}
		}
	}
}

// same reports whether two events are one. When a caller's time and that of a connection end in the
// same moment, nobody decides which of them is in the error.
func same(a, b history.Event) bool {
	if a.Error != "" && b.Error != "" {
		a.Error, b.Error = "", ""
	}
	return reflect.DeepEqual(a, b)
}
