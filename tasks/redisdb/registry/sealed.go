package registry

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"batchreset/tasks/redisdb/wire"
	"batchreset/tasks/seal"
)

// Secrets are all that Redis keeps: of access keys, of webhook endpoints, of operators' second factors.
type Secrets struct {
	tokens    *Tokens
	endpoints *Endpoints
	operators *Operators
	last      atomic.Pointer[Opening]
}

// NewSecrets makes Secrets.
func NewSecrets(t *Tokens, e *Endpoints, o *Operators) *Secrets {
	return &Secrets{tokens: t, endpoints: e, operators: o}
}

// kept is a secret as Redis has it.
type kept struct {
	kind, id   string // such as "access key"
	key, field string // where it is
	place      string // what it is sealed for
	text       string
	ended      bool // nobody will ask for it again
}

// Unopened is a secret that cannot be opened.
type Unopened struct {
	Kind, ID string // such as "access key" and the access key
	Err      error
}

// Sealing is what SealAll has done.
type Sealing struct {
	All, Sealed int // secrets there are, and those that were sealed just now
	// NotSealed are left as they are. Those of what has ended are not among them: nobody will ask for them.
	NotSealed []Unopened
}

func (s *Sealing) add(other Sealing) {
	s.All, s.Sealed, s.NotSealed = s.All+other.All, s.Sealed+other.Sealed, append(s.NotSealed, other.NotSealed...)
}

// SealAll seals every secret that is not sealed with the newest key yet. One that cannot be opened does not keep the
// others from being sealed. After an error the rest is as it was.
func (s *Secrets) SealAll(ctx context.Context) (done Sealing, err error) {
	for _, all := range []func(context.Context) (Sealing, error){s.tokens.SealAll, s.endpoints.SealAll, s.operators.SealAll} {
		part, err := all(ctx)
		done.add(part)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// Opening is what Look has seen.
type Opening struct {
	Looked, Sealed int // secrets of what has not ended, and those of them that are sealed
	Unopened       []Unopened
}

// lookedAt is how many secrets of each kind Look opens at most, the newest ones.
const lookedAt = 100

// Look tries to open secrets with the keys of this process, the newest 100 of each kind. It changes nothing.
func (s *Secrets) Look(ctx context.Context) (seen Opening, err error) {
	for _, read := range []func(context.Context, int) ([]kept, error){s.tokens.kept, s.endpoints.kept, s.operators.kept} {
		all, err := read(ctx, lookedAt)
		if err != nil {
			return seen, err
		}
		for _, k := range all {
			if k.ended {
				continue
			}
			seen.Looked++
			if seal.Sealed(k.text) {
				seen.Sealed++
			}
			if _, _, err := s.tokens.seals.Open(k.text, k.place); err != nil {
				seen.Unopened = append(seen.Unopened, Unopened{k.kind, k.id, err})
			}
		}
	}
	s.last.Store(&seen)
	return seen, nil
}

// lookEvery is how often Watch looks.
const lookEvery = time.Minute

// Watch looks now and then, until ctx ends. changed is told when there are secrets that cannot be opened and there
// were none before, or the other way round.
func (s *Secrets) Watch(ctx context.Context, changed func(Opening)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			before, _ := s.Last()
			if seen, err := s.Look(ctx); err == nil && (len(seen.Unopened) > 0) != (len(before.Unopened) > 0) {
				changed(seen)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Last is what was seen last; looked is false if nobody has looked.
func (s *Secrets) Last() (seen Opening, looked bool) {
	if last := s.last.Load(); last != nil {
		return *last, true
	}
	return Opening{}, false
}

// reseal puts a secret, sealed anew, in place of what was read, unless somebody has changed it since.
func reseal(ctx context.Context, client *wire.Client, key, field, was, now string) (done bool, err error) {
	n, err := resealScript.Run(ctx, client, []string{key}, field, was, now).Int()
	if err != nil {
		return false, fmt.Errorf("seal a secret: %w", err)
	}
	return n == 1, nil
}

// sealAll seals those secrets that are not sealed with the newest key yet, each with put.
func sealAll(all []kept, seals *seal.Keys, put func(k kept, sealed string) (bool, error)) (done Sealing, err error) {
	done.All = len(all)
	for _, k := range all {
		secret, stale, err := seals.Open(k.text, k.place)
		if err == nil && stale {
			var sealed bool
			if sealed, err = put(k, seals.Seal(secret, k.place)); sealed {
				done.Sealed++
			}
		}
		switch {
		case errors.Is(err, seal.ErrNotOpened) && k.ended:
		case errors.Is(err, seal.ErrNotOpened), errors.Is(err, errChanged):
			done.NotSealed = append(done.NotSealed, Unopened{k.kind, k.id, err})
		case err != nil:
			return done, fmt.Errorf("%s %s: %w", k.kind, k.id, err)
		}
	}
	return done, nil
}

// errChanged is for a secret that somebody has changed while it was sealed.
var errChanged = errors.New("it was changed meanwhile: run the command again")
