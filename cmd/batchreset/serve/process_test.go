package serve

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
)

// diary notes what happens, in order.
type diary struct {
	mu   sync.Mutex
	said []string
}

func (d *diary) note(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.said = append(d.said, what)
}

func (d *diary) wants(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(d.said, want) {
		t.Errorf("happened: %s\nwant:     %s", strings.Join(d.said, ", "), strings.Join(want, ", "))
	}
}

func TestAProcess(t *testing.T) {
	newTestProcess := func() (*process, *diary, func(name string) step) {
		p := newProcess("test", &terminal.Streams{Err: io.Discard}, opsFlags{})
		d := &diary{}
		return p, d, func(name string) step {
			return func(context.Context) error {
				d.note("open " + name)
				p.onClose(name, func() error { d.note("close " + name); return nil })
				return nil
			}
		}
	}

	t.Run("starts in order, and stops in reverse", func(t *testing.T) {
		p, d, open := newTestProcess()
		ctx, stop := context.WithCancel(t.Context())
		working := make(chan struct{})
		err := p.run(ctx, open("Redis"), open("listener"), func(context.Context) error {
			p.work = append(p.work, part{"work", func(ctx context.Context) error {
				close(working)
				<-ctx.Done()
				d.note("work ends")
				return nil
			}})
			p.companions = append(p.companions, part{"companion", func(ctx context.Context) error {
				<-working
				stop()
				<-ctx.Done()
				d.note("companion ends")
				return nil
			}})
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		d.wants(t, "open Redis", "open listener", "work ends", "companion ends", "close listener", "close Redis")
	})
	t.Run("closes what was opened when a step fails", func(t *testing.T) {
		p, d, open := newTestProcess()
		failed := errors.New("--listen: in use")
		if err := p.run(t.Context(), open("Redis"), func(context.Context) error { return failed }, open("site")); !errors.Is(err, failed) {
			t.Errorf("error %v", err)
		}
		d.wants(t, "open Redis", "close Redis")
	})
	t.Run("ends well when it is stopped before its Redis is there", func(t *testing.T) {
		p, d, open := newTestProcess()
		if err := p.run(t.Context(), func(context.Context) error { return redisflags.ErrStopped }, open("site")); err != nil {
			t.Errorf("error %v", err)
		}
		d.wants(t)
	})
	t.Run("ends when a part fails, and names it", func(t *testing.T) {
		p, d, open := newTestProcess()
		lost := errors.New("connection lost")
		until := func(ctx context.Context) error { <-ctx.Done(); return nil }
		p.work = []part{{"API", until}, {"worker", func(context.Context) error { return lost }}}
		p.companions = []part{{"clock", until}}
		err := p.run(t.Context(), open("Redis"))
		if !errors.Is(err, lost) || !strings.HasPrefix(err.Error(), "worker: connection lost") {
			t.Errorf("error %v", err)
		}
		d.wants(t, "open Redis", "close Redis")
	})
	t.Run("names what could not be closed", func(t *testing.T) {
		p, _, _ := newTestProcess()
		p.onClose("Redis", func() error { return io.ErrClosedPipe })
		if err := p.run(t.Context()); err == nil || err.Error() != "close Redis: "+io.ErrClosedPipe.Error() {
			t.Errorf("error %v", err)
		}
	})
}
