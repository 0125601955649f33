package views

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// What drivers call is counted by driver and minute, in a hash with a field for each kind of call and for each bucket
// of durations that is not empty: with most control planes 10 to 25 small fields, 200 to 400 bytes. A minute is kept
// for a little longer than people look back, so a driver that is called all the time takes about 30 kB of Redis,
// whatever the number of calls and of workers.
const (
	callsKept = (tasks.PlaneMinutes + 10) * time.Minute
	// callFailuresKept is how long the last failures of a driver are kept, and how long a driver is remembered that
	// nobody calls any more.
	callFailuresKept = 25 * time.Hour
)

// callsPrefix begins all keys; activityKey has the same beginning.
const callsPrefix = "reset:activity:calls"

// calledKey is a sorted set of drivers, by when they were called last.
const calledKey = callsPrefix

func callsKey(driver string, minute int64) string {
	return fmt.Sprintf("%s:{%s}:%d", callsPrefix, driver, minute)
}

// failedCallsKey is a list, newest first.
func failedCallsKey(driver string) string { return callsPrefix + ":{" + driver + "}:failures" }

// The fields of durations are these with the number of a bucket.
const (
	resetField = "r"
	lookField  = "l"
)

// Calls are what this process's drivers have called, until it is written to where that of all processes is.
type Calls struct {
	redis   *wire.Client
	leftOut *codec.LeftOut
	mu      sync.Mutex
	drivers map[string]*DriverCalls
}

// NewCalls makes Calls.
func NewCalls(client *wire.Client, leftOut *codec.LeftOut) *Calls {
	return &Calls{redis: client, leftOut: leftOut, drivers: map[string]*DriverCalls{}}
}

// Of are the calls of a driver.
func (c *Calls) Of(driver string) *DriverCalls {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.drivers[driver]
	if d == nil {
		d = &DriverCalls{}
		c.drivers[driver] = d
	}
	return d
}

// DriverCalls counts calls of one driver. Counting takes two additions and makes no garbage: a worker counts ten
// thousand calls a second.
type DriverCalls struct {
	kinds         [tasks.CallKinds]atomic.Int64
	resets, looks [tasks.LatencyBuckets]atomic.Int64

	mu     sync.Mutex
	failed []failedCall // the last ones that are not written
	next   int          // where the next one goes, once there are tasks.MaxCallFailures
}

type failedCall struct {
	tasks.CallFailure
	at time.Time // by this machine's clock
}

// Count counts a call that took so long.
func (d *DriverCalls) Count(kind tasks.CallKind, took time.Duration) {
	d.kinds[kind].Add(1)
	switch {
	case !kind.Answered():
	case kind.Look():
		d.looks[tasks.LatencyBucket(took)].Add(1)
	default:
		d.resets[tasks.LatencyBucket(took)].Add(1)
	}
}

// Fail remembers a call that failed just now.
func (d *DriverCalls) Fail(f tasks.CallFailure) {
	if len(f.Message) > tasks.MaxCallMessage {
		f.Message = strings.ToValidUTF8(f.Message[:tasks.MaxCallMessage], "")
	}
	failed := failedCall{f, time.Now()}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.failed) < tasks.MaxCallFailures {
		d.failed = append(d.failed, failed)
		return
	}
	d.failed[d.next] = failed
	d.next = (d.next + 1) % len(d.failed)
}

// take returns what is not written, by field of the hash and as failures, oldest first, and forgets it.
func (d *DriverCalls) take() (done map[string]int64, failed []failedCall) {
	done = map[string]int64{}
	add := func(name string, counter *atomic.Int64) {
		if n := counter.Swap(0); n > 0 {
			done[name] = n
		}
	}
	for kind := range tasks.CallKinds {
		add(kind.String(), &d.kinds[kind])
	}
	for i := range tasks.LatencyBuckets {
		if d.resets[i].Load() > 0 {
			add(resetField+strconv.Itoa(i), &d.resets[i])
		}
		if d.looks[i].Load() > 0 {
			add(lookField+strconv.Itoa(i), &d.looks[i])
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	failed = append(slices.Clone(d.failed[d.next:]), d.failed[:d.next]...)
	d.failed, d.next = d.failed[:0], 0
	return done, failed
}

// WriteCalls writes them, until ctx ends. While nothing is called nothing is sent.
func (c *Calls) WriteCalls(ctx context.Context) error { return flushing(ctx, c.Flush) }

// Flush adds them to the minute of Redis's clock. What cannot be written is lost.
func (c *Calls) Flush(ctx context.Context) {
	c.mu.Lock()
	drivers := maps.Clone(c.drivers)
	c.mu.Unlock()
	pipe := c.redis.Pipeline()
	var now time.Time
	for name, d := range drivers {
		done, failed := d.take()
		if len(done) == 0 && len(failed) == 0 {
			continue
		}
		if now.IsZero() {
			var err error
			if now, err = c.redis.Time(ctx).Result(); err != nil {
				return
			}
		}
		c.write(ctx, pipe, name, done, failed, now)
	}
	if pipe.Len() > 0 {
		_, _ = pipe.Exec(ctx)
	}
}

func (c *Calls) write(ctx context.Context, pipe redis.Pipeliner, driver string, done map[string]int64, failed []failedCall, now time.Time) {
	key := callsKey(driver, now.Unix()/60)
	for field, n := range done {
		pipe.HIncrBy(ctx, key, field, n)
	}
	pipe.Expire(ctx, key, callsKept)
	pipe.ZAdd(ctx, calledKey, redis.Z{Score: float64(now.UnixMilli()), Member: driver})
	pipe.ZRemRangeByScore(ctx, calledKey, "-inf", strconv.FormatInt(now.Add(-callFailuresKept).UnixMilli(), 10))
	if len(failed) == 0 {
		return
	}
	list, written := failedCallsKey(driver), time.Now() // once: what failed later must not seem to have failed before
	for _, f := range failed {
		f.At = tasks.FromMillis(now.Add(-written.Sub(f.at)).UnixMilli())
		text, err := json.Marshal(f.CallFailure)
		if err == nil { // strings and a time always encode
			pipe.LPush(ctx, list, text)
		}
	}
	pipe.LTrim(ctx, list, 0, tasks.MaxCallFailures-1)
	pipe.Expire(ctx, list, callFailuresKept)
}

// Called are the drivers that were called within the last day.
func (c *Calls) Called(ctx context.Context) ([]string, error) {
	drivers, err := c.redis.ZRange(ctx, calledKey, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list drivers that were called: %w", err)
	}
	return drivers, nil
}

// Planes reads the calls of drivers.
func (c *Calls) Planes(ctx context.Context, drivers []string) ([]tasks.ControlPlane, error) {
	now, err := c.redis.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("read calls of drivers: %w", err)
	}
	pipe := c.redis.Pipeline()
	minutes := make([][tasks.PlaneMinutes]*redis.MapStringStringCmd, len(drivers))
	failures := make([]*redis.StringSliceCmd, len(drivers))
	for i, driver := range drivers {
		for n := range tasks.PlaneMinutes {
			minutes[i][n] = pipe.HGetAll(ctx, callsKey(driver, now.Unix()/60-int64(tasks.PlaneMinutes-1-n)))
		}
		failures[i] = pipe.LRange(ctx, failedCallsKey(driver), 0, tasks.MaxCallFailures-1)
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("read calls of drivers: %w", err)
	}
	planes := make([]tasks.ControlPlane, len(drivers))
	for i, driver := range drivers {
		planes[i] = tasks.ControlPlane{Driver: driver, At: tasks.FromMillis(now.UnixMilli()), Minutes: make([]tasks.Calls, tasks.PlaneMinutes)}
		for n, hash := range minutes[i] {
			planes[i].Minutes[n] = callsOf(hash.Val())
		}
		for _, text := range failures[i].Val() {
			var f tasks.CallFailure
			if err := json.Unmarshal([]byte(text), &f); err != nil {
				if err := c.leftOut.Note("a failed call of driver "+driver, &codec.Damage{Err: err}); err != nil {
					return nil, err
				}
				continue
			}
			planes[i].Failures = append(planes[i].Failures, f)
		}
		slices.SortStableFunc(planes[i].Failures, func(a, b tasks.CallFailure) int { return b.At.Compare(a.At.Time) })
	}
	return planes, nil
}

// callsOf reads a hash. A field that is not known is one of a newer version.
func callsOf(hash map[string]string) (calls tasks.Calls) {
	for field, text := range hash {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			continue
		}
		for kind := range tasks.CallKinds {
			if kind.String() == field {
				calls.Kinds[kind] = n
			}
		}
		for prefix, buckets := range map[string]*tasks.Latencies{resetField: &calls.Resets, lookField: &calls.Looks} {
			number, is := strings.CutPrefix(field, prefix)
			if bucket, err := strconv.Atoi(number); is && err == nil && bucket >= 0 && bucket < len(buckets) {
				buckets[bucket] = n
			}
		}
	}
	return calls
}
