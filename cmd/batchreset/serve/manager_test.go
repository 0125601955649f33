package serve

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"batchreset/cmd/batchreset/terminal"
)

// managerOf listens as a service manager does, and has this process know it. The watchdog is off unless within is given.
func managerOf(t *testing.T, within string) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") //nolint:usetesting // a directory of the test has a long name, and the path of a socket at most 104 bytes
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = l.Close()
		_ = os.RemoveAll(dir)
	})
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", within)
	t.Setenv("WATCHDOG_PID", "")
	return l
}

// heard is the next thing that the service manager is told, or nothing if that does not come within d.
func heard(t *testing.T, l *net.UnixConn, d time.Duration) string {
	t.Helper()
	if err := l.SetReadDeadline(time.Now().Add(d)); err != nil {
		t.Fatal(err)
	}
	message := make([]byte, 1000)
	n, err := l.Read(message)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return string(message[:n])
}

// managed runs a process with one part, which check asks for, until stop is called.
func managed(t *testing.T, c check) (stop, end func()) {
	t.Helper()
	p := newProcess("test", &terminal.Streams{Err: io.Discard}, opsFlags{})
	p.api, p.site = "http://localhost:8080", "http://localhost:9090"
	ctx, stop := context.WithCancel(t.Context())
	drained, end := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- p.run(ctx, func(context.Context) error {
			p.checks = append(p.checks, c)
			p.work = append(p.work, part{"work", func(ctx context.Context) error {
				<-ctx.Done()
				<-drained.Done() // as what is under way ends
				return nil
			}})
			return nil
		})
	}()
	t.Cleanup(func() {
		stop()
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return stop, end
}

func TestTheServiceManagerIsTold(t *testing.T) {
	const long, short = 20 * time.Second, 300 * time.Millisecond
	works := func(context.Context) error { return nil }

	t.Run("that a process is ready once its parts have answered, and that it stops", func(t *testing.T) {
		manager := managerOf(t, "")
		answer := make(chan struct{})
		stop, _ := managed(t, check{"work", func(ctx context.Context) error {
			select {
			case <-answer:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		if said := heard(t, manager, short); said != "" {
			t.Fatalf("before its part answers it says %q", said)
		}
		close(answer)
		const want = "READY=1\nSTATUS=test works, API at http://localhost:8080, operators' site at http://localhost:9090"
		if said := heard(t, manager, long); said != want {
			t.Errorf("it says %q, want %q", said, want)
		}
		if said := heard(t, manager, short); said != "" {
			t.Errorf("without a watchdog it says %q", said)
		}
		stop()
		if said := heard(t, manager, long); !strings.HasPrefix(said, "STOPPING=1\n") {
			t.Errorf("when it stops it says %q", said)
		}
	})
	t.Run("that it works while it does, also while it stops", func(t *testing.T) {
		manager := managerOf(t, "400000")
		var hangs atomic.Bool
		stop, end := managed(t, check{"work", func(ctx context.Context) error {
			if !hangs.Load() {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}})
		wants := func(want string) {
			t.Helper()
			if said := heard(t, manager, long); !strings.HasPrefix(said, want) {
				t.Fatalf("it says %q, want %q", said, want)
			}
		}
		wants("READY=1")
		wants("WATCHDOG=1")
		wants("WATCHDOG=1")
		hangs.Store(true)
		for said := "WATCHDOG=1"; said != ""; said = heard(t, manager, 2*time.Second) { // the last one may be under way
			if said != "WATCHDOG=1" {
				t.Fatalf("a process that hangs says %q", said)
			}
		}
		hangs.Store(false)
		wants("WATCHDOG=1")
		stop()
		said := heard(t, manager, long)
		for said == "WATCHDOG=1" {
			said = heard(t, manager, long)
		}
		if !strings.HasPrefix(said, "STOPPING=1") {
			t.Fatalf("when it stops it says %q", said)
		}
		wants("WATCHDOG=1")
		end()
	})
	t.Run("nothing of being ready by a process that is stopped before", func(t *testing.T) {
		manager := managerOf(t, "")
		stop, _ := managed(t, check{"work", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		stop()
		if said := heard(t, manager, long); !strings.HasPrefix(said, "STOPPING=1") {
			t.Errorf("it says %q", said)
		}
	})
	t.Run("nothing where there is none", func(t *testing.T) {
		managerOf(t, "")
		t.Setenv("NOTIFY_SOCKET", "")
		p := newProcess("test", &terminal.Streams{Err: io.Discard}, opsFlags{})
		if p.addManager(t.Context()); len(p.companions) > 0 {
			t.Error("there is a part that tells")
		}
	})
	t.Run("once it can be, if it could not be at first", func(t *testing.T) {
		manager := managerOf(t, "")
		path := os.Getenv("NOTIFY_SOCKET")
		if err := os.Rename(path, path+"2"); err != nil {
			t.Fatal(err)
		}
		asked := make(chan struct{}, 1000)
		managed(t, check{"work", func(ctx context.Context) error { asked <- struct{}{}; return works(ctx) }})
		<-asked
		<-asked // so it was not told the first time
		if err := os.Rename(path+"2", path); err != nil {
			t.Fatal(err)
		}
		if said := heard(t, manager, long); !strings.HasPrefix(said, "READY=1") {
			t.Errorf("it says %q", said)
		}
	})
}

func TestTheHealthOfAHandler(t *testing.T) {
	ask := func(ctx context.Context, h http.HandlerFunc) error { return healthOf("API", h).ask(ctx) }
	if err := ask(t.Context(), func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" {
			_, _ = io.WriteString(w, "well")
		}
	}); err != nil {
		t.Errorf("a handler that answers: %v", err)
	}
	if err := ask(t.Context(), func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }); err == nil || err.Error() != "it answers 418" {
		t.Errorf("a handler that answers something else: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := ask(ctx, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a handler that hangs: %v", err)
	}
}
