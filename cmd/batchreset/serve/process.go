package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"batchreset/api/tlsfiles"
	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/wire"
)

// process is a running api, worker or dev. Steps build it in order: each opens what it needs and
// adds the parts that run. Then all parts run side by side until the process is told to stop,
// and what the steps have opened is closed in reverse.
type process struct {
	name string // of the command
	std  *terminal.Streams
	log  *slog.Logger
	ops  opsFlags

	db           *redisdb.DB
	certificates *tlsfiles.Certificates // nil: the listeners speak http

	tracer  trace.Tracer // nil: nobody wants traces
	metrics []prometheus.Collector
	stop    context.CancelFunc // ends the process as SIGTERM does; set by run
	quiet   func() bool        // whether its worker takes nothing new; nil: it has none
	api     string             // URL of the public listener
	site    string             // URL of the operators' listener

	work       []part        // what the process is there for; it ends when the process is told to stop
	companions []part        // run until all work has ended: a process that drains can still be looked at
	checks     []check       // ask work and listeners whether they do what they are there for
	drain      time.Duration // how long work goes on after the process was told to stop
	closers    []closer
}

// step is a part of the start of a process. Its errors name the flag that is to blame.
type step func(ctx context.Context) error

// part is something that a process does until ctx ends.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// closer closes what a step has opened.
type closer struct {
	name  string
	close func() error
}

func newProcess(name string, std *terminal.Streams, ops opsFlags) *process {
	p := &process{name: name, std: std, log: newLogger(std.Err), ops: ops}
	wire.LogTo(p.log)
	return p
}

// run does the steps, runs the parts, and closes everything again, whatever went wrong.
func (p *process) run(ctx context.Context, steps ...step) (err error) {
	defer func() { err = errors.Join(err, p.close()) }()
	ctx, p.stop = context.WithCancel(ctx)
	defer p.stop()
	for _, start := range steps {
		if err := start(ctx); errors.Is(err, redisflags.ErrStopped) {
			return nil
		} else if err != nil {
			return err
		}
	}
	p.addManager(ctx)
	return p.runParts(ctx)
}

// onClose has something closed when the process ends, before all that was named earlier.
func (p *process) onClose(name string, do func() error) {
	p.closers = append(p.closers, closer{name, do})
}

func (p *process) close() (err error) {
	for _, c := range slices.Backward(p.closers) {
		if failed := c.close(); failed != nil {
			err = errors.Join(err, fmt.Errorf("close %s: %w", c.name, failed))
		}
	}
	return err
}

// runParts runs work until ctx has ended, drain is over, and all of work has come to its end.
// Companions run for all that time. If one part fails all end.
func (p *process) runParts(ctx context.Context) error {
	accompanied, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	if p.drain > 0 {
		later, cancel := after(ctx, p.drain)
		defer cancel()
		ctx = later
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer end()
		working, ctx := errgroup.WithContext(ctx)
		for _, w := range p.work {
			working.Go(func() error { return named(w.name, w.run(ctx)) })
		}
		return working.Wait()
	})
	for _, c := range p.companions {
		g.Go(func() error { return named(c.name, c.run(accompanied)) })
	}
	return g.Wait()
}

// named has an error begin with the name of the part that it is from.
func named(part string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", part, err)
}

// after returns a context that ends d after ctx.
func after(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return later, cancel
}

// awaitRedis is openRedis for a process that may be started before its Redis.
func (p *process) awaitRedis(flags redisflags.Flags, opts redisdb.Options) step {
	return func(ctx context.Context) error {
		db, err := flags.Await(ctx, logging(opts, p.log), p.log)
		return p.use(db, err)
	}
}

func (p *process) openRedis(flags *redisflags.Flags, opts redisdb.Options) step {
	return func(ctx context.Context) error {
		db, err := flags.Open(ctx, logging(opts, p.log))
		return p.use(db, err)
	}
}

// use adds what every process does beside its work for as long as it has a Redis.
func (p *process) use(db *redisdb.DB, err error) error {
	if err != nil {
		return err
	}
	p.db, p.metrics = db, append(p.metrics, db)
	p.onClose("Redis", db.Close)
	p.companions = append(p.companions,
		part{"activity", db.Activity.WriteActivity},
		part{"calls of drivers", db.Calls.WriteCalls},
		part{"audit trail", db.Audit.WriteTrail},
		part{"clock", func(ctx context.Context) error { return db.Redis.WatchClock(ctx, p.log) }},
	)
	return nil
}

// startTracing makes the tracer. about is said of the process with each span.
func (p *process) startTracing(about ...attribute.KeyValue) step {
	return func(ctx context.Context) error {
		tracer, flush, err := startTracing(ctx, p.name, p.ops.otlp, p.log, about...)
		if err != nil {
			return err
		}
		p.tracer = tracer
		p.onClose("traces", func() error { flush(); return nil })
		return nil
	}
}

// listen opens the listener of a flag.
func (p *process) listen(ctx context.Context, flag, address string) (net.Listener, error) {
	l, err := bind(ctx, flag, address)
	if err != nil {
		return nil, err
	}
	p.onClose("listener", func() error {
		if err := l.Close(); !errors.Is(err, net.ErrClosed) { // as it is after it has served
			return err
		}
		return nil
	})
	return l, nil
}

// addSite adds what tells operators, and the operators' listener, with the metrics of all that was added before.
func (p *process) addSite(ctx context.Context) error {
	private, err := p.listen(ctx, "ops-listen", p.ops.listen)
	if err != nil {
		return err
	}
	p.site = p.urlOf(private)
	p.addNotifier()
	handler := p.ops.handler(ctx.Done(), p.quiet, p.db, p.log, append(p.metrics, buildInfo())...)
	p.checks = append(p.checks, healthOf("operators' listener", handler))
	p.companions = append(p.companions, part{"operators' listener", func(ctx context.Context) error {
		return serve(ctx, private, p.tlsConfig(false), handler, p.log)
	}})
	return nil
}
