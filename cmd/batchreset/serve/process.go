package serve

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
)

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
