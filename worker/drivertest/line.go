package drivertest

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
)

// Line counts the steps of an upstream, and is cut at one of them. It is two methods of an
// [Upstream], Steps and CutAt.
type Line struct {
	mu         sync.Mutex
	steps, cut int
}

// Steps counts the steps so far.
func (l *Line) Steps() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.steps
}

// CutAt cuts the line at a step, or mends it: 0.
func (l *Line) CutAt(step int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = step
}

// Step counts a step. It says whether the worker lives: else what it asks does not arrive, and
// what is answered does not reach it.
func (l *Line) Step() (alive bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.steps++
	return l.cut == 0 || l.steps < l.cut
}

// Handler has a server at the end of the line. Every request arrives as a whole, and none while
// the worker is dead.
func (l *Line) Handler(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || !l.Step() {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		said := httptest.NewRecorder()
		h.ServeHTTP(said, r)
		if !l.Step() {
			panic(http.ErrAbortHandler)
		}
		maps.Copy(w.Header(), said.Header())
		w.WriteHeader(said.Code)
		_, _ = w.Write(said.Body.Bytes())
	})
}

// Noise is an answer of nobody's protocol, with what must not reach a terminal.
const Noise = "<html>\x00\x1b[2J\xff Bad\r\n\tGateway\u202e"
