package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"batchreset/api"
)

// bind opens a listener; errors name the flag.
func bind(ctx context.Context, flag, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, addressFailed(fmt.Errorf("--%s: %w", flag, err))
	}
	return l, nil
}

// drainTimeout is how long requests may take to end when the process stops.
const drainTimeout = 10 * time.Second

// serve answers requests until ctx ends, then lets those under way end.
func serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	server := api.NewHTTPServer(h, log.With("listener", l.Addr().String()))
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := server.Shutdown(drain)
	if err != nil {
		err = errors.Join(fmt.Errorf("stop %s: %w", l.Addr(), err), server.Close())
	}
	if ended := <-failed; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// sendOff has callers open their next connection, once stopping is closed: it will lead to
// a process that goes on.
func sendOff(stopping <-chan struct{}, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-stopping:
			w.Header().Set("Connection", "close")
		default:
		}
		next.ServeHTTP(w, r)
	})
}

// after returns a context that ends d after ctx.
func after(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() { time.AfterFunc(d, cancel) })
	return later, cancel
}

// part is something that a process does until ctx ends.
type part func(ctx context.Context) error

// runParts runs work until ctx ends and all of work has come to its end, and companions for
// all that time: a process that drains can still be looked at, and still looks at the clock.
// If one fails all end.
func runParts(ctx context.Context, work, companions []part) error {
	accompanied, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer end()
		working, ctx := errgroup.WithContext(ctx)
		for _, p := range work {
			working.Go(func() error { return p(ctx) })
		}
		return working.Wait()
	})
	for _, p := range companions {
		g.Go(func() error { return p(accompanied) })
	}
	return g.Wait()
}

// urlOf is the address of a listener as a URL that works on this machine.
func urlOf(l net.Listener) string {
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return l.Addr().String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return "http://" + net.JoinHostPort(host, port)
}
