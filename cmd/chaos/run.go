package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/api/client"
)

const (
	maxAttempts  = 3
	concurrency  = 10 // of one worker process
	tenant       = "chaos"
	startTimeout = 30 * time.Second
	// settleTimeout is longer than everything that may delay an item: the lock of a
	// lost attempt (65 s), the wait for it (30 s more), and a delivery taken over.
	settleTimeout = 150 * time.Second
)

// plan is what a run is to do.
type plan struct {
	seed     uint64
	duration time.Duration
	faults   []faultKind
	setup    setup
	burst    int // instances to submit at once, at the start; 0 = all the time
	binary   string
	dir      string // for logs and Redis's files
}

// result is what a run has shown.
type result struct {
	history History
	injured map[faultKind]int
	exits   int // of api and worker processes, by themselves
	repairs int // items that the sweeper has delivered again
}

// world is everything that runs while faults are injected.
type world struct {
	plan
	rec       *recorder
	store     *store
	processes map[string]*process
	apis      []string // names
	direct    []string // URLs of the apis, past the links
	workers   []string
	links     map[string]*link
	caller    *caller
	receiver  string // address of the webhooks' receiver
}

// run makes one run: start everything, load it, break it, mend it, wait for the
// jobs to end. It has ended everything that it started when it returns.
func run(ctx context.Context, p plan) (res result, err error) {
	ctx, stop := context.WithCancel(ctx)
	r := rand.New(rand.NewPCG(p.seed, 0))
	w := &world{plan: p, rec: &recorder{start: time.Now()}, processes: map[string]*process{}, links: map[string]*link{}}
	var closers []func()
	defer func() {
		stop()
		for _, f := range slices.Backward(closers) {
			f()
		}
		res.history = History{Start: w.rec.start, Forgets: p.setup.forgets(), MaxAttempts: maxAttempts, Events: w.rec.events}
	}()
	later := func(f func()) { closers = append(closers, f) }

	later(http.DefaultClient.CloseIdleConnections) // of ready
	if err := w.startStore(ctx, p.setup, later); err != nil {
		return res, err
	}
	apis, workers := 1+r.IntN(2), 2+r.IntN(2)
	plane := newPlane(w.rec, rand.New(rand.NewPCG(p.seed, 1)))
	if p.burst > 0 {
		// As long as the faults take.
		plane.moods.latency = p.duration * time.Duration(workers*concurrency) / time.Duration(p.burst)
	}
	if err := w.startPlane(ctx, plane, later); err != nil {
		return res, err
	}
	if err := w.startReceiver(ctx, later); err != nil {
		return res, err
	}
	if err := w.startService(ctx, apis, workers, rand.New(rand.NewPCG(p.seed, 2)), later); err != nil {
		return res, err
	}

	rate := 100 + r.IntN(200)
	faults := schedule(r, p.duration, p.faults, map[string][]string{
		"api": w.apis, "worker": w.workers, "workers": {"workers"}, "leases": {"leases"}, "redis": {"redis"}, "operator": {"operator"},
		"link": slices.Sorted(maps.Keys(w.links)),
	})
	res.injured = map[faultKind]int{}
	for _, f := range faults {
		res.injured[f.kind]++
	}
	loaded, cancel := context.WithTimeout(ctx, p.duration)
	defer cancel()
	var g errgroup.Group
	g.Go(func() error {
		if p.burst > 0 {
			return w.caller.burst(ctx, p.burst)
		}
		w.caller.load(loaded, rate)
		return nil
	})
	begin := time.Now()
	for i, f := range faults {
		r := rand.New(rand.NewPCG(p.seed, uint64(10+i)))
		g.Go(func() error {
			pause(loaded, f.at-time.Since(begin))
			return w.inject(loaded, f, r)
		})
	}
	if err := g.Wait(); err != nil {
		return res, err
	}
	if err := w.healthy(ctx); err != nil {
		return res, err
	}
	err = errors.Join(w.caller.settle(ctx, settleTimeout), w.allTold(ctx))
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

func (w *world) start(ctx context.Context, later func(func()), name string, args ...string) error {
	p, wait, err := startProcess(ctx, w.dir, name, args...)
	if err != nil {
		return err
	}
	later(wait)
	w.processes[name] = p
	return nil
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

// startPlane serves the control plane. It is shut down last but Redis, when every
// reset under way has been recorded.
func (w *world) startPlane(ctx context.Context, p *plane, later func(func())) error {
	address, err := serve(ctx, "POST /{worker}/{instance}", p, later)
	if err != nil {
		return err
	}
	return w.openLink(linkToUpstream, address, later)
}

// serve serves a pattern on an address of its own.
func serve(ctx context.Context, pattern string, h http.Handler, later func(func())) (address string, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.Handle(pattern, h)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	later(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTimeout)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
		<-served //nolint:errcheck // http.ErrServerClosed, always
	})
	return listener.Addr().String(), nil
}

// startService starts the processes under test and waits until they are ready.
func (w *world) startService(ctx context.Context, apis, workers int, r *rand.Rand, later func(func())) error {
	if out, err := exec.CommandContext(ctx, w.binary, "webhook", "add", "--redis", w.store.url, "--tenant", tenant,
		"--url", "http://"+w.receiver+"/", "--webhook-allow-private").CombinedOutput(); err != nil {
		return fmt.Errorf("batchreset webhook add: %w: %s", err, out)
	}
	token, err := exec.CommandContext(ctx, w.binary, "token", "add", "--redis", w.store.url, "--tenant", tenant).Output()
	if err != nil {
		return fmt.Errorf("batchreset token add: %w", err)
	}
	var servers []string
	for i := range apis {
		addr, err := freeAddr(ctx)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("api-%d", i+1)
		if err := w.start(ctx, later, name, w.binary, "api", "--listen", addr, "--ops-listen", "127.0.0.1:0",
			"--redis", w.redisThrough(linkAPIToRedis), "--commit-replicas", strconv.Itoa(w.setup.commitReplicas()), "--fleet", "open"); err != nil {
			return err
		}
		link := fmt.Sprintf("%s-%d", linkCallerToAPI, i+1)
		if err := w.openLink(link, addr, later); err != nil {
			return err
		}
		w.apis = append(w.apis, name)
		w.direct = append(w.direct, "http://"+addr)
		servers = append(servers, "http://"+w.links[link].addr())
	}
	for i := range workers {
		name := fmt.Sprintf("worker-%d", i+1)
		if err := w.start(ctx, later, name, w.binary, "worker", "--ops-listen", "127.0.0.1:0",
			"--redis", w.redisThrough(linkWorkerToRedis), "--commit-replicas", strconv.Itoa(w.setup.commitReplicas()),
			"--driver", "http", "--driver-url", "http://"+w.links[linkToUpstream].addr()+"/"+name+"/{instance_id}", "--driver-idempotent",
			"--webhook-allow-private", "--concurrency", strconv.Itoa(concurrency), "--attempt-timeout", "5s", "--max-attempts", strconv.Itoa(maxAttempts)); err != nil {
			return err
		}
		w.workers = append(w.workers, name)
	}
	if w.caller, err = newCaller(w.rec, r, strings.TrimSpace(string(token)), servers); err != nil {
		return err
	}
	later(w.caller.close)
	return w.healthy(ctx)
}

// redisThrough is the URL of Redis behind a link, if there is one.
func (w *world) redisThrough(name string) string {
	if l := w.links[name]; l != nil {
		return "redis://" + l.addr()
	}
	return w.store.url
}

// healthy waits until every api process is ready.
func (w *world) healthy(ctx context.Context) error {
	for _, server := range w.direct {
		if err := until(ctx, startTimeout, func(ctx context.Context) error { return ready(ctx, server) }); err != nil {
			return fmt.Errorf("the api does not get ready (see %s): %w", w.dir, err)
		}
	}
	return nil
}

func ready(ctx context.Context, server string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// retryAll opens whatever can be opened.
func retryAll(c *client.Client, ctx context.Context, job string) (client.Job, error) {
	return c.Retry(ctx, job, "failed", "unknown", "cancelled")
}

// inject breaks something, keeps it broken as long as planned, and mends it.
func (w *world) inject(ctx context.Context, f plannedFault, r *rand.Rand) (err error) {
	if ctx.Err() != nil {
		return nil // the load has ended early
	}
	switch f.kind {
	case cancelJob:
		w.caller.change(ctx, Cancel, (*client.Client).Cancel)
		return nil
	case retryJob:
		w.caller.change(ctx, Retry, retryAll)
		return nil
	}
	e := Event{Kind: Fault, Begin: w.rec.now(), Fault: f.kind, Target: f.target}
	if f.kind == haltAll {
		return w.halt(ctx, e, f.length)
	}
	defer func() {
		e.End = w.rec.now()
		w.rec.add(e)
	}()
	switch f.kind {
	case apiKill, workerKill:
		w.processes[f.target].signal(syscall.SIGKILL)
	case workersKill:
		for _, name := range w.workers {
			w.processes[name].signal(syscall.SIGKILL)
		}
	case leaseAge:
		w.store.ageLeases(ctx)
	case apiFreeze, workerFreeze, workerSleep:
		w.processes[f.target].signal(syscall.SIGSTOP)
		pause(ctx, f.length)
		w.processes[f.target].signal(syscall.SIGCONT)
	case redisKill, failover:
		name, err := w.store.primary(ctx, r)
		if err != nil {
			return fmt.Errorf("%s: %w", f.kind, err)
		}
		server := w.processes[name]
		server.gate.Lock()
		server.signal(syscall.SIGKILL)
		pause(ctx, f.length)
		server.gate.Unlock()
	case redisFull:
		err = w.store.limitMemory(ctx, "1mb")
		pause(ctx, f.length)
		err = errors.Join(err, w.store.limitMemory(context.WithoutCancel(ctx), "0"))
	default:
		err = w.links[f.target].fault(ctx, f)
	}
	return err
}
