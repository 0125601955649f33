//go:build engine

package docker

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"batchreset/cmd/harness"
)

// changes says whether a call changes something. The calls of programs in the phone only look.
func changes(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead && !strings.Contains(r.URL.Path, "/exec")
}

// fault does something at the nth call of a driver that changes something. A call that is repeated,
// as long as the engine is still busy with it, counts once.
type fault struct {
	n  int
	do func(r *http.Request, next http.RoundTripper) (*http.Response, error)

	mu   sync.Mutex
	seen map[string]bool
}

// into puts the fault between a driver and its engine.
func (f *fault) into(d *Driver) {
	next := d.client.Transport
	d.client.Transport = trip(func(r *http.Request) (*http.Response, error) {
		if changes(r) && f.hit(r) {
			return f.do(r, next)
		}
		return next.RoundTrip(r)
	})
}

func (f *fault) hit(r *http.Request) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := r.Method + " " + r.URL.String()
	if f.seen[c] {
		return false
	}
	if f.seen == nil {
		f.seen = map[string]bool{}
	}
	f.seen[c] = true
	return len(f.seen) == f.n
}

func (f *fault) calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.seen)
}

var errDead = errors.New("the worker is dead")

// dies has a driver die at the nth call that changes something: the engine does it, and nobody
// hears its answer. It says whether it has come to that.
func dies(d *Driver, n int) (died func() bool) {
	var dead bool
	var mu sync.Mutex
	f := &fault{n: n, do: func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		response, err := next.RoundTrip(r)
		if err == nil {
			_ = response.Body.Close()
		}
		mu.Lock()
		defer mu.Unlock()
		dead = true
		return nil, errDead
	}}
	died = func() bool {
		mu.Lock()
		defer mu.Unlock()
		return dead
	}
	f.into(d)
	inner := d.client.Transport
	d.client.Transport = trip(func(r *http.Request) (*http.Response, error) {
		if died() {
			return nil, errDead
		}
		return inner.RoundTrip(r)
	})
	return died
}

// freezes has a driver stand still before the nth call that changes something.
func freezes(d *Driver, n int) (frozen <-chan struct{}, thaw func()) {
	reached, on := make(chan struct{}), make(chan struct{})
	f := &fault{n: n, do: func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		close(reached)
		<-on
		return next.RoundTrip(r)
	}}
	f.into(d)
	return reached, sync.OnceFunc(func() { close(on) })
}

// ends cancels a context at the nth call that changes something, before it is sent.
func ends(d *Driver, n int, cancel context.CancelFunc) (after *fault) {
	after = &fault{n: -1}
	f := &fault{n: n, do: func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		cancel()
		<-r.Context().Done()
		return next.RoundTrip(r)
	}}
	real := d.client.Transport
	d.client.Transport = trip(func(r *http.Request) (*http.Response, error) {
		if r.Context().Err() != nil && changes(r) {
			after.hit(r)
		}
		return real.RoundTrip(r)
	})
	f.into(d)
	return after
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, what, f)
}
