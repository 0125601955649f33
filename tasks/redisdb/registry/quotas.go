package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

func acceptedKey(tenant string) string { return "reset:accepted:{" + tenant + "}" }
func directKey(tenant string) string   { return "reset:direct:{" + tenant + "}" }
func heldKey(tenant string) string     { return "reset:held:{" + tenant + "}" }
func begunKey(tenant string) string    { return "reset:begun:{" + tenant + "}" }
func paceKeys(tenant string) []string {
	key := "reset:pace:{" + tenant + "}"
	return []string{key, key + ":written"}
}

// Quotas count what tenants use of the limits of their policies.
type Quotas struct {
	redis    *wire.Client
	policies *Policies
	recounts singleflight.Group // of open instances, by tenant
}

// NewQuotas makes Quotas.
func NewQuotas(client *wire.Client, policies *Policies) *Quotas {
	return &Quotas{redis: client, policies: policies}
}

// Work is what is to be accepted.
type Work struct {
	Tenant, Job string
	Instances   int
	Again       bool // the job is retried
	OfRun       bool // the job belongs to a run
}

// Accept counts the instances of a job against the limits of its tenant, and returns Redis's
// time. Errors: tasks.TooManyRequests.
func (q *Quotas) Accept(ctx context.Context, w Work) (time.Time, error) {
	policy, err := q.policies.Policy(ctx, w.Tenant)
	if err != nil {
		return time.Time{}, err
	}
	if w.OfRun {
		policy.DirectInstancesPerHour = new(int)
	}
	if *policy.InstancesPerHour == 0 && *policy.OpenInstances == 0 && *policy.DirectInstancesPerHour == 0 {
		return q.redis.Time(ctx).Result()
	}
	said, err := q.askQuota(ctx, policy, w)
	if err == nil && said.over == "open" {
		if err = q.recount(ctx, w.Tenant); err == nil {
			said, err = q.askQuota(ctx, policy, w)
		}
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("count against quota: %w", err)
	}
	if said.over == "" {
		return said.now, nil
	}
	return time.Time{}, said.refusal(policy, w.Instances)
}

// refusal says what is over.
func (said quotaAnswer) refusal(policy tasks.Policy, more int) error {
	limit, per, used, hint := *policy.InstancesPerHour, "instances per hour", said.accepted, ""
	switch said.over {
	case "open":
		limit, per, used = *policy.OpenInstances, "open instances", said.open
	case "direct":
		limit, per, used, hint = *policy.DirectInstancesPerHour, "instances per hour without a run", said.direct, "; send them as a run: POST /v1/runs"
	}
	refused := tasks.Errorf(tasks.TooManyRequests, "the quota of %d %s is used up: %d are counted, %d more were asked for%s", limit, per, used, more, hint)
	refused.RetryAfter = said.wait
	return refused
}

// Room says how many more instances of a tenant would be accepted now in a job of no run, -1 without
// a limit.
func (q *Quotas) Room(ctx context.Context, tenant string) (int, error) {
	policy, err := q.policies.Policy(ctx, tenant)
	if err != nil {
		return 0, err
	}
	usage, err := q.usage(ctx, policy)
	if err != nil {
		return 0, err
	}
	room := -1
	for _, l := range []struct{ limit, used int }{
		{*policy.InstancesPerHour, usage.AcceptedLastHour},
		{*policy.OpenInstances, usage.OpenInstances},
		{*policy.DirectInstancesPerHour, usage.DirectLastHour},
	} {
		if left := max(0, l.limit-l.used); l.limit > 0 && (room < 0 || left < room) {
			room = left
		}
	}
	return room, nil
}

// Usage says how much of its limits a tenant uses. What has no limit is not counted.
func (q *Quotas) Usage(ctx context.Context, tenant string) (tasks.Usage, error) {
	policy, err := q.policies.Policy(ctx, tenant)
	if err != nil {
		return tasks.Usage{}, err
	}
	return q.usage(ctx, policy)
}

func (q *Quotas) usage(ctx context.Context, policy tasks.Policy) (tasks.Usage, error) {
	var usage tasks.Usage
	if *policy.OpenInstances > 0 {
		// A full Redis takes no correction; what it has counted is still told.
		if err := q.recount(ctx, policy.Tenant); err != nil && !SaysFull(err) {
			return usage, err
		}
	}
	said, err := q.askQuota(ctx, policy, Work{Tenant: policy.Tenant, Again: true})
	if err != nil {
		return usage, fmt.Errorf("read quota: %w", err)
	}
	begun, err := usedScript.Run(ctx, q.redis, []string{begunKey(policy.Tenant)}).Int()
	if err != nil {
		return usage, fmt.Errorf("read quota: %w", err)
	}
	return tasks.Usage{AcceptedLastHour: said.accepted, DirectLastHour: said.direct, OpenInstances: said.open, BegunLastHour: begun}, nil
}

// quotaAnswer is the answer of accept.lua.
type quotaAnswer struct {
	over                   string
	accepted, open, direct int
	wait                   time.Duration
	now                    time.Time
}

func (q *Quotas) askQuota(ctx context.Context, policy tasks.Policy, w Work) (quotaAnswer, error) {
	a, err := q.redis.Run(ctx, acceptScript, []string{acceptedKey(w.Tenant), heldKey(w.Tenant), directKey(w.Tenant)},
		w.Job, w.Instances, *policy.InstancesPerHour, *policy.OpenInstances, codec.Flag(w.Again), *policy.DirectInstancesPerHour).Slice()
	if err != nil {
		return quotaAnswer{}, err
	}
	if len(a) != 6 {
		return quotaAnswer{}, fmt.Errorf("the script answered %v", a)
	}
	return quotaAnswer{
		over: codec.Text(a[0]), accepted: int(codec.Number(a[1])), open: int(codec.Number(a[2])), wait: time.Duration(codec.Number(a[3])) * time.Second,
		now: time.UnixMilli(codec.Number(a[4])), direct: int(codec.Number(a[5])),
	}, nil
}

const (
	// countedAtOnce is of how many jobs the open instances are looked up in a round trip.
	countedAtOnce = 1000
	// A count of more than countedFreely jobs is not repeated before countRest times as long
	// as it took is over, so that a tenant at the limit costs Redis a twentieth of its time.
	countedFreely  = 100
	countRest      = 20
	longestRest    = time.Minute
	countingMember = "@" // of what is held; to older versions a job without open instances
)

// recount looks how many instances of a tenant's jobs are still open, unless it was done
// just now. It is for what the ends of jobs did not tell: single instances that ended, and
// processes that died in between.
func (q *Quotas) recount(ctx context.Context, tenant string) error {
	_, err, _ := q.recounts.Do(tenant, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		return nil, q.recountNow(ctx, tenant)
	})
	if err != nil {
		return fmt.Errorf("count open instances: %w", err)
	}
	return nil
}

func (q *Quotas) recountNow(ctx context.Context, tenant string) error {
	pipe := q.redis.Pipeline()
	rests, now := pipe.HGet(ctx, heldKey(tenant), countingMember), pipe.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return err
	}
	_, until, _ := strings.Cut(rests.Val(), " ")
	ms, _ := strconv.ParseInt(until, 10, 64) // 0: it does not rest
	if rest := time.UnixMilli(ms).Sub(now.Val()); rest > 0 && rest <= longestRest {
		return nil
	}
	jobs, start := 0, time.Now()
	for cursor := uint64(0); ; {
		page, next, err := q.redis.HScan(ctx, heldKey(tenant), cursor, "", countedAtOnce).Result()
		if err != nil {
			return err
		}
		held := make(map[string]string, len(page)/2)
		for i := 0; i+1 < len(page); i += 2 {
			held[page[i]] = page[i+1]
		}
		delete(held, "") // their sum
		delete(held, countingMember)
		if err := q.recountJobs(ctx, tenant, held); err != nil {
			return err
		}
		jobs += len(held)
		if cursor = next; cursor == 0 {
			break
		}
	}
	if jobs <= countedFreely {
		return nil
	}
	rest := min(countRest*time.Since(start), longestRest)
	return q.redis.HSet(ctx, heldKey(tenant), countingMember, fmt.Sprintf("0 %d", now.Val().Add(rest).UnixMilli())).Err()
}

// recountJobs corrects what is held of some jobs.
func (q *Quotas) recountJobs(ctx context.Context, tenant string, held map[string]string) error {
	pipe := q.redis.Pipeline()
	left := make(map[string]*redis.SliceCmd, len(held))
	for _, job := range slices.Sorted(maps.Keys(held)) {
		left[job] = pipe.HMGet(ctx, codec.JobKey(job), "left")
	}
	now := pipe.Time(ctx)
	_, _ = pipe.Exec(ctx) // each carries its own error
	if err := now.Err(); err != nil {
		return err
	}
	var changed []any
	for _, job := range slices.Sorted(maps.Keys(held)) {
		was := held[job]
		if err := left[job].Err(); wire.Answered(err) {
			continue // what cannot be read counts as open
		} else if err != nil {
			return err
		}
		before, since, _ := strings.Cut(was, " ")
		open := codec.Text(left[job].Val()[0])
		if open == "" {
			if s, err := strconv.ParseInt(since, 10, 64); err == nil && now.Val().Sub(time.Unix(s, 0)).Abs() < codec.ListingGrace {
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
	return releaseScript.Run(ctx, q.redis, []string{heldKey(tenant)}, changed...).Err()
}

// JobEnded takes a job that ended at a time (ms) off what its tenant has open. What cannot be
// written is found by recount.
func (q *Quotas) JobEnded(ctx context.Context, tenant, job string, ended int64) {
	if policy, err := q.policies.Policy(ctx, tenant); err == nil && *policy.OpenInstances > 0 {
		_ = q.redis.Run(ctx, endedScript, []string{heldKey(tenant)}, job, ended/1000).Err()
	}
}

// Spend counts a reset that is about to begin against its tenant's limit per hour. wait
// is how long it must not begin; 0 = it may, and the receipt takes it back, should it not
// begin after all.
func (q *Quotas) Spend(ctx context.Context, tenant string, perHour int) (receipt int64, wait time.Duration, err error) {
	a, err := q.redis.Run(ctx, spendScript, []string{begunKey(tenant)}, perHour, "").Int64Slice()
	if err != nil {
		return 0, 0, fmt.Errorf("count against quota: %w", err)
	}
	if len(a) != 2 {
		return 0, 0, fmt.Errorf("count against quota: the script answered %v", a)
	}
	return a[1], time.Duration(a[0]) * time.Second, nil
}

// SpendWait is how long a reset of a tenant must not begin; 0 = it may. Nothing is counted.
func (q *Quotas) SpendWait(ctx context.Context, tenant string, perHour int) (time.Duration, error) {
	seconds, err := q.redis.Run(ctx, spendWaitScript, []string{begunKey(tenant)}, perHour).Int64()
	if err != nil {
		return 0, fmt.Errorf("read quota: %w", err)
	}
	return time.Duration(seconds) * time.Second, nil
}

// Unspend takes back what Spend counted.
func (q *Quotas) Unspend(ctx context.Context, tenant string, receipt int64) error {
	if err := q.redis.Run(ctx, spendScript, []string{begunKey(tenant)}, 0, receipt).Err(); err != nil {
		return fmt.Errorf("count against quota: %w", err)
	}
	return nil
}

// countPatience is how long it may take to count a request.
const countPatience = 500 * time.Millisecond

// Pace counts a request against its tenant's limit per second. One that cannot be counted in time goes
// on: a Redis, or a machine, that stands still for a moment must not turn a cancel away. Errors:
// tasks.TooManyRequests.
func (q *Quotas) Pace(ctx context.Context, tenant string) error {
	policy := q.policies.known(ctx, tenant)
	if *policy.RequestsPerSecond == 0 {
		return nil
	}
	counting, cancel := context.WithTimeout(ctx, countPatience)
	defer cancel()
	ms, err := q.redis.Run(counting, paceScript, paceKeys(tenant), *policy.RequestsPerSecond, "").Int64()
	late := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
	if SaysFull(err) || late && ctx.Err() == nil {
		return nil // whoever looks at jobs must not be refused for that; new work is
	}
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

// Charge counts a request that came as so many more, because of what it did; also of a
// caller who has gone. If Redis is away it is not counted.
func (q *Quotas) Charge(ctx context.Context, tenant string, more int) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if policy, err := q.policies.Policy(ctx, tenant); err == nil && *policy.RequestsPerSecond > 0 {
		_ = q.redis.Run(ctx, paceScript, paceKeys(tenant), *policy.RequestsPerSecond, more).Err()
	}
}
