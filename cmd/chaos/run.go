package main

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness"
)

const (
	maxAttempts  = 3
	concurrency  = 10 // of one worker process
	startTimeout = 2 * time.Minute
	// finishTimeout is longer than everything that may delay an item: the lock of a
	// lost attempt (65 s), the wait for it (30 s more), and a delivery taken over.
	finishTimeout = 150 * time.Second
)

// plan is what a run is to do.
type plan struct {
	seed     uint64
	duration time.Duration
	faults   []fault.Kind
	setup    setup
	burst    int // instances to submit at once, at the start; 0 = all the time
	binary   string
	library  string        // in front of the C library, for Redis's clocks
	patience time.Duration // with jobs none of which ends
	dir      string        // for logs and Redis's files
}

// has reports whether a kind of fault is wanted.
func (p plan) has(kind fault.Kind) bool { return slices.Contains(p.faults, kind) }

// character is what a run is like from its start to its end. It follows from the seed.
type character struct {
	apis, workers  int
	repeatable     bool // the control plane honours keys, and the workers know
	attemptTimeout time.Duration
	slots          int           // --driver-concurrency; 0 = as many as --concurrency
	giveUpAfter    time.Duration // 0 = longer than the run
	rate           int           // instances per second
	looks          bool          // the workers look afterwards
	lookPatience   time.Duration
}

// draw draws the character of a run. Of many kinds of faults, those that change all of it
// are not in each run.
func (p plan) draw(r *rand.Rand) character {
	wanted := func(kind fault.Kind) bool { return p.has(kind) && (len(p.faults) < few || r.IntN(3) == 0) }
	c := character{
		apis: 1 + r.IntN(2), workers: 2 + r.IntN(2), rate: 100 + r.IntN(200),
		repeatable: p.seed%2 == 0, looks: p.seed/2%2 == 1, attemptTimeout: 5 * time.Second,
	}
	if slices.ContainsFunc(p.faults, func(k fault.Kind) bool { return k == fault.PlaneSlow || k == fault.GatewayLose || k == fault.PlaneTalk }) {
		// Attempts take their whole time, and instances stay locked.
		c.rate = 30 + r.IntN(60)
		c.attemptTimeout = time.Duration(2+r.IntN(5)) * time.Second
	}
	if wanted(fault.FewSlots) {
		// Twice as much as there are slots for, so that attempts wait for them.
		c.slots, c.attemptTimeout = 2, 25*time.Second
		c.rate = int(float64(c.workers*c.slots) * 2 / slotLatency.Seconds())
	}
	if wanted(fault.GiveUp) {
		c.giveUpAfter = 20 * time.Second
	}
	if c.looks { // most attempts can look to the end of it
		c.lookPatience = min(c.attemptTimeout/3, 3*time.Second)
	}
	return c
}

const (
	few         = 8                      // kinds of faults that somebody has chosen
	slotLatency = 500 * time.Millisecond // of a reset, about, where there are few slots
)

// result is what a run has shown.
type result struct {
	history history.Run
	injured map[fault.Kind]int
	exits   int // of api and worker processes, by themselves
	repairs int // items that the sweeper has delivered again
}

// world is everything that runs while faults are injected.
type world struct {
	plan
	character
	rec       *history.Recorder
	store     *store
	processes map[string]*process
	apis      []string // names
	direct    []string // URLs of the apis, past the links
	workers   []string
	links     map[string]*link
	clocks    map[string]clock // by process
	gateway   *gateway
	caller    *caller
	receiver  string             // address of the webhooks' receiver
	endings   chan history.Event // that it was told of
	skews     *rand.Rand         // of Redis's clocks
	operator  sync.Mutex         // there is one: each resume ends the halt before it
	fleet     sync.Mutex         // for the same reason
}

// run makes one run: start everything, load it, break it, repair it, wait for the
// jobs to end. It has ended everything that it started when it returns. When ctx ends, it
// waits for nothing more.
func run(ctx context.Context, p plan) (res result, err error) {
	interrupted := ctx.Done()
	ctx, stop := context.WithCancel(ctx)
	r := rand.New(rand.NewPCG(p.seed, 0))
	w := &world{
		plan: p, character: p.draw(r), rec: &history.Recorder{Start: time.Now()},
		processes: map[string]*process{}, links: map[string]*link{}, clocks: map[string]clock{},
		endings: make(chan history.Event), skews: rand.New(rand.NewPCG(p.seed, 4)),
	}
	var closers []func()
	defer func() {
		stop()
		for _, f := range slices.Backward(closers) {
			f()
		}
		res.history = history.Run{
			Start: w.rec.Start, Forgets: p.setup.forgets(), MaxAttempts: maxAttempts, AttemptTimeout: w.attemptTimeout,
			Repeatable: w.repeatable, Looks: w.looks, LookPatience: w.lookPatience, GiveUpAfter: w.giveUpAfter, Events: w.rec.Events(),
		}
		if w.has(fault.RedisClock) {
			res.history.Skew = redisSkew
		}
	}()
	later := func(f func()) { closers = append(closers, f) }

	later(http.DefaultClient.CloseIdleConnections) // of ready
	if err := w.startAll(ctx, interrupted, later); err != nil {
		return res, err
	}
	if !w.looks {
		w.faults = slices.DeleteFunc(slices.Clone(w.faults), func(k fault.Kind) bool { return slices.Contains(fault.Looking(), k) })
	}
	faults := fault.Schedule(r, p.duration, w.faults, map[string][]string{
		"api": w.apis, "worker": w.workers, "link": slices.Sorted(maps.Keys(w.links)),
		"api's clock": w.apis, "worker's clock": w.workers,
	})
	res.injured = w.injuries(faults)
	if err := w.stress(ctx, faults); err != nil {
		return res, err
	}
	if err := w.healthy(ctx); err != nil {
		return res, err
	}
	err = errors.Join(w.caller.awaitRuns(ctx, p.patience), w.caller.awaitFinal(ctx, p.patience), w.allTold(ctx))
	for _, name := range slices.Concat(w.apis, w.workers) {
		res.exits += w.processes[name].exits()
	}
	for _, name := range w.workers {
		log, logErr := os.ReadFile(filepath.Join(w.dir, name+".log"))
		err = errors.Join(err, logErr)
		res.repairs += strings.Count(string(log), "item delivered again")
	}
	return res, err
}

// startAll starts everything: Redis, the control plane behind its gateway, the receiver of webhooks,
// and the service. interrupted ends the resets that take minutes.
func (w *world) startAll(ctx context.Context, interrupted <-chan struct{}, later func(func())) error {
	if err := w.startStore(ctx, w.setup, later); err != nil {
		return err
	}
	plane := newPlane(w.rec, rand.New(rand.NewPCG(w.seed, 1)), w.repeatable)
	plane.interrupted = interrupted
	able, err := w.canLook(ctx)
	if err != nil {
		return err
	}
	if w.looks = w.looks && able; w.looks {
		plane.sights = newSights(w.rec, rand.New(rand.NewPCG(w.seed, 5)), w.lookPatience)
	}
	if !w.has(fault.PlaneSlow) {
		plane.moods.hanging = 0
	}
	switch {
	case w.burst > 0:
		// As long as the faults take.
		plane.moods.latency = w.duration * time.Duration(w.character.workers*concurrency) / time.Duration(w.burst)
	case w.slots > 0:
		plane.moods.latency = slotLatency
	}
	if err := w.startPlane(ctx, newGateway(w.rec, plane, rand.New(rand.NewPCG(w.seed, 3))), later); err != nil {
		return err
	}
	if err := w.startReceiver(ctx, later); err != nil {
		return err
	}
	return w.startService(ctx, rand.New(rand.NewPCG(w.seed, 2)), later)
}

// injuries counts what is done to the service, by kind.
func (w *world) injuries(faults []fault.Planned) map[fault.Kind]int {
	n := map[fault.Kind]int{}
	for _, f := range faults {
		n[f.Kind]++
	}
	for kind, on := range map[fault.Kind]bool{fault.FewSlots: w.slots > 0, fault.GiveUp: w.giveUpAfter > 0} {
		if on {
			n[kind] = 1
		}
	}
	return n
}

// stress loads the service and breaks it until the plan's time is over.
func (w *world) stress(ctx context.Context, faults []fault.Planned) error {
	loaded, cancel := context.WithTimeout(ctx, w.duration)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error {
		if w.burst > 0 {
			return w.caller.burst(ctx, w.burst)
		}
		w.caller.load(ctx, loaded, w.rate)
		return nil
	})
	g.Go(func() error {
		w.caller.follow(loaded, w.endings, w.has(fault.RetryJob))
		return nil
	})
	begin := time.Now()
	for i, f := range faults {
		r := rand.New(rand.NewPCG(w.seed, uint64(10+i)))
		g.Go(func() error {
			harness.Pause(loaded, f.At-time.Since(begin))
			return w.inject(ctx, loaded, f, r)
		})
	}
	return g.Wait()
}

func (w *world) openLink(name, upstream string, later func(func())) error {
	l, err := openLink(name, upstream)
	if err != nil {
		return err
	}
	later(l.close)
	w.links[name] = l
	return nil
}
