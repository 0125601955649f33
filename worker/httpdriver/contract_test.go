package httpdriver

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"batchreset/cmd/harness"
	"batchreset/worker"
	"batchreset/worker/drivertest"
)

// plane is a control plane with one phone.
type plane struct {
	drivertest.Line

	cfg     Config
	accepts bool // answers with 202 and is polled
	url     string

	mu     sync.Mutex
	does   drivertest.Behaviour
	done   map[string]bool // keys, if they are honoured
	wiped  int
	polled int
}

func newPlane(t *testing.T, cfg Config, accepts bool) *plane {
	t.Helper()
	p := &plane{cfg: cfg, accepts: accepts, does: drivertest.Works, done: map[string]bool{}}
	p.url = serve(t, p.Handler(p).ServeHTTP)
	return p
}

func (p *plane) Behave(b drivertest.Behaviour) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.does = b
}

func (p *plane) Attempt() worker.Attempt { return worker.Attempt{InstanceID: "phone-1"} }

func (p *plane) Resets() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wiped
}

func (p *plane) Driver(t *testing.T) worker.Driver {
	t.Helper()
	cfg := p.cfg
	cfg.URL = p.url + "/{instance_id}"
	if p.does == drivertest.Away {
		cfg.URL = "http://127.0.0.1:1/{instance_id}"
	}
	if cfg.LookURL != "" {
		cfg.LookURL = cfg.URL
	}
	if cfg.LookURL != "" {
		return Looking{newDriver(t, cfg)}
	}
	return newDriver(t, cfg)
}

func (p *plane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case r.Method == http.MethodPost:
		p.reset(w, r)
	case r.URL.Path == "/phone-1":
		_, _ = fmt.Fprintf(w, `{"initial":%t,"evidence":"wiped %d times"}`, p.wiped > 0, p.wiped)
	default:
		p.polled++
		_, _ = io.WriteString(w, map[bool]string{true: over, false: `{"status":"running"}`}[p.polled > 2])
	}
}

// reset answers an order. mu is held.
func (p *plane) reset(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("Idempotency-Key")
	switch p.does {
	case drivertest.Busy:
		w.WriteHeader(http.StatusConflict)
		return
	case drivertest.Refuses:
		w.WriteHeader(http.StatusNotFound)
		return
	case drivertest.Fails:
		_, _ = io.WriteString(w, `{"status":"failed"}`)
		return
	case drivertest.Dropped:
		panic(http.ErrAbortHandler)
	case drivertest.Nonsense:
		_, _ = io.WriteString(w, drivertest.Noise)
		return
	case drivertest.Lies:
		_, _ = io.WriteString(w, over)
		return
	}
	if !p.cfg.Idempotent || !p.done[key] {
		p.wiped++
		p.done[key] = true
	}
	switch p.does {
	case drivertest.Slow:
		p.mu.Unlock()
		harness.Pause(r.Context(), 200*time.Millisecond) // unless the driver hangs up
		p.mu.Lock()
	case drivertest.Hangs:
		p.mu.Unlock()
		<-r.Context().Done()
		p.mu.Lock()
	case drivertest.Lost:
		panic(http.ErrAbortHandler)
	case drivertest.Garbage:
		_, _ = io.WriteString(w, drivertest.Noise)
		return
	}
	if p.accepts {
		w.Header().Set("Location", "/operations/7")
		w.WriteHeader(http.StatusAccepted)
	}
}

func TestContract(t *testing.T) {
	for name, subject := range map[string]struct {
		cfg     Config
		accepts bool
	}{
		"a control plane that honours keys":                   {Config{Idempotent: true}, false},
		"one that does not, and can be looked at":             {Config{LookURL: "itself"}, false},
		"one that accepts":                                    {Config{}, true},
		"one that accepts, honours keys and can be looked at": {Config{Idempotent: true, LookURL: "itself"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drivertest.Run(t, drivertest.Subject{New: func(t *testing.T) drivertest.Upstream {
				return newPlane(t, subject.cfg, subject.accepts)
			}})
		})
	}
}
