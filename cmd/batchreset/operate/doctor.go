package operate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/registry"
	"batchreset/tasks/redisdb/views"
)

// clocksDiffer is from when on processes say that their clock and Redis's differ.
const clocksDiffer = time.Second

// Doctor is the part of 'batchreset doctor' that looks at the service as an operator does.
type Doctor struct {
	redis redisflags.Flags
	seals redisflags.Seals
}

// Define gives the command the flags that name a Redis. Without them it looks at none: that there is
// one on this machine does not make it the service's.
func (d *Doctor) Define(cmd *cobra.Command) {
	d.redis.Define(cmd.Flags(), "")
	d.seals.Define(cmd.Flags())
}

// Examine looks at the Redis of the service, and at what is written there of its processes, if the flags name one.
// Its error is about the command line.
func (d *Doctor) Examine(ctx context.Context, found *terminal.Checkup) error {
	if !d.redis.Given() {
		found.Skip("the service as an operator", "neither --redis nor --redis-file names its Redis")
		return nil
	}
	found.As("operator")
	keys, err := d.seals.Read()
	if err != nil {
		return err
	}
	db, err := d.redis.Open(ctx, redisdb.Options{Unjudged: true, Seals: keys})
	if terminal.ExitCode(err) == terminal.ExitUsage {
		return err
	}
	if err != nil {
		found.Fail("redis", "is the URL right, with its user and password, is Redis running, and does the network let this machine reach it?", "%v", err)
		found.Skip("everything else about Redis, workers and halts", "Redis cannot be asked")
		return nil
	}
	examine(ctx, found, db)
	lookAtSecrets(ctx, found, db, d.seals.Given())
	return redisflags.Failed(db.Close())
}

// examine asks a Redis that answers. What it does not tell does not keep the rest from being asked.
func examine(ctx context.Context, found *terminal.Checkup, db *redisdb.DB) {
	seen, err := db.Overview.Overview(ctx)
	for _, node := range seen.Redis {
		lookAtRedis(found, node)
	}
	if err != nil {
		found.Fail("overview", "Redis does not tell what the operators' site shows, look at its own log; of its user, deploy/redis/users.acl has the rights", "%v", terminal.WithoutCode(err))
	} else if !seen.Accepting {
		found.Fail("room", "see 'Redis is full' in deploy/RUNBOOK.md", "%d %% of maxmemory are used: no new work is accepted, unless the processes have another --full-at", registry.DefaultFullAt)
	}
	lookAtRights(ctx, found, db, seen.Redis)
	lookAtClock(found, db)
	if err == nil {
		lookAtWorkers(ctx, found, db, seen)
		lookAtQueues(found, seen)
	} else {
		found.Skip("workers, drivers and queues", "Redis does not tell of them")
	}
	lookAtHalts(ctx, found, db)
	lookAtSpace(ctx, found, db)
}

// lookAtRedis looks at a server as all processes do at their start, and at what can be lost.
func lookAtRedis(found *terminal.Checkup, node tasks.RedisNode) {
	at := node.Address + ": "
	version, policy := views.CheckVersion(node.Version), views.CheckPolicy(node.Policy)
	if version != nil {
		found.Fail("redis", "install Redis 6.2 or later, or Valkey", "%s%v", at, terminal.WithoutCode(version))
	} else {
		found.OK("redis", "%sversion %s, with %s", at, node.Version, terminal.Plural(int(node.Replicas), "replica"))
	}
	if policy != nil {
		found.Fail("eviction", "set maxmemory-policy noeviction, also in its configuration", "%s%v", at, terminal.WithoutCode(policy))
	} else {
		found.OK("eviction", "%snoeviction, no job is dropped for want of memory", at)
	}
	if node.Problem != "" && version == nil && policy == nil {
		found.Fail("state", "see 'Redis' in deploy/RUNBOOK.md", "%s%s", at, node.Problem)
	}
	if node.AppendOnly {
		found.OK("persistence", "%s%s", at, node.Durability)
	} else {
		found.Warn("persistence", "set appendonly yes and appendfsync always: see 'Durability' in deploy/README.md", "%s%s", at, node.Durability)
	}
	const MB = 1 << 20
	if node.MaxMemory == 0 {
		found.Warn("memory", "set maxmemory to less than the machine has free: then new work is refused in time", "%s%d MiB, and no bound", at, node.Memory/MB)
	} else {
		found.OK("memory", "%s%d of %d MiB (%.0f %%)", at, node.Memory/MB, node.MaxMemory/MB, 100*node.Fill())
	}
}

// lookAtRights looks what the user of the connection may do. Each process has a user of its own, so
// that one who may do the work of one of them is well.
func lookAtRights(ctx context.Context, found *terminal.Checkup, db *redisdb.DB, nodes []tasks.RedisNode) {
	if slices.ContainsFunc(nodes, func(n tasks.RedisNode) bool { return strings.HasPrefix(n.Version, "6.") }) {
		found.Skip("rights of the Redis user", "Redis tells them from 7.0 on")
		return
	}
	user := db.Redis.User()
	var may []string
	var all []error
	for _, role := range []redisdb.Role{redisdb.RoleAPI, redisdb.RoleWorker} {
		if err := db.CheckRights(ctx, role); err != nil {
			all = append(all, fmt.Errorf("as %s: %w", role, terminal.WithoutCode(err)))
		} else {
			may = append(may, string(role))
		}
	}
	switch {
	case may == nil:
		found.Fail("rights", "give it the rights that deploy/redis/users.acl has", "%v", errors.Join(all...))
	case all != nil:
		found.OK("rights", "the Redis user %q may do what %s has to, and not the rest", user, may[0])
	default:
		found.OK("rights", "the Redis user %q may do what api and worker have to", user)
	}
}

// lookAtSecrets looks whether the keys of the file open what Redis keeps sealed.
func lookAtSecrets(ctx context.Context, found *terminal.Checkup, db *redisdb.DB, given bool) {
	seen, err := db.Secrets.Look(ctx)
	switch {
	case err != nil:
		found.Skip("the secrets in Redis", terminal.WithoutCode(err).Error())
	case !given && seen.Sealed > 0:
		found.Skip("whether the secrets in Redis can be opened", "--secret-key-file is not given, and some are sealed")
	case len(seen.Unopened) > 0:
		u := seen.Unopened[0]
		found.Fail("secrets", "give api, worker and this command the --secret-key-file with the keys that have sealed them: see 'Secrets that Redis keeps' in deploy/CALLERS.md",
			"%d of %s cannot be opened, such as that of %s %s: %v", len(seen.Unopened), terminal.Plural(seen.Looked, "secret"), u.Kind, u.ID, u.Err)
	case seen.Looked > seen.Sealed:
		found.Warn("secrets", "see 'Secrets that Redis keeps' in deploy/CALLERS.md", "%d of %s are in Redis as they are, not sealed", seen.Looked-seen.Sealed, terminal.Plural(seen.Looked, "secret"))
	default:
		found.OK("secrets", "%s, all sealed and opened", terminal.Plural(seen.Looked, "secret"))
	}
}

func lookAtClock(found *terminal.Checkup, db *redisdb.DB) {
	offset, known := db.Redis.ClockOffset()
	switch {
	case !known:
		found.Skip("the clocks", "Redis does not tell its own, or too slowly")
	case offset.Abs() > clocksDiffer:
		found.Warn("clock", "let NTP keep both: see BatchresetClockOffset in deploy/RUNBOOK.md", "this machine's clock is %s ahead of Redis's", offset.Round(time.Millisecond))
	default:
		found.OK("clock", "this machine's agrees with Redis's to %s", offset.Abs().Round(time.Millisecond))
	}
}

// lookAtWorkers looks whether there is somebody for each instance.
func lookAtWorkers(ctx context.Context, found *terminal.Checkup, db *redisdb.DB, seen tasks.Overview) {
	workers := map[string]int{} // by driver
	for _, w := range seen.Workers {
		for _, driver := range w.Drivers {
			workers[driver]++
		}
	}
	if len(seen.Workers) == 0 {
		found.Fail("workers", "start a worker: see BatchresetNoWorker in deploy/RUNBOOK.md", "none lives: nothing is reset")
	} else {
		var each []string
		for _, driver := range slices.Sorted(maps.Keys(workers)) {
			each = append(each, fmt.Sprintf("driver %s: %d", driver, workers[driver]))
		}
		found.OK("workers", "%s; %s", counted(len(seen.Workers)), strings.Join(each, ", "))
	}
	instances := map[string]int{} // by driver
	err := db.Fleet.All(ctx, func(in tasks.Instance) error { instances[in.Device().Driver]++; return nil })
	if err != nil {
		found.Fail("fleet", "look at Redis's own log", "%v", terminal.WithoutCode(err))
		return
	}
	var idle []string
	for _, driver := range slices.Sorted(maps.Keys(instances)) {
		if workers[driver] == 0 {
			idle = append(idle, fmt.Sprintf("%s of driver %s", terminal.Plural(instances[driver], "instance"), driver))
		}
	}
	const advice = "start a worker that has the driver (--drivers), or give the instances another one ('batchreset fleet set')"
	switch {
	case len(seen.Unserved) > 0:
		found.Fail("drivers", advice, "items wait for drivers that no worker has: %s", strings.Join(seen.Unserved, ", "))
	case idle != nil:
		found.Warn("drivers", advice, "no worker has the driver of %s", strings.Join(idle, ", "))
	default:
		found.OK("drivers", "each instance of the fleet has a worker for its driver")
	}
	led, err := db.Sweep.Led(ctx)
	switch {
	case err != nil:
		found.Fail("sweeper", "look at Redis's own log", "%v", terminal.WithoutCode(err))
	case !led:
		found.Fail("sweeper", "start a worker, which is one; a new one takes over within half a minute", "there is none: what was lost is not delivered again")
	default:
		found.OK("sweeper", "there is one")
	}
}

func counted(processes int) string {
	if processes == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", processes)
}

// heldShown is how many of the things that hold items are named.
const heldShown = 5

func lookAtQueues(found *terminal.Checkup, seen tasks.Overview) {
	var paused []string
	for _, q := range seen.Queues {
		if q.Paused {
			paused = append(paused, q.Name)
		}
	}
	texts := []string{fmt.Sprintf("%s wait, %d run", terminal.Plural(seen.Work.Waiting, "item"), seen.Work.Running)}
	if oldest := seen.Work.OldestAge(); oldest > 0 {
		texts = append(texts, fmt.Sprintf("the oldest that could begin has waited for %s", oldest.Round(time.Second)))
	}
	for _, h := range seen.Work.Holdings[:min(len(seen.Work.Holdings), heldShown)] {
		texts = append(texts, fmt.Sprintf("%s held: %s", terminal.Plural(h.Items, "item"), h.Text()))
	}
	text := strings.Join(texts, "; ")
	if paused != nil {
		found.Warn("queues", "resume them in the asynq dashboard: see BatchresetQueuePaused in deploy/RUNBOOK.md", "%s; paused: %s", text, strings.Join(paused, ", "))
		return
	}
	found.OK("queues", "%s", text)
}

func lookAtHalts(ctx context.Context, found *terminal.Checkup, db *redisdb.DB) {
	policies, err := db.Policies.List(ctx)
	if err != nil {
		found.Fail("halts", "look at Redis's own log", "%v", terminal.WithoutCode(err))
		return
	}
	halted := false
	for _, p := range policies {
		whom := tenantFlags{tenant: p.Tenant, all: p.Tenant == ""}
		flag := "--all"
		if p.Tenant != "" {
			flag = "--tenant " + p.Tenant
		}
		for _, h := range []struct {
			halt      *tasks.Halt
			whose, do string
		}{
			{p.OperatorHalt, "the operators", "'batchreset resume " + flag + "'"},
			{p.OwnHalt, "itself", "the tenant, or 'batchreset resume " + flag + " --own',"},
		} {
			if h.halt != nil {
				halted = true
				found.Warn("halts", h.do+" ends it, if it is not meant any more", "%s halted by %s since %s: %s", &whom, h.whose, terminal.Clock(h.halt.Since.Time), h.halt.Reason)
			}
		}
	}
	if !halted {
		found.OK("halts", "none holds")
	}
}
