package views

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

const (
	// censusKey has the last census, for all processes, censusTurnKey who makes the next one.
	censusKey     = "reset:census"
	censusTurnKey = "reset:census:turn"

	// censusStep is how many jobs are read in a round trip, censusMost how many are looked at: it bounds memory and time.
	censusStep = 200
	censusMost = 200_000

	// A census is good for censusRest at least, and for censusRests times as long as it took, at most for censusLongest: so
	// counting costs an eightieth of somebody's time, and a small system sees what is true.
	censusRest    = 2 * time.Second
	censusRests   = 80
	censusLongest = time.Minute
	// censusPatience is how long it may take to count, censusTurn how long one that died keeps others from it, censusKept
	// how long one is kept that nobody renews.
	censusPatience = 20 * time.Second
	censusTurn     = 30 * time.Second
	censusKept     = time.Hour
	// censusLately is how old one may be that nobody waits for another one.
	censusLately = 10 * time.Second
	// censusOld is how old one may be that is shown while another process counts, censusAsk how often it is asked for there.
	censusOld = 2 * time.Minute
	censusAsk = 50 * time.Millisecond
	// censusFresh is for how long a process does not ask Redis for it again.
	censusFresh = 500 * time.Millisecond
)

// CensusSources are what a census goes by besides the records.
type CensusSources struct {
	Policies CensusPolicies
	Quotas   CensusQuotas
	Queues   CensusQueues
	Runs     CensusRuns
	// Unreachable are the drivers whose control planes no worker reaches, and since when. nil: nobody knows of any.
	Unreachable func(ctx context.Context) (map[string]tasks.Time, error)
}

// CensusPolicies are halts and limits.
type CensusPolicies interface {
	Policy(ctx context.Context, tenant string) (tasks.Policy, error)
	RunHalt(ctx context.Context, run string) (*tasks.Halt, error)
}

// CensusQuotas say how long nothing of a tenant may begin, because so many have in the last hour.
type CensusQuotas interface {
	SpendWait(ctx context.Context, tenant string, perHour int) (time.Duration, error)
}

// CensusQueues say which queues are paused, and which drivers living workers have.
type CensusQueues interface {
	PausedQueues(ctx context.Context) (map[string]bool, error)
	Served(ctx context.Context) (map[string]bool, error)
}

// CensusRuns are the runs that have not ended.
type CensusRuns interface {
	// Rests are the instances of runs that are in no job yet.
	Rests(ctx context.Context) ([]tasks.RunRest, error)
}

// Census counts the work that is open. All processes share one result, which is made by one of those that ask for it when it is
// stale.
type Census struct {
	redis   *wire.Client
	sources CensusSources
	leftOut *codec.LeftOut
	look    *wire.Look[tasks.Census]
	state   *wire.Look[censusState]
}

// censusState is what drivers and queues are like, whatever the job.
type censusState struct {
	served, paused map[string]bool
	unreachable    map[string]tasks.Time
}

// NewCensus makes a Census. The caller closes it.
func NewCensus(client *wire.Client, sources CensusSources, leftOut *codec.LeftOut) *Census {
	v := &Census{redis: client, sources: sources, leftOut: leftOut}
	v.look = wire.NewLook(censusFresh, censusPatience, v.read)
	v.state = wire.NewLook(censusFresh, censusPatience, func(ctx context.Context, _ *censusState) (censusState, error) { return v.readState(ctx) })
	return v
}

// Close waits for what counts. Nobody may ask any more.
func (v *Census) Close() {
	v.look.Wait()
	v.state.Wait()
}

// Unreachable has a census ask for drivers whose control planes cannot be reached. It is called before anybody asks.
func (v *Census) Unreachable(ask func(ctx context.Context) (map[string]tasks.Time, error)) {
	v.sources.Unreachable = ask
}

// Census returns what was counted last. It says as of when: seconds ago, on a large system up to a minute.
func (v *Census) Census(ctx context.Context) (tasks.Census, error) {
	if c, known := v.look.Recent(censusLately, 0); known && v.redis.Now().Sub(c.At.Time).Abs() < censusLately {
		return c, nil // nobody waits for a count while the last one is good enough
	}
	c, err := v.look.Get(ctx)
	if err != nil {
		return c, fmt.Errorf("census: %w", err)
	}
	return c, nil
}

// censusWait is how long who looks at single jobs waits for what the last census has seen first.
const censusWait = 200 * time.Millisecond

// CensusOf counts the items of some jobs as they are now. Jobs without a record are left out.
func (v *Census) CensusOf(ctx context.Context, jobs []string) (tasks.Census, error) {
	now, err := v.redis.Time(ctx).Result()
	if err != nil {
		return tasks.Census{}, fmt.Errorf("census: %w", err)
	}
	last, _ := v.look.Recent(censusOld, censusWait)
	t, err := v.newTally(ctx, last, now)
	if err == nil {
		err = v.countJobs(ctx, t, jobs)
	}
	if err != nil {
		return tasks.Census{}, fmt.Errorf("census: %w", err)
	}
	return t.done(), nil
}

// readState asks about drivers and queues.
func (v *Census) readState(ctx context.Context) (s censusState, err error) {
	if s.served, err = v.sources.Queues.Served(ctx); err != nil {
		return s, err
	}
	if s.paused, err = v.sources.Queues.PausedQueues(ctx); err != nil {
		return s, err
	}
	if v.sources.Unreachable != nil {
		s.unreachable, err = v.sources.Unreachable(ctx)
	}
	return s, err
}

// read returns the shared result, or makes it.
func (v *Census) read(ctx context.Context, own *tasks.Census) (tasks.Census, error) {
	for {
		last, now, err := v.shared(ctx)
		if err != nil {
			return tasks.Census{}, err
		}
		if own != nil && own.At.After(last.At.Time) {
			last = *own // it could not be stored
		}
		if good(last, now) {
			return last, nil
		}
		mine, err := v.redis.SetNX(ctx, censusTurnKey, "1", censusTurn).Result()
		if err != nil && !wire.Answered(err) {
			return tasks.Census{}, err
		}
		if mine { // somebody may have made one since we have looked, and given the turn back
			if made, now, err := v.shared(ctx); err == nil && good(made, now) {
				return made, v.redis.Del(ctx, censusTurnKey).Err()
			}
		}
		if mine || err != nil { // what cannot be written, because Redis is full for example, is made for this process alone
			return v.take(ctx, last, now)
		}
		if age := now.Sub(last.At.Time); age >= 0 && age < censusOld {
			return last, nil
		}
		select {
		case <-time.After(censusAsk):
		case <-ctx.Done():
			return tasks.Census{}, ctx.Err()
		}
	}
}

// good reports whether a census need not be made anew. One of a time to come is from before Redis's clock was set back.
func good(c tasks.Census, now time.Time) bool {
	return !c.At.IsZero() && !c.At.After(now) && now.Before(c.Next.Time)
}

// shared returns the last result, a zero one if there is none that can be read, and Redis's time.
func (v *Census) shared(ctx context.Context) (last tasks.Census, now time.Time, err error) {
	pipe := v.redis.Pipeline()
	stored, clock := pipe.Get(ctx, censusKey), pipe.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil && !wire.Answered(err) {
		return last, now, err
	}
	if err := stored.Err(); err == nil {
		if json.Unmarshal([]byte(stored.Val()), &last) != nil { // of another version
			last = tasks.Census{}
		}
	}
	return last, clock.Val(), clock.Err()
}

// take makes a census and stores it for all.
func (v *Census) take(ctx context.Context, last tasks.Census, now time.Time) (tasks.Census, error) {
	defer v.redis.Del(context.WithoutCancel(ctx), censusTurnKey)
	start := time.Now()
	c, err := v.count(ctx, last, now)
	if err != nil {
		return c, err
	}
	took := time.Since(start)
	c.Next = tasks.FromMillis(now.Add(took + min(max(censusRest, censusRests*took), censusLongest)).UnixMilli())
	text, err := json.Marshal(c)
	if err != nil {
		return c, err
	}
	_ = v.redis.Set(ctx, censusKey, text, censusKept).Err() // for this process it is good all the same
	return c, nil
}

// count counts.
func (v *Census) count(ctx context.Context, last tasks.Census, now time.Time) (tasks.Census, error) {
	t, err := v.newTally(ctx, last, now)
	if err != nil {
		return tasks.Census{}, err
	}
	seen := map[string]struct{}{}
	for cursor := uint64(0); ; {
		page, next, err := v.redis.ZScan(ctx, codec.OpenKey, cursor, "", censusStep).Result()
		if err != nil {
			return tasks.Census{}, fmt.Errorf("list open jobs: %w", err)
		}
		var ids []string
		for i := 0; i+1 < len(page); i += 2 { // each with its score
			if _, again := seen[page[i]]; again {
				continue
			}
			if len(seen) == censusMost {
				break
			}
			seen[page[i]] = struct{}{}
			ids = append(ids, page[i])
		}
		if err := v.countJobs(ctx, t, ids); err != nil {
			return tasks.Census{}, err
		}
		if cursor = next; cursor == 0 || len(seen) == censusMost {
			break
		}
	}
	if len(seen) == censusMost {
		listed, err := v.redis.ZCard(ctx, codec.OpenKey).Result()
		if err != nil {
			return tasks.Census{}, err
		}
		t.census.Uncounted = max(0, int(listed)-censusMost)
	}
	rests, err := v.sources.Runs.Rests(ctx)
	if err != nil {
		return tasks.Census{}, err
	}
	if err := t.addRests(ctx, rests); err != nil {
		return tasks.Census{}, err
	}
	return t.done(), nil
}

// countJobs counts some jobs, a few in each round trip: an embedded Redis lists all at once.
func (v *Census) countJobs(ctx context.Context, t *tally, ids []string) error {
	for len(ids) > 0 {
		some := ids[:min(len(ids), censusStep)]
		ids = ids[len(some):]
		pipe := v.redis.Pipeline()
		answers := make([]*redis.StringSliceCmd, len(some))
		for i, id := range some {
			answers[i] = redis.NewStringSliceCmd(ctx, "hgetall", codec.JobKey(id)) // see Outlines
			_ = pipe.Process(ctx, answers[i])
		}
		_, _ = pipe.Exec(ctx) // each carries its own error
		for i, id := range some {
			fields, err := answers[i].Result()
			var job codec.Open
			if err == nil {
				job, err = codec.OpenItems(id, fields)
			}
			switch {
			case errors.Is(err, tasks.JobGone): // it is about to be made, or was never
			case err != nil:
				if err := v.leftOut.Note(id, err); err != nil {
					return fmt.Errorf("read job record: %w", err)
				}
				t.census.Unreadable++
			default:
				if err := t.add(ctx, job); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
