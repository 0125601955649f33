package views

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/wire"
)

const (
	// activityStep is how often a process writes what it has done, activityKept how long
	// that is kept.
	activityStep = 2 * time.Second
	activityKept = 2 * time.Hour
)

// activityKey is a hash of numbers of items, of one minute.
func activityKey(minute int64) string { return fmt.Sprintf("reset:activity:%d", minute) }

// tenantsKey is a hash of how many items of each tenant ended in that minute.
func tenantsKey(minute int64) string { return activityKey(minute) + ":tenants" }

// Activity is what this process does to items, for charts, until it is written to where that of
// all processes is. Who needs exact numbers has the records.
type Activity struct {
	redis                                            *wire.Client
	submitted, succeeded, failed, unknown, cancelled atomic.Int64

	mu       sync.Mutex
	byTenant map[string]int64 // items that have ended
}

// NewActivity makes an Activity.
func NewActivity(client *wire.Client) *Activity { return &Activity{redis: client} }

// Submit counts items that were accepted.
func (a *Activity) Submit(items int) { a.submitted.Add(int64(items)) }

// End counts items that have come to a final state.
func (a *Activity) End(state tasks.ItemState, items int) {
	switch state {
	case tasks.ItemSucceeded:
		a.succeeded.Add(int64(items))
	case tasks.ItemFailed:
		a.failed.Add(int64(items))
	case tasks.ItemUnknown:
		a.unknown.Add(int64(items))
	case tasks.ItemCancelled:
		a.cancelled.Add(int64(items))
	}
}

// EndOf counts an item of a tenant that has ended.
func (a *Activity) EndOf(tenant string) {
	if tenant == "" {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.byTenant == nil {
		a.byTenant = map[string]int64{}
	}
	a.byTenant[tenant]++
}

// takeTenants is take for what has ended by tenant.
func (a *Activity) takeTenants() map[string]int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	done := a.byTenant
	a.byTenant = nil
	return done
}

// take returns what is not written, by field of the hash, and forgets it.
func (a *Activity) take() map[string]int64 {
	done := map[string]int64{}
	for name, n := range map[string]*atomic.Int64{
		"submitted": &a.submitted, "succeeded": &a.succeeded, "failed": &a.failed, "unknown": &a.unknown, "cancelled": &a.cancelled,
	} {
		if n := n.Swap(0); n > 0 {
			done[name] = n
		}
	}
	return done
}

// WriteActivity writes it, until ctx ends. While nothing happens nothing is sent.
func (a *Activity) WriteActivity(ctx context.Context) error { return flushing(ctx, a.Flush) }

// flushing calls flush again and again, until ctx ends.
func flushing(ctx context.Context, flush func(context.Context)) error {
	ticker := time.NewTicker(activityStep)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			flush(ctx)
		}
	}
}

// Flush adds it to the minute of Redis's clock. What cannot be written is lost.
func (a *Activity) Flush(ctx context.Context) {
	done, tenants := a.take(), a.takeTenants()
	if len(done)+len(tenants) == 0 {
		return
	}
	now, err := a.redis.Time(ctx).Result()
	if err != nil {
		return
	}
	pipe := a.redis.Pipeline()
	for key, numbers := range map[string]map[string]int64{activityKey(now.Unix() / 60): done, tenantsKey(now.Unix() / 60): tenants} {
		if len(numbers) == 0 {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(numbers)) {
			pipe.HIncrBy(ctx, key, name, numbers[name])
		}
		pipe.Expire(ctx, key, activityKept)
	}
	_, _ = pipe.Exec(ctx)
}

// EndedByTenant is how many items of each tenant have ended in tasks.PaceWindow, which are full minutes.
func (a *Activity) EndedByTenant(ctx context.Context) (map[string]int64, error) {
	now, err := a.redis.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("read activity: %w", err)
	}
	pipe := a.redis.Pipeline()
	hashes := make([]*redis.MapStringStringCmd, tasks.PaceWindow/time.Minute)
	for i := range hashes {
		hashes[i] = pipe.HGetAll(ctx, tenantsKey(now.Unix()/60-int64(i)-1))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read activity: %w", err)
	}
	ended := map[string]int64{}
	for _, hash := range hashes {
		for tenant, count := range hash.Val() {
			n, _ := strconv.ParseInt(count, 10, 64) // 0 if it is none
			ended[tenant] += n
		}
	}
	return ended, nil
}

// minutes are the last n, oldest first.
func (a *Activity) minutes(ctx context.Context, now time.Time, n int) ([]tasks.Activity, error) {
	pipe := a.redis.Pipeline()
	hashes := make([]*redis.MapStringStringCmd, n)
	for i := range hashes {
		hashes[i] = pipe.HGetAll(ctx, activityKey(now.Unix()/60-int64(n-1-i)))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	minutes := make([]tasks.Activity, n)
	for i, hash := range hashes {
		count := func(name string) int64 {
			n, _ := strconv.ParseInt(hash.Val()[name], 10, 64) // 0 if it is not there
			return n
		}
		minutes[i] = tasks.Activity{
			Submitted: count("submitted"), Succeeded: count("succeeded"), Failed: count("failed"), Unknown: count("unknown"), Cancelled: count("cancelled"),
		}
	}
	return minutes, nil
}
