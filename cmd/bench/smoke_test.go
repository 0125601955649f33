package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/cmd/bench/report"
)

// tiny is only for this: so small that its figures mean nothing.
func tiny() sizes {
	return sizes{
		rounds: 1, rowLimit: 2 * time.Minute,
		submit: 320, drain: 320,
		latency:     100 * time.Millisecond,
		idleBatches: 2, idleGap: 5 * time.Millisecond, idleRounds: 1, idleCPU: 50 * time.Millisecond,
		polls:   20 * time.Millisecond,
		waiters: 100, waitedJobs: 3, waitRounds: 1,
		memoryBatches: 5,
		inFlight:      64, inFlightLasts: 500 * time.Millisecond, inFlightWindow: 50 * time.Millisecond, inFlightSplit: 2,
		attempts: 64, dockerAttempts: 32, attemptsSettle: 10 * time.Millisecond,
		few: 320, many: 640, cycle: 96, cycles: 2,
		crowd: 960, tries: 1, candidates: 2,
		starts:     1,
		pagesEnded: 320, pagesOpen: 64, looks: 1,
		sweepJobs: 20, sweepRounds: 1,
		run: 3840, runPolls: 20 * time.Millisecond,
		runDrain: 320, runPairs: 1,
		idleRuns: 10, runIdle: 50 * time.Millisecond, runRounds: 1,
	}
}

// progress goes to the test's log.
type progress struct{ t *testing.T }

func (p progress) Write(text []byte) (int, error) {
	p.t.Log(strings.TrimSpace(string(text)))
	return len(text), nil
}

// Whether targets are met says nothing here; whether each row still knows how to measure
// the service does.
func TestEveryRowMeasuresTheService(t *testing.T) {
	dir := t.TempDir()
	got, _, err := measure(t.Context(), settings{keep: dir}, tiny(), nil, progress{t})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range got.Results {
		names = append(names, r.Row)
		// On so few candidates there may be no tenant of the kind that is looked for.
		if r.Verdict() == report.Failed && r.Row != "fairness" {
			t.Errorf("%s, %s: %s", r.Row, r.What, r.Failure)
		}
		if r.Row == "fairness" && r.Failure != "" && r.Target == nil {
			t.Errorf("%s: %s", r.Row, r.Failure)
		}
	}
	if got := slices.Compact(names); !slices.Equal(got, rowNames()) {
		t.Errorf("the results are of %v, want %v", got, rowNames())
	}

	file := filepath.Join(dir, "results.json")
	if err := got.Write(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var read report.Report
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if m := read.Machine; m.Cores == 0 || m.Redis == "" || m.Go == "" || len(read.Results) != len(got.Results) {
		t.Errorf("the file says %s", text)
	}
}
