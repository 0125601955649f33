// Package redisflags has the flags that serve and operate share: where Redis is, and what all processes
// and commands on one Redis must agree on. It is apart from package terminal, because that
// knows nothing of Redis and is all that a caller's command needs.
package redisflags

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/wire"
)

// Failed gives an error of Redis its exit code. A URL that is none is the command
// line's fault.
func Failed(err error) error {
	if errors.Is(err, wire.ErrURL) {
		return terminal.WithCode(terminal.ExitUsage, err)
	}
	return terminal.WithCode(terminal.ExitAway, err)
}

// Flags say where Redis is.
type Flags struct {
	URL      string
	File     string
	patience time.Duration
}

// Define defines --redis, with a value to begin with, and --redis-file.
func (f *Flags) Define(flags *pflag.FlagSet, value string) {
	flags.StringVar(&f.URL, "redis", value, "`URL` of Redis: redis://, redis-sentinel://host:26379?master=NAME or redis-cluster://, with TLS rediss…; a password in it shows in the list of processes (ps), so give it with --redis-file")
	flags.StringVar(&f.File, "redis-file", "", "read the URL of Redis from this `file`: the way to give one with a password")
	terminal.Alternatives(flags, "redis", "redis-file")
	terminal.Settings(flags, "redis", "redis-file")
}

// DefinePatience is for api and worker, which are started together with Redis.
func (f *Flags) DefinePatience(flags *pflag.FlagSet) {
	flags.DurationVar(&f.patience, "redis-patience", 30*time.Second, "how long to wait at the start for a Redis that cannot be reached yet, or loads its data; 0 = not at all")
}

// Given reports whether there is a Redis at all.
func (f *Flags) Given() bool { return f.URL != "" || f.File != "" }

// Check reads the file, and refuses a URL that cannot be used. Nothing is connected to.
func (f *Flags) Check() error {
	if !f.Given() {
		return nil
	}
	opts, err := f.locate(redisdb.Options{})
	if err != nil {
		return err
	}
	return f.named(redisdb.CheckURL(opts.URL))
}

// Open connects to the Redis of the flags.
func (f *Flags) Open(ctx context.Context, opts redisdb.Options) (*redisdb.DB, error) {
	opts, err := f.locate(opts)
	if err != nil {
		return nil, err
	}
	db, err := openWithin(ctx, opts)
	return db, f.named(err)
}

const stopped = "stopped before Redis was there"

// ErrStopped says that a process was told to stop while it waited for its Redis.
var ErrStopped = errors.New(stopped)

// Await is Open for a process that may have been started before its Redis. It returns
// ErrStopped if ctx ends while it waits.
func (f *Flags) Await(ctx context.Context, opts redisdb.Options, log *slog.Logger) (*redisdb.DB, error) {
	if f.patience < 0 {
		return nil, terminal.WithCode(terminal.ExitUsage, errors.New("--redis-patience must not be negative"))
	}
	opts, err := f.locate(opts)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	db, err := openWithin(ctx, opts)
	if redisdb.Passing(err) && f.patience > 0 {
		log.Warn("waiting for Redis", "at_most", f.patience, "error", err)
		for redisdb.Passing(err) && time.Since(began) < f.patience && rest(ctx, lookAgain) {
			db, err = openWithin(ctx, opts)
		}
		if err == nil {
			log.Info("Redis is there, going on", "waited", time.Since(began))
		}
	}
	if err != nil && ctx.Err() != nil {
		log.Info(stopped)
		return nil, ErrStopped
	}
	return db, f.named(err)
}

const (
	// openTimeout bounds one try to connect to Redis, lookAgain is when the next one follows.
	openTimeout = 5 * time.Second
	lookAgain   = 500 * time.Millisecond
)

func openWithin(ctx context.Context, opts redisdb.Options) (*redisdb.DB, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return redisdb.Open(ctx, opts)
}

// rest waits, and reports whether ctx lasted as long.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// locate completes the options with the URL of the flags.
func (f *Flags) locate(opts redisdb.Options) (redisdb.Options, error) {
	opts.URL = f.URL
	if f.File == "" {
		return opts, nil
	}
	text, err := terminal.ReadSecret(f.File)
	if err != nil {
		return opts, terminal.WithCode(terminal.ExitUsage, fmt.Errorf("--redis-file: %w", err))
	}
	opts.URL = text
	return opts, nil
}

// named has an error about the URL begin with the flag that it came from.
func (f *Flags) named(err error) error {
	switch {
	case err == nil:
		return nil
	case f.File != "":
		return Failed(fmt.Errorf("--redis-file: %w", terminal.WithoutCode(err)))
	}
	return Failed(fmt.Errorf("--redis: %w", terminal.WithoutCode(err)))
}
