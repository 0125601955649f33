//go:build engine

package docker

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	"batchreset/worker"
	"batchreset/worker/drivertest"
)

// line is the way to an engine, which misbehaves. The engine itself is a real one.
type line struct {
	drivertest.Line

	phone *phone
	does  drivertest.Behaviour

	mu      sync.Mutex
	started map[string]bool // fresh containers of the phone
	dead    bool
}

func (l *line) Behave(b drivertest.Behaviour) { l.does = b }

func (l *line) Attempt() worker.Attempt { return worker.Attempt{InstanceID: l.phone.instance} }

func (l *line) Resets() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.started)
}

// CutAt brings the next worker, or says when this one dies.
func (l *line) CutAt(step int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dead = false
	l.Line.CutAt(step)
}

func (l *line) Driver(t *testing.T) worker.Driver {
	t.Helper()
	d := l.phone.e.driver(t, func(c *Config) {
		switch l.does {
		case drivertest.Refuses:
			c.Image = "phone:9"
		case drivertest.Slow:
			c.Properties = map[string]string{"phone.boot": "500ms"}
		case drivertest.Lies:
			c.WipeCommand = []string{"/system/bin/find", "/data", "-lie"}
		}
	})
	way := &way{line: l, does: l.does, next: d.client.Transport}
	d.client.Transport = way
	return d
}

// way is the one of one driver.
type way struct {
	*line

	does drivertest.Behaviour
	next http.RoundTripper
}

func (w *way) RoundTrip(r *http.Request) (*http.Response, error) {
	if w.isDead() {
		return nil, errDead
	}
	response, err := w.misbehave(r)
	if changes(r) && !w.Step() {
		w.mu.Lock()
		w.dead = true
		w.mu.Unlock()
	}
	if w.isDead() {
		if err == nil {
			_ = response.Body.Close()
		}
		return nil, errDead
	}
	return response, err
}

func (l *line) isDead() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

func (w *way) misbehave(r *http.Request) (*http.Response, error) {
	create, stop := strings.HasSuffix(r.URL.Path, "/containers/create"), strings.HasSuffix(r.URL.Path, "/stop")
	switch {
	case w.does == drivertest.Away:
		return nil, errors.New("connection refused")
	case w.does == drivertest.Busy && create:
		return says(http.StatusConflict, `{"message":"the name is in use"}`)(r)
	case w.does == drivertest.Fails && create:
		return says(http.StatusInternalServerError, `{"message":"no space left"}`)(r)
	case w.does == drivertest.Dropped && stop:
		return nil, errors.New("unexpected EOF")
	case w.does == drivertest.Nonsense && stop:
		return says(http.StatusBadGateway, drivertest.Noise)(r)
	}
	response, err := w.next.RoundTrip(r)
	if err != nil || response.StatusCode >= http.StatusBadRequest {
		return response, err
	}
	parts := strings.Split(r.URL.Path, "/") // of /v1.41/containers/ID/start
	if len(parts) != 5 || parts[2] != "containers" || parts[4] != "start" {
		return response, nil
	}
	if c, err := w.phone.e.engine.inspect(r.Context(), parts[3]); err != nil || c.label(labelReset) == "" {
		return response, err // of a helper
	}
	return w.starts(r, response)
}

// starts is the start of a fresh phone.
func (w *way) starts(r *http.Request, response *http.Response) (*http.Response, error) {
	w.mu.Lock()
	w.started[r.URL.Path] = true
	w.mu.Unlock()
	switch w.does {
	case drivertest.Lost, drivertest.Hangs, drivertest.Garbage:
		_ = response.Body.Close()
	default:
		return response, nil
	}
	switch w.does {
	case drivertest.Garbage:
		return says(http.StatusBadGateway, drivertest.Noise)(r)
	case drivertest.Hangs:
		<-r.Context().Done()
	}
	return nil, errors.New("unexpected EOF")
}

func TestContract(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, drivertest.Subject{New: func(t *testing.T) drivertest.Upstream {
		return &line{phone: newPhone(t, nil), does: drivertest.Works, started: map[string]bool{}}
	}})
}
