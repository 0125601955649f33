package execdriver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"batchreset/worker"
)

// Config says which program resets instances, and what it can do.
type Config struct {
	// Command is the program and its arguments. The program is an absolute path, or a name that
	// is looked up on PATH once, by New.
	Command []string `yaml:"command"`
	// Env are the names of the variables that the program inherits from the worker, beside PATH.
	// There are no others.
	Env []string `yaml:"env"`
	// ExitStatus is for plain scripts: the exit status is the answer if there is no result, and
	// what else is on standard output is no answer.
	ExitStatus bool `yaml:"exit_status"`
	// Repeatable says that running the program again for a phone whose earlier run is in doubt,
	// and may still go on, is harmless.
	Repeatable bool `yaml:"repeatable"`
	// Look says that the program knows the mode "look", in which it changes nothing.
	Look bool `yaml:"look"`
}

// Driver resets instances by running a program. It is a [worker.Looker] too if Config.Look is
// set, and only then.
type Driver interface {
	worker.Driver
	worker.Repeater
	// Check says whether the program can be run now. It does not run it.
	Check(ctx context.Context) error
	// Close gives up what the driver holds. No attempt may be under way, or begin later.
	Close()
}

// program is a Driver.
type program struct {
	cfg     Config
	path    string
	env     []string
	log     func(a worker.Attempt, text string)
	spawner *spawner
	times   times
}

// New returns a driver, which must be closed if it has been used. log gets what a program has left for people: the
// end of its standard error, at most 4 KiB in one line, and the evidence of its result. It is
// called by several attempts at the same time. Errors begin with the key of the setting.
func New(cfg Config, log func(a worker.Attempt, text string)) (Driver, error) {
	if err := supported(); err != nil {
		return nil, fmt.Errorf("command %w", err)
	}
	path, err := find(cfg.Command)
	if err != nil {
		return nil, fmt.Errorf("command %w", err)
	}
	env, err := environment(cfg.Env)
	if err != nil {
		return nil, fmt.Errorf("env %w", err)
	}
	// A plain script would be run to look at a phone, and reset it.
	if cfg.Look && cfg.ExitStatus {
		return nil, errors.New("look cannot go with exit_status: it needs a program that knows the protocol")
	}
	p := &program{cfg: cfg, path: path, env: env, log: log, spawner: newSpawner(), times: usualTimes}
	if cfg.Look {
		return &looking{p}, nil
	}
	return p, nil
}

// find returns the path of a command's program.
func find(command []string) (string, error) {
	switch {
	case len(command) == 0 || command[0] == "":
		return "", errors.New("must begin with a program")
	case slices.ContainsFunc(command, func(s string) bool { return strings.ContainsRune(s, 0) }):
		return "", errors.New("must not have a NUL character in it")
	case strings.Contains(command[0], "/") && !filepath.IsAbs(command[0]):
		return "", fmt.Errorf("must begin with an absolute path or a name, not %q", command[0])
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return "", fmt.Errorf("cannot be run: %w", err)
	}
	return path, nil
}

// environment is what a program inherits.
func environment(names []string) (env []string, err error) {
	for _, name := range append([]string{"PATH"}, names...) {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			return nil, fmt.Errorf("must list names of variables, not %q", name)
		}
		value, set := os.LookupEnv(name)
		if !set && name != "PATH" {
			return nil, fmt.Errorf("lists %s, which is not set where the worker runs", name)
		}
		env = append(env, name+"="+value)
	}
	return env, nil
}

func (p *program) Close() { p.spawner.close() }

func (p *program) Check(context.Context) error {
	if _, err := exec.LookPath(p.path); err != nil {
		return fmt.Errorf("command cannot be run: %w", err)
	}
	return nil
}

// Repeatable says whether an attempt may follow one that is in doubt.
func (p *program) Repeatable() bool { return p.cfg.Repeatable }

// Reset runs the program. One that does not say that a repeat is harmless is not run again while
// an earlier run is in doubt, unless it left a checkpoint: a script that has never heard of doubt
// would reset the phone twice.
func (p *program) Reset(ctx context.Context, a worker.Attempt) error {
	if a.Ambiguous && a.Checkpoint == "" && !p.cfg.Repeatable {
		return &worker.DriverError{Verdict: worker.Unknown, Message: "an earlier run may have reset the phone, and it is not run again: it left no checkpoint, and is not repeatable"}
	}
	return p.reset(ctx, a)
}

// saveTimeout bounds the saving of a checkpoint. It is shorter than the time that the worker
// leaves a driver to return.
const saveTimeout = 3 * time.Second

// reset runs the program in the mode that resets. Starting it may reset the phone.
func (p *program) reset(ctx context.Context, a worker.Attempt) error {
	l := &listener{chatty: p.cfg.ExitStatus, save: saver(ctx, a)}
	end, err := p.run(ctx, a, modeReset, func() error { return mayStart(ctx, a) }, l)
	if err != nil {
		return err
	}
	return p.judge(a, end)
}

// mayStart is the last check before the program is started.
func mayStart(ctx context.Context, a worker.Attempt) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := a.MaySend(); err != nil {
		return err
	}
	return ctx.Err() // asking took its time
}

// saver stores checkpoints. One must not be lost because the attempt ends at that moment. It says
// whether the checkpoint is stored: without it this attempt can go on, only no later one.
func saver(ctx context.Context, a worker.Attempt) func(string) bool {
	return func(checkpoint string) bool {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
		defer cancel()
		return a.Save(ctx, checkpoint) == nil
	}
}
