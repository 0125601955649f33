package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness"
)

// startPlane serves the gateway with the control plane behind it. They are shut down last
// but Redis, when every reset under way has been recorded.
func (w *world) startPlane(ctx context.Context, g *gateway, later func(func())) error {
	later(func() {
		g.calls.Wait()
		g.plane.under.Wait()
	})
	address, err := serve(ctx, routes(g), later)
	if err != nil {
		return err
	}
	w.gateway = g
	return w.openLink(fault.WorkerToUpstream, address, later)
}

// routes are what the gateway takes.
func routes(g *gateway) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("POST /{worker}/{instance}", g)
	mux.HandleFunc("GET /poll/{id}", g.poll)
	mux.HandleFunc("GET /{worker}/{instance}/state", g.look)
	return mux
}

// serve serves a handler on an address of its own.
func serve(ctx context.Context, h http.Handler, later func(func())) (address string, err error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
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
func (w *world) startService(ctx context.Context, r *rand.Rand, later func(func())) error {
	if err := w.operate(ctx, "webhook", "add", "--tenant", history.Tenant, "--url", "http://"+w.receiver+"/", "--webhook-allow-private"); err != nil {
		return err
	}
	if err := w.liftLimits(ctx); err != nil {
		return err
	}
	if err := w.register(ctx); err != nil {
		return err
	}
	runs, approver, err := w.canRun(ctx)
	if err != nil {
		return err
	}
	token, _, err := w.addToken(ctx)
	if err != nil {
		return err
	}
	var servers []string
	for i := range w.character.apis {
		addr, err := harness.FreeAddr(ctx)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("api-%d", i+1)
		args := []string{
			w.binary, "api", "--listen", addr, "--ops-listen", "127.0.0.1:0",
			"--redis", w.redisThrough(fault.APIToRedis), "--commit-replicas", strconv.Itoa(w.setup.commitReplicas()), "--fleet", "open",
		}
		if w.giveUpAfter > 0 {
			args = append(args, "--give-up-after", w.giveUpAfter.String())
		}
		if err := w.startWithClock(ctx, later, r, fault.APIClock, name, args...); err != nil {
			return err
		}
		link := fmt.Sprintf("%s-%d", fault.CallerToAPI, i+1)
		if err := w.openLink(link, addr, later); err != nil {
			return err
		}
		w.apis = append(w.apis, name)
		w.direct = append(w.direct, "http://"+addr)
		servers = append(servers, "http://"+w.links[link].addr())
	}
	for i := range w.character.workers {
		name := fmt.Sprintf("worker-%d", i+1)
		args := []string{
			w.binary, "worker", "--ops-listen", "127.0.0.1:0",
			"--redis", w.redisThrough(fault.WorkerToRedis), "--commit-replicas", strconv.Itoa(w.setup.commitReplicas()),
			"--driver", "http", "--driver-url", "http://" + w.links[fault.WorkerToUpstream].addr() + "/" + name + "/{instance_id}",
			"--webhook-allow-private", "--concurrency", strconv.Itoa(concurrency),
			"--attempt-timeout", w.attemptTimeout.String(), "--max-attempts", strconv.Itoa(maxAttempts),
		}
		if w.repeatable {
			args = append(args, "--driver-idempotent")
		}
		if w.looks {
			args = append(args, "--driver-look-url", "http://"+w.links[fault.WorkerToUpstream].addr()+"/"+name+"/{instance_id}/state", "--look-patience", w.lookPatience.String())
		}
		if w.slots > 0 {
			args = append(args, "--driver-concurrency", strconv.Itoa(w.slots))
		}
		if err := w.startWithClock(ctx, later, r, fault.WorkerClock, name, args...); err != nil {
			return err
		}
		w.workers = append(w.workers, name)
	}
	if w.caller, err = newCaller(w.rec, r, token, servers); err != nil {
		return err
	}
	w.caller.runs.able, w.caller.runs.approver = runs, approver
	if w.looks {
		w.caller.use = w.gateway.plane.sights.use
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
		if err := harness.Until(ctx, startTimeout, func(ctx context.Context) error { return harness.Get(ctx, server+"/readyz") }); err != nil {
			return fmt.Errorf("the api does not get ready (see %s): %w", w.dir, err)
		}
	}
	return nil
}

// startWithClock starts a process whose clock is wrong if a kind of fault says so.
func (w *world) startWithClock(ctx context.Context, later func(func()), r *rand.Rand, kind fault.Kind, name string, args ...string) error {
	var env []string
	if w.has(kind) {
		c, err := w.addClock(name, kind, drawSkew(r, kind))
		if err != nil {
			return err
		}
		env = c.env()
	}
	return w.start(ctx, later, name, env, args...)
}

// addClock makes a clock for a process, which is wrong from the start.
func (w *world) addClock(name string, kind fault.Kind, wrong time.Duration) (clock, error) {
	c, err := newClock(w.dir, name)
	if err != nil {
		return clock{}, err
	}
	w.clocks[name] = c
	now := w.rec.Now()
	w.rec.Add(history.Event{Kind: history.Fault, Begin: now, End: now, Fault: kind, Target: fmt.Sprintf("%s by %s", name, wrong)})
	return c, c.set(wrong)
}

// drawSkew draws how wrong a clock is. A few milliseconds between the servers are worse
// than seconds: they are what nobody looks for.
func drawSkew(r *rand.Rand, kind fault.Kind) time.Duration {
	spread := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(2*int64(d))) - d }
	switch {
	case kind != fault.RedisClock && r.IntN(2) == 0:
		return spread(processSkew)
	case kind != fault.RedisClock:
		return processSkew / 2
	case r.IntN(2) == 0:
		return spread(redisSkew)
	}
	return spread(50 * time.Millisecond)
}

// operate runs an operator's command, and repeats it while Redis is away.
func (w *world) operate(ctx context.Context, args ...string) error {
	return harness.Until(ctx, operatePatience, func(ctx context.Context) error { return w.command(ctx, args...) })
}

// command runs an operator's command once.
func (w *world) command(ctx context.Context, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, commandPatience)
	defer cancel()
	_, _, err := harness.Run(ctx, w.binary, append(args, "--redis", w.store.url)...)
	return err
}

const (
	commandPatience = 10 * time.Second
	// operatePatience is longer than Redis is ever away.
	operatePatience = 2 * time.Minute
)

// addToken makes a token for the tenant, and returns its ID, too.
func (w *world) addToken(ctx context.Context, flags ...string) (token, id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandPatience)
	defer cancel()
	// It says "token ID for tenant …", and the Redis library may say more.
	out, said, err := harness.Run(ctx, w.binary, append([]string{"token", "add", "--redis", w.store.url, "--tenant", history.Tenant}, flags...)...)
	if err != nil {
		return "", "", err
	}
	for line := range strings.Lines(said) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "token" {
			return strings.TrimSpace(out), fields[1], nil
		}
	}
	return "", "", fmt.Errorf("batchreset token add does not name the token's ID: %s", said)
}

// canRun reports whether the binary knows runs: an older one does not. If so, it makes a token for somebody who may
// approve them.
func (w *world) canRun(ctx context.Context) (able bool, approver string, err error) {
	if _, _, unknown := harness.Run(ctx, w.binary, "run", "--help"); unknown != nil {
		return false, "", ctx.Err()
	}
	approver, _, err = w.addToken(ctx, "--owner", "approver", "--scope", "read,approve")
	return true, approver, err
}

// canLook reports whether the binary's workers can look: an older one's cannot.
func (w *world) canLook(ctx context.Context) (bool, error) {
	help, _, err := harness.Run(ctx, w.binary, "worker", "--help")
	return strings.Contains(help, "--driver-look-url "), err
}

// liftLimits takes away what would refuse the load: the binary may have defaults.
func (w *world) liftLimits(ctx context.Context) error {
	help, _, err := harness.Run(ctx, w.binary, "tenant", "limit", "--help")
	if err != nil {
		return err
	}
	args := []string{"tenant", "limit", "--tenant", history.Tenant}
	for _, flag := range []string{"--requests-per-second", "--open-instances", "--instances-per-hour", "--backlog"} {
		if strings.Contains(help, flag+" ") {
			args = append(args, flag, "0")
		}
	}
	return w.operate(ctx, args...)
}
