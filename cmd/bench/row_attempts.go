package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
	"batchreset/cmd/harness"
)

// attemptsRow measures, for each type of driver, the memory that a worker takes for an attempt in
// flight.
func attemptsRow(ctx context.Context, b *bench) (results []report.Result, err error) {
	u, err := startUpstreams(ctx, filepath.Join(b.dir, "attempts"))
	if err != nil {
		return nil, err
	}
	defer u.close()
	for _, kind := range []struct {
		name, settings string
		inFlight       int
		note           string
	}{
		{"simulator", "latency: 24h", b.attempts, "its reset takes a day"},
		{"http", `url: "` + u.http + `/{instance_id}"`, b.attempts, "the control plane does not answer the POST"},
		{"cph", fmt.Sprintf("endpoint: %s, project_id: p, access_key_file: %s, secret_key_file: %[2]s", u.http, u.secret), b.attempts, "the job runs, and is asked about every 10 to 15 s"},
		{"exec", "command: [sleep, 1d]", filesFor(b.attempts), "a process of its own for each, whose memory is not counted"},
		{"docker", "host: unix://" + u.engine, min(b.attempts, b.dockerAttempts), "the engine does not answer"},
	} {
		r, err := b.memoryOfAttempts(ctx, kind.name, kind.settings, kind.inFlight)
		if err != nil {
			return results, fmt.Errorf("%s: %w", kind.name, err)
		}
		r.Note = fmt.Sprintf("%s; %s", r.Note, kind.note)
		results = append(results, r)
	}
	return results, nil
}

// memoryOfAttempts has a worker with one driver make so many attempts, none of which ends.
func (b *bench) memoryOfAttempts(ctx context.Context, kind, settings string, inFlight int) (r report.Result, err error) {
	s, err := b.newStage(ctx, "attempts-"+kind)
	if err != nil {
		return r, err
	}
	defer s.Close()
	file := filepath.Join(b.dir, "attempts", kind+".yaml")
	if err := os.WriteFile(file, []byte("drivers:\n  - {name: default, type: "+kind+", attempt_timeout: 1h, "+settings+"}\n"), 0o600); err != nil {
		return r, err
	}
	w, err := s.StartDrivers(ctx, file, "--concurrency", strconv.Itoa(inFlight))
	if err != nil {
		return r, err
	}
	if err := s.WaitUp(ctx, w); err != nil {
		return r, err
	}
	if !harness.Pause(ctx, b.attemptsSettle) {
		return r, ctx.Err()
	}
	idle, err := stack.RSS(w.Process)
	if err != nil {
		return r, err
	}
	if err := s.fill(ctx, inFlight); err != nil {
		return r, err
	}
	if err := s.allActive(ctx, w, inFlight); err != nil {
		return r, err
	}
	if !harness.Pause(ctx, b.attemptsSettle) { // the rush is over
		return r, ctx.Err()
	}
	busy, err := stack.RSS(w.Process)
	if err != nil {
		return r, err
	}
	peak, err := stack.PeakRSS(w.Process)
	return report.Result{
		What: "RSS of the worker for an attempt in flight, " + kind, Unit: "kB", Rounds: []float64{float64(busy-idle) / float64(inFlight) / 1024},
		Note: fmt.Sprintf("%d in flight; idle %d MiB, busy %d, at the most %d", inFlight, idle>>20, busy>>20, peak>>20),
	}, err
}

// filesFor makes room for the files of n processes of the exec driver, four each, or says for how
// many there is room.
func filesFor(n int) int {
	const each, others = 4, 1000
	room := raiseFiles(uint64(n*each + others))
	return min(n, int(room-others)/each)
}
