package wire

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// clockEvery is how often a process compares its clock with Redis's.
	clockEvery = 10 * time.Second
	// clockTries is how often it asks if the answer takes longer than clockHaste: nobody
	// knows when within that time Redis looked at its clock.
	clockTries = 3
	clockHaste = 50 * time.Millisecond
	// clockTolerance is how far the clocks may differ before that is worth a word, and
	// clockReminder how often it is said again.
	clockTolerance = time.Second
	clockReminder  = 5 * time.Minute
)

// clockReading is what a server's clock said at a moment of ours.
type clockReading struct {
	server string
	redis  time.Time
	here   time.Time     // with the monotonic clock, which nobody sets
	doubt  time.Duration // half the round trip
}

// now is what the server's clock should say now.
func (r clockReading) now() time.Time { return r.redis.Add(time.Since(r.here)) }

// offset is by how much the clock of this machine is ahead now.
func (r clockReading) offset() time.Duration { return time.Now().Round(0).Sub(r.now()) }

// clocks are those of the servers that are written to, at the last comparison, by how far
// this machine's is ahead of them.
type clocks struct {
	last atomic.Pointer[[]clockReading]
}

// middle is the reading that has as many above it as below.
func (c *clocks) middle() (reading clockReading, ok bool) {
	all := c.last.Load()
	if all == nil || len(*all) == 0 {
		return clockReading{}, false
	}
	return (*all)[len(*all)/2], true
}

// worst is the reading that differs most from this machine's clock.
func (c *clocks) worst() (reading clockReading, ok bool) {
	all := c.last.Load()
	if all == nil || len(*all) == 0 {
		return clockReading{}, false
	}
	first, last := (*all)[0], (*all)[len(*all)-1]
	if first.offset().Abs() > last.offset().Abs() {
		return first, true
	}
	return last, true
}

// Now is the time by Redis's clock, without asking Redis, whatever the clock of this machine
// says. It is right to half a round trip, some milliseconds, and of several servers whose
// clocks differ it is that of the one in the middle. When Redis's clock is set, it follows
// within ten seconds.
func (c *Client) Now() time.Time {
	reading, ok := c.clocks.middle()
	if !ok {
		return time.Now()
	}
	return reading.now()
}

// ClockOffset is by how much this machine's clock is ahead of Redis's; of several servers it is
// the one from which it differs most. known is false until CompareClocks has succeeded.
func (c *Client) ClockOffset() (offset time.Duration, known bool) {
	reading, known := c.clocks.worst()
	if !known {
		return 0, false
	}
	return reading.offset(), true
}

// CompareClocks looks at Redis's clock. Until that succeeds, Now is this machine's time.
// WatchClock does it again and again.
func (c *Client) CompareClocks(ctx context.Context) error {
	var mu sync.Mutex
	var readings []clockReading
	read := func(ctx context.Context, node redis.Cmdable, server string) error {
		reading, err := readClock(ctx, node)
		if err != nil {
			return err
		}
		if c.cluster != nil { // else there is only one
			reading.server = server
		}
		mu.Lock()
		defer mu.Unlock()
		readings = append(readings, reading)
		return nil
	}
	err := c.ForEachPrimary(ctx, read)
	if len(readings) == 0 { // one that is away does not keep the others from being heard
		return fmt.Errorf("read Redis's clock: %w", err)
	}
	slices.SortFunc(readings, func(a, b clockReading) int { return cmp.Compare(a.offset(), b.offset()) })
	c.clocks.last.Store(&readings)
	return nil
}

// readClock asks for the time until the answer comes quickly, and keeps the best one.
func readClock(ctx context.Context, node redis.Cmdable) (best clockReading, err error) {
	for try := range clockTries {
		asked := time.Now()
		at, err := node.Time(ctx).Result()
		if err != nil {
			return best, err
		}
		doubt := time.Since(asked) / 2
		if try == 0 || doubt < best.doubt {
			best = clockReading{redis: at, here: asked.Add(doubt), doubt: doubt}
		}
		if best.doubt < clockHaste/2 {
			break
		}
	}
	if best.doubt > clockTolerance/2 { // what is known is better
		return best, fmt.Errorf("the answer took %s", 2*best.doubt)
	}
	return best, nil
}

// WatchClock compares this machine's clock with Redis's until ctx ends, and says so when
// they differ by more than a second.
func (c *Client) WatchClock(ctx context.Context, log *slog.Logger) error {
	ticker := time.NewTicker(clockEvery)
	defer ticker.Stop()
	watch := clockWatch{log: log}
	for {
		if reading, ok := c.clocks.worst(); ok {
			watch.see(reading, time.Now())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := c.CompareClocks(ctx); err != nil && ctx.Err() == nil {
			log.Debug("clocks not compared", "error", err)
		}
	}
}

// clockWatch tells the log of clocks that differ: when that changes, and now and then for as
// long as it lasts.
type clockWatch struct {
	log  *slog.Logger
	told time.Duration // 0: that they agree, or nothing
	at   time.Time
}

func (w *clockWatch) see(r clockReading, now time.Time) {
	offset := r.offset()
	differs := offset.Abs() > clockTolerance+r.doubt
	switch {
	case !differs && w.told != 0:
		w.told = 0
		w.log.Info("this machine's clock agrees with Redis's again", "offset", offset.Round(time.Millisecond))
	case differs && (w.told == 0 || (offset-w.told).Abs() > clockTolerance || now.Sub(w.at) >= clockReminder):
		w.told, w.at = offset, now
		attrs := []any{"offset", offset.Round(time.Millisecond)}
		if r.server != "" {
			attrs = append(attrs, "redis", r.server)
		}
		w.log.Warn("this machine's clock and Redis's differ, one of them is wrong; see BatchresetClockOffset in the runbook", attrs...)
	}
}
