package main

import (
	"context"
	"fmt"
	"path/filepath"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/cmd/bench/stack"
)

// spreadTenants are enough that their queues are on all primaries.
const spreadTenants = 24

// spreadRow compares what an instance costs, submitted and drained, in processor time of everything: with one api, one
// worker and one Redis, and with three, four and a Cluster of six. On a machine with few cores the larger one is not
// faster; what it does with its processor time says whether it would be with more.
func spreadRow(ctx context.Context, b *bench) ([]report.Result, error) {
	var small, large []spent
	for i := range b.rounds {
		if err := alternate(i, func() error {
			s, err := b.spread(ctx, fmt.Sprintf("spread-small-%d", i), 1, 1, false)
			small = append(small, s)
			return err
		}, func() error {
			s, err := b.spread(ctx, fmt.Sprintf("spread-large-%d", i), 3, 4, true)
			large = append(large, s)
			return err
		}); err != nil {
			return nil, err
		}
	}
	part := func(all []spent, of func(spent) float64) (values []float64) {
		for _, s := range all {
			values = append(values, of(s))
		}
		return values
	}
	sum := func(s spent) float64 { return s.servers + s.processes }
	median := func(all []spent, of func(spent) float64) float64 { return report.Median(part(all, of)) }
	servers := func(s spent) float64 { return s.servers }
	return []report.Result{{
		What: "work per core: one api, one worker, one Redis against 3, 4 and a Cluster of 6", Unit: "x",
		Rounds: report.Ratios(part(small, sum), part(large, sum)),
		Note: fmt.Sprintf("processor time per instance, submitted and drained: %.0f µs (Redis %.0f) against %.0f µs (Redis %.0f, half of the servers are replicas); %d instances of %d tenants",
			median(small, sum), median(small, servers), median(large, sum), median(large, servers), b.drain, spreadTenants),
	}}, nil
}

// spent is processor time per instance, in µs.
type spent struct{ servers, processes float64 }

// spread submits as many instances as a drain has, on a set-up of its own, whose workers drain them meanwhile.
func (b *bench) spread(ctx context.Context, name string, apis, workers int, cluster bool) (per spent, err error) {
	s, err := stack.StartSpread(ctx, b.program, filepath.Join(b.dir, name), cluster)
	if err != nil {
		return per, err
	}
	defer s.Close()
	var running []*stack.API
	for range apis {
		a, err := s.StartAPI(ctx)
		if err != nil {
			return per, err
		}
		running = append(running, a)
	}
	var tokens []string
	for n := range spreadTenants {
		token, err := s.Token(ctx, fmt.Sprintf("tenant-%d", n))
		if err != nil {
			return per, err
		}
		tokens = append(tokens, token)
	}
	for range workers {
		w, err := s.StartWorker(ctx, 0)
		if err == nil {
			err = w.WaitHealthy(ctx)
		}
		if err != nil {
			return per, err
		}
	}
	beforeServers, beforeProcesses, err := s.CPU() // without what the start has cost
	if err != nil {
		return per, err
	}
	each := b.drain / spreadTenants
	for n, token := range tokens {
		if _, err := load.Submit(ctx, running[n%len(running)].Addr, token, each); err != nil {
			return per, err
		}
	}
	if err := s.Drained(ctx, each*spreadTenants); err != nil {
		return per, err
	}
	servers, processes, err := s.CPU()
	micro := func(now, before float64) float64 { return 1e6 * (now - before) / float64(each*spreadTenants) }
	return spent{micro(servers.Seconds(), beforeServers.Seconds()), micro(processes.Seconds(), beforeProcesses.Seconds())}, err
}
