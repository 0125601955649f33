package serve

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// check asks a part of this process whether it does its work. It returns nil as soon as the part has answered,
// and the error of ctx if it has not until that ends.
type check struct {
	name string
	ask  func(ctx context.Context) error
}

// manager tells the service manager that has started this process, as systemd does with Type=notify, that it is
// ready, that it goes on to work, and that it stops. It asks the parts of the process before it says that they work:
// a process that hangs says nothing, and is started anew. Redis is not asked: to start this process anew would not
// bring Redis back.
type manager struct {
	stopping context.Context // ends when the process is told to stop
	checks   []check
	status   string // for people
	log      *slog.Logger
}

const (
	// readyEvery is how often the parts are asked until all of them have answered once.
	readyEvery = 100 * time.Millisecond
	// readyPatience is how long they may take to answer, before they are asked again.
	readyPatience = 5 * time.Second
)

// addManager has the process tell the service manager, if one wants to be told.
func (p *process) addManager(stopping context.Context) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return
	}
	m := &manager{stopping: stopping, checks: p.checks, status: p.name + " works", log: p.log}
	if p.api != "" {
		m.status += ", API at " + p.api
	}
	if p.site != "" {
		m.status += ", operators' site at " + p.site
	}
	p.companions = append(p.companions, part{"service manager", m.run})
}

// run tells until ctx ends, which is when all work has ended: also of a process that stops the service manager
// wants to know that it does not hang.
func (m *manager) run(ctx context.Context) error {
	within, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("the service manager's watchdog gets no sign of life", "error", err)
	}
	var living sync.WaitGroup
	defer living.Wait()
	if m.becomeReady() && within > 0 {
		living.Go(func() { m.live(ctx, within) })
	}
	<-m.stopping.Done()
	m.tell(daemon.SdNotifyStopping + "\nSTATUS=stopping: what is under way comes to its end")
	<-ctx.Done()
	return nil
}

// becomeReady tells that the process is ready as soon as all parts have answered, and reports whether that was
// before it was told to stop.
func (m *manager) becomeReady() bool {
	for {
		if m.works(m.stopping, readyPatience) && m.tell(daemon.SdNotifyReady+"\nSTATUS="+m.status) {
			return true
		}
		select {
		case <-m.stopping.Done():
			return false
		case <-time.After(readyEvery):
		}
	}
}

// live gives signs of life, each well within the time after which the service manager takes the process for
// dead, until ctx ends.
func (m *manager) live(ctx context.Context, within time.Duration) {
	pause := within / 2
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = within / 2
		if !m.works(ctx, within/4) || !m.tell(daemon.SdNotifyWatchdog) {
			pause = within / 16
		}
	}
}

// works reports whether all parts have answered within d.
func (m *manager) works(ctx context.Context, d time.Duration) bool {
	asked, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for _, c := range m.checks {
		if err := c.ask(asked); err != nil {
			if ctx.Err() == nil {
				m.log.Warn("a part of this process does not answer; the service manager is not told that it works", "part", c.name, "within", d, "error", err)
			}
			return false
		}
	}
	return true
}

// tell reports whether the service manager could be told. Without a free file descriptor it cannot.
func (m *manager) tell(state string) bool {
	if _, err := daemon.SdNotify(false, state); err != nil {
		what, _, _ := strings.Cut(state, "\n")
		m.log.Warn("the service manager could not be told", "what", what, "error", err)
		return false
	}
	return true
}

// healthOf asks a handler of ours for /healthz, in this process: that needs no certificate, and no file.
func healthOf(name string, h http.Handler) check {
	return check{name, func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/healthz", nil)
		if err != nil {
			return err
		}
		r.RemoteAddr = "127.0.0.1:0"
		answered := make(chan int, 1)
		go func() {
			var w statusOf
			h.ServeHTTP(&w, r)
			answered <- w.status
		}()
		select {
		case status := <-answered:
			if status != http.StatusOK {
				return fmt.Errorf("it answers %d", status)
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
}

// statusOf keeps the status of an answer, and nothing else.
type statusOf struct {
	header http.Header
	status int
}

func (w *statusOf) Header() http.Header {
	if w.header == nil {
		w.header = http.Header{}
	}
	return w.header
}

func (w *statusOf) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *statusOf) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return len(b), nil
}
