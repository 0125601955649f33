package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness"
)

// inject breaks something, keeps it broken as long as planned, and repairs it. load ends with
// the load, and every fault with it; ctx ends when the run is interrupted, and nothing is
// repaired then.
func (w *world) inject(ctx, load context.Context, f fault.Planned, r *rand.Rand) (err error) {
	if load.Err() != nil {
		return nil // the load has ended early
	}
	e := history.Event{Kind: history.Fault, Begin: w.rec.Now(), Fault: f.Kind, Target: f.Target}
	switch f.Kind {
	case fault.CancelJob:
		w.caller.cancel(load)
		return nil
	case fault.RetryJob:
		w.caller.retry(load, w.caller.someJob())
		return nil
	case fault.OddBatch:
		w.caller.odd(load)
		return nil
	case fault.PauseRun:
		w.caller.pauseRun(load, f.Length)
		return nil
	case fault.CancelRun:
		w.caller.cancelRun(load)
		return nil
	case fault.RetryRun:
		w.caller.retryRun(load)
		return nil
	case fault.HaltAll:
		return w.halt(ctx, load, e, f.Length)
	}
	defer func() {
		e.End = w.rec.Now()
		w.rec.Add(e)
	}()
	switch f.Kind {
	case fault.APIKill, fault.WorkerKill:
		w.processes[f.Target].signal(syscall.SIGKILL)
	case fault.WorkersKill:
		for _, name := range w.workers {
			w.processes[name].signal(syscall.SIGKILL)
		}
	case fault.LeaseAge:
		w.store.ageLeases(load)
	case fault.APIFreeze, fault.WorkerFreeze, fault.WorkerSleep:
		w.freeze(load, f.Target, f.Length)
	case fault.GatewayTimeout, fault.GatewayRefuse, fault.GatewayLose, fault.GatewayPage, fault.LookSlow, fault.LookTalk, fault.LookLie:
		defer w.gateway.be(f.Kind)()
		harness.Pause(load, f.Length)
	case fault.LookKill:
		defer w.gateway.arm(f.Target, func() { w.killLooking(f.Target) }, r.IntN(2) == 0)()
		harness.Pause(load, f.Length)
	case fault.PlaneSlow, fault.PlaneTalk, fault.PlaneLie, fault.LookLate:
		defer w.gateway.plane.be(f.Kind)()
		harness.Pause(load, f.Length)
	case fault.WorkerClock, fault.APIClock, fault.RedisClock:
		e.Target, err = w.step(f, r)
	case fault.TaskLoss:
		w.loseTasks(r)
	case fault.Protect, fault.Move:
		err = w.takeAway(ctx, load, f)
	case fault.Brake:
		err = w.brake(ctx, load, f.Length, r)
	case fault.RedisFreeze, fault.ReplicaFreeze:
		role := map[fault.Kind]string{fault.RedisFreeze: "master", fault.ReplicaFreeze: "slave"}[f.Kind]
		name, err := w.store.withRole(load, role, r)
		if err != nil {
			return nil // another fault has them all
		}
		e.Target = name
		w.freeze(load, name, f.Length)
	case fault.RedisKill, fault.Failover:
		err = w.killPrimary(load, f, r)
	case fault.RedisFull:
		if err = w.store.limitMemory(load, "1mb"); load.Err() != nil {
			err = nil // the load ended meanwhile
		}
		harness.Pause(load, f.Length)
		err = errors.Join(err, w.store.limitMemory(ctx, "0"))
	default:
		err = w.links[f.Target].fault(ctx, load, f)
	}
	return err
}

// killLooking kills a worker in the moment in which it looks.
func (w *world) killLooking(worker string) {
	now := w.rec.Now()
	w.processes[worker].signal(syscall.SIGKILL)
	w.rec.Add(history.Event{Kind: history.Fault, Fault: fault.WorkerKill, Target: worker, Begin: now, End: w.rec.Now()})
}

// freeze stops a process for a while.
func (w *world) freeze(load context.Context, name string, length time.Duration) {
	w.processes[name].signal(syscall.SIGSTOP)
	harness.Pause(load, length)
	w.processes[name].signal(syscall.SIGCONT)
}

// killPrimary kills a primary of Redis, which comes back later.
func (w *world) killPrimary(load context.Context, f fault.Planned, r *rand.Rand) error {
	name, err := w.store.withRole(load, "master", r)
	if err != nil {
		return fmt.Errorf("%s: %w", f.Kind, err)
	}
	server := w.processes[name]
	server.gate.Lock()
	defer server.gate.Unlock()
	server.signal(syscall.SIGKILL)
	harness.Pause(load, f.Length)
	return nil
}

// step makes a clock wrong in another way.
func (w *world) step(f fault.Planned, r *rand.Rand) (target string, err error) {
	name := f.Target
	if f.Kind == fault.RedisClock {
		names := slices.Sorted(maps.Keys(w.store.nodes))
		name = names[r.IntN(len(names))]
	}
	wrong := drawSkew(r, f.Kind)
	return fmt.Sprintf("%s by %s", name, wrong), w.clocks[name].set(wrong)
}
