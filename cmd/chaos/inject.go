package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
)

// inject breaks something, keeps it broken as long as planned, and mends it.
func (w *world) inject(ctx context.Context, f plannedFault, r *rand.Rand) (err error) {
	if ctx.Err() != nil {
		return nil // the load has ended early
	}
	e := Event{Kind: Fault, Begin: w.rec.now(), Fault: f.kind, Target: f.target}
	switch f.kind {
	case cancelJob:
		w.caller.cancel(ctx)
		return nil
	case retryJob:
		w.caller.retry(ctx, w.caller.someJob())
		return nil
	case oddBatch:
		w.caller.odd(ctx)
		return nil
	case haltAll:
		return w.halt(ctx, e, f.length)
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
		w.store.ageLeases(ctx)
	case apiFreeze, workerFreeze, workerSleep:
		w.processes[f.target].signal(syscall.SIGSTOP)
		pause(ctx, f.length)
		w.processes[f.target].signal(syscall.SIGCONT)
	case gatewayTimeout, gatewayRefuse, gatewayLose, gatewayPage:
		defer w.gateway.be(f.kind)()
		pause(ctx, f.length)
	case planeSlow, planeTalk:
		defer w.gateway.plane.be(f.kind)()
		pause(ctx, f.length)
	case workerClock, apiClock, redisClock:
		e.Target, err = w.step(ctx, f, r)
	case taskLoss:
		w.loseTasks(r)
	case protect, move:
		err = w.takeAway(ctx, f)
	case brake:
		err = w.brake(ctx, f.length, r)
	case redisFreeze, replicaFreeze:
		role := map[faultKind]string{redisFreeze: "master", replicaFreeze: "slave"}[f.kind]
		name, err := w.store.withRole(ctx, role, r)
		if err != nil {
			return nil // another fault has them all
		}
		e.Target = name
		w.processes[name].signal(syscall.SIGSTOP)
		pause(ctx, f.length)
		w.processes[name].signal(syscall.SIGCONT)
	case redisKill, failover:
		name, err := w.store.withRole(ctx, "master", r)
		if err != nil {
			return fmt.Errorf("%s: %w", f.kind, err)
		}
		server := w.processes[name]
		server.gate.Lock()
		server.signal(syscall.SIGKILL)
		pause(ctx, f.length)
		server.gate.Unlock()
	case redisFull:
		err = w.store.limitMemory(ctx, "1mb")
		pause(ctx, f.length)
		err = errors.Join(err, w.store.limitMemory(context.WithoutCancel(ctx), "0"))
	default:
		err = w.links[f.target].fault(ctx, f)
	}
	return err
}

// step makes a clock wrong in another way.
func (w *world) step(_ context.Context, f plannedFault, r *rand.Rand) (target string, err error) {
	name := f.target
	if f.kind == redisClock {
		names := slices.Sorted(maps.Values(w.store.names))
		name = names[r.IntN(len(names))]
	}
	wrong := drawSkew(r, f.kind)
	return fmt.Sprintf("%s by %s", name, wrong), w.clocks[name].set(wrong)
}
