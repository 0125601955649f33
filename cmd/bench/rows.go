package main

import (
	"context"
	"time"

	"batchreset/cmd/bench/report"
)

// row is a part of the benchmark that makes one or more lines of the table.
type row struct {
	name, what string
	run        func(ctx context.Context, b *bench) ([]report.Result, error)
}

func rows() []row {
	return []row{
		{"submit", "submit over HTTP against asynq at its best", submitRow},
		{"signed", "submit with a signature against submit with a token", signedRow},
		{"drain", "drain with record, lock and history against asynq plain", drainRow},
		{"latency", "submit latency at half of the submit rate", latencyRow},
		{"idle", "one idle batch, and what an idle worker costs", idleRow},
		{"polls", "status polls", pollRow},
		{"waiters", "many who wait for jobs in one api process", waiterRow},
		{"memory", "Redis memory per instance", memoryRow},
		{"inflight", "many resets in flight in one worker process", inFlightRow},
		{"attempts", "memory of an attempt in flight, for each type of driver", attemptsRow},
		{"growth", "cost per instance with few and with many queued", growthRow},
		{"fairness", "a small job beside a large tenant", fairnessRow},
		{"pages", "pages of the operators' site beside many jobs", pageRow},
		{"sweep", "a pass of the sweeper over many open jobs", sweepRow},
		{"runs", "a run of a long list, made", runsRow},
		{"runpolls", "polls of a run with 100 open jobs", runPollsRow},
		{"rundrain", "drain of a run against loose jobs", runDrainRow},
		{"runidle", "what open runs cost in which nothing happens", runIdleRow},
		{"spread", "processor time of many processes on a Cluster against one of each", spreadRow},
		{"start", "start of a worker to its first task", startRow},
	}
}

func rowNames() []string {
	var names []string
	for _, r := range rows() {
		names = append(names, r.name)
	}
	return names
}

// patience is how long a job may take that nothing stands in the way of.
const patience = 30 * time.Second

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// alternate calls f and g, every other time in the other order: whatever favours the
// first or the second of two measurements favours both sides.
func alternate(i int, f, g func() error) error {
	if i%2 == 1 {
		f, g = g, f
	}
	if err := f(); err != nil {
		return err
	}
	return g()
}
