package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/api/client"
	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness"
)

// brake fills Redis up, by a limit or by a flood of requests, and then does once what an
// operator does in such a moment: halt everybody, cancel a job, pause or cancel a run, revoke a token, protect
// phones. Each of them must work, at once.
func (w *world) brake(ctx, load context.Context, length time.Duration, r *rand.Rand) (err error) {
	w.operator.Lock()
	defer w.operator.Unlock()
	w.fleet.Lock()
	defer w.fleet.Unlock()
	if load.Err() != nil {
		return nil // the load is over
	}
	var token, id string
	if err := harness.Until(ctx, operatePatience, func(ctx context.Context) (err error) {
		token, id, err = w.addToken(ctx)
		return err
	}); err != nil {
		return err
	}
	job := w.caller.openJob()
	var ids []string
	if w.has(fault.Protect) {
		ids = w.caller.someInstances()
	}
	defer func() {
		err = errors.Join(err, w.store.limitMemory(ctx, "0"), w.operate(ctx, "resume", "--all"))
		if len(ids) > 0 {
			err = errors.Join(err, w.tellOf(history.Free, ids, func() error { return w.operate(ctx, append([]string{"fleet", "unprotect"}, ids...)...) }))
		}
	}()
	if r.IntN(2) == 0 {
		err = w.store.limitMemory(load, "1mb")
	} else {
		err = w.store.leaveLittleRoom(load)
	}
	if err != nil {
		return nil // Redis is away: it is not full
	}
	w.caller.flood(load)

	halt := history.Event{Kind: history.Fault, Fault: fault.HaltAll, Target: "operator"}
	held := w.stops("halt", func() error {
		return w.command(ctx, "halt", "--all", "--commit-replicas", strconv.Itoa(w.setup.commitReplicas()))
	})
	halt.Begin = w.rec.Now()
	if job != "" {
		w.stops("cancel", func() error { return w.caller.cancelJob(ctx, job) })
	}
	if run := w.caller.someRun(true); run != "" {
		kind := []history.Kind{history.PauseRun, history.CancelRun}[r.IntN(2)]
		w.stops(string(kind), func() error { return w.caller.stopRun(ctx, kind, run) })
	}
	w.stops("token revoke", func() error { return w.command(ctx, "token", "revoke", id) })
	w.stops("refusal of a revoked token", func() error { return w.caller.refused(ctx, token) })
	if len(ids) > 0 {
		w.stops("fleet protect", func() error {
			return w.tellOf(history.Protect, ids, func() error { return w.command(ctx, append([]string{"fleet", "protect"}, ids...)...) })
		})
	}
	harness.Pause(load, length)
	if halt.End = w.rec.Now(); held {
		w.rec.Add(halt)
	}
	return nil
}

// stops records whether something could be stopped.
func (w *world) stops(what string, do func() error) (worked bool) {
	e := history.Event{Kind: history.Brake, Begin: w.rec.Now(), Target: what}
	if err := do(); err != nil {
		e.Error = strings.ReplaceAll(err.Error(), "\n", " ")
	}
	e.End = w.rec.Now()
	w.rec.Add(e)
	return e.Error == ""
}

// leaveLittleRoom limits each server to a little more than it uses.
func (s *store) leaveLittleRoom(ctx context.Context) error {
	const room = 128 << 10
	for _, node := range s.nodes {
		info, err := node.InfoMap(ctx, "memory").Result()
		if err != nil {
			return err
		}
		used, err := strconv.Atoi(info["Memory"]["used_memory"])
		if err != nil {
			return err
		}
		if err := node.ConfigSet(ctx, "maxmemory", strconv.Itoa(used+room)).Err(); err != nil {
			return err
		}
	}
	return nil
}

// flood submits as much as one tenant can in three seconds, or until nothing is taken
// any more.
func (c *caller) flood(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, 3*time.Second)
	defer stop()
	labels := map[string]string{}
	for n := range 8 {
		labels[fmt.Sprintf("label-%d", n)] = strings.Repeat("x", 200)
	}
	var g errgroup.Group
	for range 4 {
		g.Go(func() error {
			for range 100 {
				b := client.Batch{
					InstanceIDs: phones(fleetSize)[fleetSize-1:], IdempotencyKey: c.newKey(),
					Reason: strings.Repeat("x", 256), Labels: labels,
				}
				if c.submit(ctx, b) != nil {
					return nil //nolint:nilerr // Redis is full, which is what was wanted
				}
			}
			return nil
		})
	}
	_ = g.Wait() // no function returns an error
}

// refused waits until a token is refused, which a revoked one must be within a second or
// two; an api that does not answer is none that takes it.
func (c *caller) refused(ctx context.Context, token string) error {
	return harness.Until(ctx, 3*time.Second, func(ctx context.Context) error {
		status, _, err := c.ask(ctx, http.MethodGet, "/v1/jobs?limit=1", token, nil, "")
		if err == nil && status == http.StatusUnauthorized {
			return nil
		}
		return errors.Join(err, fmt.Errorf("answered %d", status))
	})
}
