package cph

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
)

// gate is the body of the request that resets a phone. net/http reads it when the connection is
// there, after dialing and handshakes, which can take long, and after the headers are sent. Only
// then, and only once, it asks for leave. A request whose body never comes resets nothing.
type gate struct {
	body    *bytes.Reader
	attempt context.Context // ends with the attempt
	maySend func() error
	phase   atomic.Int32
	refused error // once it is late
}

// The phases of a gate.
const (
	closed  int32 = iota // nobody has asked yet
	asking               // for leave
	late                 // leave was not given
	sent                 // the body may have left
	dropped              // nobody waits for an answer any more: nothing more leaves
)

var errDropped = errors.New("the request was given up")

func newGate(ctx context.Context, body []byte, maySend func() error) *gate {
	return &gate{body: bytes.NewReader(body), attempt: ctx, maySend: maySend}
}

func (g *gate) Read(p []byte) (int, error) {
	if g.phase.CompareAndSwap(closed, asking) {
		if g.refused = g.ask(); g.refused != nil {
			g.phase.CompareAndSwap(asking, late)
			return 0, g.refused
		}
		g.phase.CompareAndSwap(asking, sent)
	}
	if g.phase.Load() != sent {
		return 0, errDropped
	}
	return g.body.Read(p)
}

// ask asks for leave, which takes a round trip to Redis, for as long as the attempt lasts:
// net/http does not return before Read does.
func (g *gate) ask() error {
	answer := make(chan error, 1)
	go func() { answer <- g.maySend() }()
	select {
	case <-g.attempt.Done():
	case err := <-answer:
		if err != nil {
			return err
		}
	}
	return g.attempt.Err()
}

// Close is for net/http, which closes what it sends.
func (g *gate) Close() error { return nil }

// drop ends the sending and returns how far it came.
func (g *gate) drop() (phase int32) { return g.phase.Swap(dropped) }
