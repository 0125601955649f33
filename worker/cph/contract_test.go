package cph

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"batchreset/cmd/harness"
	"batchreset/worker"
	"batchreset/worker/cph/cphtest"
	"batchreset/worker/drivertest"
)

// host is a CPH that misbehaves.
type host struct {
	drivertest.Line

	fake *cphtest.Server
	url  string

	mu     sync.Mutex
	does   drivertest.Behaviour
	failed int // resets that have begun and failed
}

func (h *host) Behave(b drivertest.Behaviour) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.does == drivertest.Fails {
		h.failed = h.fake.Phone(phoneA).Begun
	}
	h.does = b
	// What is changed looks as if it had been reset, to who cannot know better.
	set := func(status int, fails string) {
		h.fake.Change(phoneA, func(p *cphtest.Phone) { p.Status, p.Fails = status, fails })
	}
	switch p := h.fake.Phone(phoneA); {
	case b == drivertest.Busy:
		set(resetting, "")
	case b == drivertest.Refuses:
		set(6, "") // frozen
	case b == drivertest.Fails:
		set(running, "CPS0003")
	case p.Status == 6, p.Status == resetting && p.Begun == 0, p.Fails != "":
		set(running, "")
	}
}

func (h *host) Attempt() worker.Attempt {
	return worker.Attempt{InstanceID: "instance-1", Address: phoneA}
}

func (h *host) Resets() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.does == drivertest.Fails {
		return 0
	}
	return h.fake.Phone(phoneA).Begun - h.failed
}

func (h *host) Driver(t *testing.T) worker.Driver {
	t.Helper()
	cfg := settings(t, h.url)
	if h.does == drivertest.Away {
		cfg.Endpoint = "http://127.0.0.1:1"
	}
	return newDriver(t, cfg)
}

func (h *host) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	does := h.does
	h.mu.Unlock()
	if r.Method != http.MethodPost {
		h.fake.ServeHTTP(w, r)
		return
	}
	switch does {
	case drivertest.Dropped:
		panic(http.ErrAbortHandler)
	case drivertest.Nonsense:
		_, _ = io.WriteString(w, drivertest.Noise)
	case drivertest.Lost:
		h.fake.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case drivertest.Garbage:
		h.fake.ServeHTTP(httptest.NewRecorder(), r)
		_, _ = io.WriteString(w, drivertest.Noise)
	case drivertest.Hangs:
		h.fake.ServeHTTP(httptest.NewRecorder(), r)
		<-r.Context().Done()
	case drivertest.Slow:
		h.fake.ServeHTTP(w, r)
		harness.Pause(r.Context(), 200*time.Millisecond) // unless the driver hangs up
	default:
		h.fake.ServeHTTP(w, r)
	}
}

func TestContract(t *testing.T) {
	drivertest.Run(t, drivertest.Subject{
		New: func(t *testing.T) drivertest.Upstream {
			h := &host{fake: newFake(), does: drivertest.Works}
			h.url = serve(t, h.Handler(h))
			return h
		},
		Never: map[drivertest.Behaviour]string{drivertest.Lies: "CPH is asked itself, and nobody else knows better"},
	})
}
