package redisdb

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

func acceptedKey(tenant string) string { return "reset:accepted:{" + tenant + "}" }
func heldKey(tenant string) string     { return "reset:held:{" + tenant + "}" }
func begunKey(tenant string) string    { return "reset:begun:{" + tenant + "}" }
func paceKeys(tenant string) []string {
	key := "reset:pace:{" + tenant + "}"
	return []string{key, key + ":written"}
}

// accept counts the instances of a job against the limits of its tenant. again says that
// the job is retried. Errors: tasks.TooManyRequests.
func (db *DB) accept(ctx context.Context, tenant, job string, instances int, again bool) error {
	policy, err := db.Policy(ctx, tenant)
	if err != nil {
		return err
	}
	if *policy.InstancesPerHour == 0 && *policy.OpenInstances == 0 {
		return nil
	}
	said, err := db.askQuota(ctx, policy, job, instances, again)
	if err == nil && said.over == "open" {
		if err = db.recount(ctx, tenant); err == nil {
			said, err = db.askQuota(ctx, policy, job, instances, again)
		}
	}
	switch {
	case err != nil:
		return fmt.Errorf("count against quota: %w", err)
	case said.over == "":
		return nil
	}
	limit, per, used := *policy.InstancesPerHour, "instances per hour", said.accepted
	if said.over == "open" {
		limit, per, used = *policy.OpenInstances, "open instances", said.open
	}
	refused := tasks.Errorf(tasks.TooManyRequests, "the quota of %d %s is used up: %d are counted, %d more were asked for", limit, per, used, instances)
	refused.RetryAfter = said.wait
	return refused
}

// Room says how many more instances of a tenant would be accepted now, -1 without a
// limit.
func (db *DB) Room(ctx context.Context, tenant string) (int, error) {
	policy, err := db.Policy(ctx, tenant)
	if err != nil {
		return 0, err
	}
	usage, err := db.usage(ctx, policy)
	if err != nil {
		return 0, err
	}
	room := -1
	for _, l := range []struct{ limit, used int }{
		{*policy.InstancesPerHour, usage.AcceptedLastHour}, {*policy.OpenInstances, usage.OpenInstances},
	} {
		if left := max(0, l.limit-l.used); l.limit > 0 && (room < 0 || left < room) {
			room = left
		}
	}
	return room, nil
}

// Usage says how much of its limits a tenant uses. What has no limit is not counted.
func (db *DB) Usage(ctx context.Context, tenant string) (tasks.Usage, error) {
	policy, err := db.Policy(ctx, tenant)
	if err != nil {
		return tasks.Usage{}, err
	}
	return db.usage(ctx, policy)
}

func (db *DB) usage(ctx context.Context, policy tasks.Policy) (tasks.Usage, error) {
	var usage tasks.Usage
	if *policy.OpenInstances > 0 {
		if err := db.recount(ctx, policy.Tenant); err != nil {
			return usage, err
		}
	}
	said, err := db.askQuota(ctx, policy, "", 0, true)
	if err != nil {
		return usage, fmt.Errorf("read quota: %w", err)
	}
	begun, err := usedScript.Run(ctx, db.rdb, []string{begunKey(policy.Tenant)}).Int()
	if err != nil {
		return usage, fmt.Errorf("read quota: %w", err)
	}
	return tasks.Usage{AcceptedLastHour: said.accepted, OpenInstances: said.open, BegunLastHour: begun}, nil
}

// quotaAnswer is the answer of accept.lua.
type quotaAnswer struct {
	over           string
	accepted, open int
	wait           time.Duration
}

func (db *DB) askQuota(ctx context.Context, policy tasks.Policy, job string, instances int, again bool) (quotaAnswer, error) {
	a, err := acceptScript.Run(ctx, db.group, []string{acceptedKey(policy.Tenant), heldKey(policy.Tenant)},
		job, instances, *policy.InstancesPerHour, *policy.OpenInstances, flag(again)).Slice()
	if err != nil {
		return quotaAnswer{}, err
	}
	if len(a) != 4 {
		return quotaAnswer{}, fmt.Errorf("the script answered %v", a)
	}
	return quotaAnswer{
		over: text(a[0]), accepted: int(number(a[1])), open: int(number(a[2])), wait: time.Duration(number(a[3])) * time.Second,
	}, nil
}

// recount looks how many instances of a tenant's jobs are still open.
func (db *DB) recount(ctx context.Context, tenant string) error {
	held, err := db.rdb.HGetAll(ctx, heldKey(tenant)).Result()
	if err != nil {
		return fmt.Errorf("count open instances: %w", err)
	}
	delete(held, "") // their sum
	pipe := db.rdb.Pipeline()
	left := make(map[string]*redis.SliceCmd, len(held))
	for job := range held {
		left[job] = pipe.HMGet(ctx, jobKey(job), "left")
	}
	now := pipe.Time(ctx)
	_, _ = pipe.Exec(ctx) // each carries its own error
	if err := now.Err(); err != nil {
		return fmt.Errorf("count open instances: %w", err)
	}
	var changed []any
	for job, was := range held {
		if err := left[job].Err(); answered(err) {
			continue // what cannot be read counts as open
		} else if err != nil {
			return fmt.Errorf("count open instances: %w", err)
		}
		before, since, _ := strings.Cut(was, " ")
		open := text(left[job].Val()[0])
		if open == "" {
			if s, err := strconv.ParseInt(since, 10, 64); err == nil && now.Val().Sub(time.Unix(s, 0)).Abs() < listingGrace {
				continue // it may be about to be created
			}
			open = "0"
		}
		if open != before {
			changed = append(changed, job, was, open)
		}
	}
	if changed == nil {
		return nil
	}
	if err := releaseScript.Run(ctx, db.rdb, []string{heldKey(tenant)}, changed...).Err(); err != nil {
		return fmt.Errorf("count open instances: %w", err)
	}
	return nil
}

// backlog refuses a job while too many instances wait.
func (db *DB) backlog() error {
	if db.opts.MaxBacklog == 0 || db.backlogs.total() < db.opts.MaxBacklog {
		return nil
	}
	refused := tasks.Errorf(tasks.TooManyRequests, "%d instances or more wait to be reset, the service takes no more for now", db.opts.MaxBacklog)
	refused.RetryAfter = 5 * time.Second
	return refused
}

// Spend counts a reset that is about to begin against its tenant's limit per hour. wait
// is how long it must not begin; 0 = it may, and the receipt takes it back, should it not
// begin after all.
func (db *DB) Spend(ctx context.Context, tenant string, perHour int) (receipt int64, wait time.Duration, err error) {
	a, err := spendScript.Run(ctx, db.group, []string{begunKey(tenant)}, perHour, "").Int64Slice()
	if err != nil {
		return 0, 0, fmt.Errorf("count against quota: %w", err)
	}
	if len(a) != 2 {
		return 0, 0, fmt.Errorf("count against quota: the script answered %v", a)
	}
	return a[1], time.Duration(a[0]) * time.Second, nil
}

// Unspend takes back what Spend counted.
func (db *DB) Unspend(ctx context.Context, tenant string, receipt int64) error {
	if err := spendScript.Run(ctx, db.group, []string{begunKey(tenant)}, 0, receipt).Err(); err != nil {
		return fmt.Errorf("count against quota: %w", err)
	}
	return nil
}

// Pace counts a request against its tenant's limit per second. Errors:
// tasks.TooManyRequests.
func (db *DB) Pace(ctx context.Context, tenant string) error {
	policy, err := db.Policy(ctx, tenant)
	if err != nil || *policy.RequestsPerSecond == 0 {
		return err
	}
	ms, err := paceScript.Run(ctx, db.group, paceKeys(tenant), *policy.RequestsPerSecond, "").Int64()
	if err != nil {
		return fmt.Errorf("count request: %w", err)
	}
	if ms == 0 {
		return nil
	}
	refused := tasks.Errorf(tasks.TooManyRequests, "more than %d requests per second", *policy.RequestsPerSecond)
	refused.RetryAfter = time.Duration(ms) * time.Millisecond
	return refused
}
