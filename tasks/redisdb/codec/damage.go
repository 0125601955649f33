package codec

import (
	"errors"
	"log/slog"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// Damage is the error of something stored that cannot be read. Asking again does not help.
type Damage struct{ Err error }

func (d *Damage) Error() string { return d.Err.Error() }

// Unwrap returns what is wrong.
func (d *Damage) Unwrap() error { return d.Err }

// broken reports whether an error is about what is stored. What Redis says of itself (it is
// loading, it has no primary) is not: it may be in the way of everything that is asked for,
// and a list would look like one with little in it.
func broken(err error) bool {
	if _, decoding := errors.AsType[*Damage](err); decoding {
		return true
	}
	said, answered := errors.AsType[interface {
		error
		RedisError() // of go-redis
	}](err)
	return answered && strings.Contains(said.Error(), "WRONGTYPE ") // by itself, or out of a script
}

const (
	// leftOutAgain is how long something that was left out is not logged again, and
	// leftOutMost of how many things that is known.
	leftOutAgain = 10 * time.Minute
	leftOutMost  = 1000
)

// LeftOut logs what lists leave out because it cannot be read.
type LeftOut struct {
	log    *slog.Logger
	logged *lru.Cache[string, time.Time] // expirable.LRU has a goroutine that nobody can end
}

// NewLeftOut makes a LeftOut.
func NewLeftOut(log *slog.Logger) *LeftOut {
	logged, err := lru.New[string, time.Time](leftOutMost)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &LeftOut{log: log, logged: logged}
}

// Note logs that a list is without something that cannot be read, and returns nil; or the
// error, if it is Redis that cannot be asked. The same thing is logged once in ten minutes.
func (l *LeftOut) Note(what string, err error) error {
	if !broken(err) {
		return err
	}
	if at, logged := l.logged.Get(what); !logged || time.Since(at) > leftOutAgain {
		l.logged.Add(what, time.Now())
		l.log.Error("left out of a list: it cannot be read", "what", what, "error", err)
	}
	return nil
}
