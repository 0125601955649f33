package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"

	"batchreset/cmd/harness"
)

// inject breaks something, keeps it broken as long as planned, and mends it. load ends with
// the load, and every fault with it; ctx ends when the run is interrupted, and nothing is
// mended then.
func (w *world) inject(ctx, load context.Context, f plannedFault, r *rand.Rand) (err error) {
	if load.Err() != nil {
		return nil // the load has ended early
	}
	e := Event{Kind: Fault, Begin: w.rec.now(), Fault: f.kind, Target: f.target}
	switch f.kind {
	case cancelJob:
		w.caller.cancel(load)
		return nil
	case retryJob:
		w.caller.retry(load, w.caller.someJob())
		return nil
	case oddBatch:
		w.caller.odd(load)
		return nil
	case haltAll:
		return w.halt(ctx, load, e, f.length)
	}
	defer func() {
		e.End = w.rec.now()
		w.rec.add(e)
	}()
	switch f.kind {
	case apiKill, workerKill:
		w.processes[f.target].signal(syscall.SIGKILL)
	case workersKill:
		for _, name := range w.workers {
			w.processes[name].signal(syscall.SIGKILL)
		}
	case leaseAge:
		w.store.ageLeases(load)
	case apiFreeze, workerFreeze, workerSleep:
		w.processes[f.target].signal(syscall.SIGSTOP)
		harness.Pause(load, f.length)
		w.processes[f.target].signal(syscall.SIGCONT)
	case gatewayTimeout, gatewayRefuse, gatewayLose, gatewayPage:
		defer w.gateway.be(f.kind)()
		harness.Pause(load, f.length)
	case planeSlow, planeTalk:
		defer w.gateway.plane.be(f.kind)()
		harness.Pause(load, f.length)
	case workerClock, apiClock, redisClock:
		e.Target, err = w.step(f, r)
	case taskLoss:
		w.loseTasks(r)
	case protect, move:
		err = w.takeAway(ctx, load, f)
	case brake:
		err = w.brake(ctx, load, f.length, r)
	case redisFreeze, replicaFreeze:
		role := map[faultKind]string{redisFreeze: "master", replicaFreeze: "slave"}[f.kind]
		name, err := w.store.withRole(load, role, r)
		if err != nil {
			return nil // another fault has them all
		}
		e.Target = name
		w.processes[name].signal(syscall.SIGSTOP)
		harness.Pause(load, f.length)
		w.processes[name].signal(syscall.SIGCONT)
	case redisKill, failover:
		name, err := w.store.withRole(load, "master", r)
		if err != nil {
			return fmt.Errorf("%s: %w", f.kind, err)
		}
		server := w.processes[name]
		server.gate.Lock()
		server.signal(syscall.SIGKILL)
		harness.Pause(load, f.length)
		server.gate.Unlock()
	case redisFull:
		err = w.store.limitMemory(load, "1mb")
		harness.Pause(load, f.length)
		err = errors.Join(err, w.store.limitMemory(ctx, "0"))
	default:
		err = w.links[f.target].fault(ctx, load, f)
	}
	return err
}

// step makes a clock wrong in another way.
func (w *world) step(f plannedFault, r *rand.Rand) (target string, err error) {
	name := f.target
	if f.kind == redisClock {
		names := slices.Sorted(maps.Keys(w.store.nodes))
		name = names[r.IntN(len(names))]
	}
	wrong := drawSkew(r, f.kind)
	return fmt.Sprintf("%s by %s", name, wrong), w.clocks[name].set(wrong)
}
