package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// The exit codes of all commands; exitCodeTable says them to people.
const (
	exitOther   = 1   // this machine's doing: a port that is taken, a full disk, "no" to a question
	exitSome    = 2   // some instances or jobs were not done
	exitRefused = 3   // by the service
	exitAway    = 4   // the service, or Redis, or its fault
	exitUsage   = 64  // EX_USAGE of BSD's sysexits
	exitTimeout = 124 // as the command timeout has it
	exitSignal  = 128 // and the number of the signal, as shells have it
)

const exitCodeTable = `  0    all well
  1    something on this machine failed, such as a port that is taken or a result that
       could not be written; or you said no to a question
  2    some instances were not reset, or part of what was asked was refused
  3    the service refused all of it (4xx): credentials, instances that are not yours,
       no such job, …; or there is no entry of that name
  4    the service could not be reached or failed (5xx); commands that need Redis:
       Redis could not be reached or failed
  64   the command line is wrong, or a file or an ID that it names
  124  --timeout was over
  130  ended by Ctrl-C (SIGINT), 143 by SIGTERM: the process dies of the signal

api, worker and dev end with 0 when a signal stops them in good order.`

// newExitCodesTopic is a page of help.
func newExitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes of all commands mean",
		Long:  "Exit codes of all commands:\n\n" + exitCodeTable,
	}
}

// exitError ends the process with an exit code. Without err it says nothing
// more: what there is to say has been printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitCode is the one place that says which error has which exit code. What nothing is
// known of was found wrong with the command line, before anybody was asked.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if code := knownCode(err); code != 0 {
		return code
	}
	return exitUsage
}

func knownCode(err error) int {
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	if _, ok := errors.AsType[*overtime](err); ok {
		return exitTimeout
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return exitStatus(e.HTTPStatus)
	}
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return exitRefusal(e.Code)
	}
	if errors.Is(err, client.ErrNoAnswer) {
		return exitAway
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok && e.Op == "write" {
		return exitOther
	}
	return 0
}

// exitStatus is the code for an HTTP status that is no success. One that is none of the
// contract's comes from something before the service.
func exitStatus(status int) int {
	if status >= 400 && status < 500 {
		return exitRefused
	}
	return exitAway
}

// exitRefusal is the code for what the store says.
func exitRefusal(code tasks.Code) int {
	switch code {
	case tasks.Internal, tasks.StorageFull, tasks.TokenServiceDown:
		return exitAway
	}
	return exitRefused
}

// withCode gives an error its exit code, unless it has one.
func withCode(code int, err error) error {
	if err == nil || knownCode(err) != 0 {
		return err
	}
	return &exitError{code: code, err: err}
}

// redisFailed gives an error of Redis its exit code. A URL that is none is the command
// line's fault.
func redisFailed(err error) error {
	if errors.Is(err, redisdb.ErrURL) {
		return withCode(exitUsage, err)
	}
	return withCode(exitAway, err)
}

// addressFailed gives the error of an address to listen on its exit code: what the system
// has against it is not the command line's fault.
func addressFailed(err error) error {
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return withCode(exitOther, err)
	}
	return withCode(exitUsage, err)
}

// notFound is the error for names that there is nothing of, while done others there was.
func notFound(done int, format string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	err := fmt.Errorf(format, strings.Join(slices.Sorted(slices.Values(names)), ", "))
	if done > 0 {
		return withCode(exitSome, err)
	}
	return withCode(exitRefused, err)
}

// died is why a context ended: somebody ended the process.
type died struct{ signal syscall.Signal }

func (d *died) Error() string { return "interrupted" }

// overtime is why a context ended: the time of --timeout is over.
type overtime struct{ after time.Duration }

func (o *overtime) Error() string { return fmt.Sprintf("--timeout %s is over", o.after) }

// why says why ctx ended, in the words of the beginning of a sentence.
func why(ctx context.Context) error {
	if e, ok := errors.AsType[*overtime](context.Cause(ctx)); ok {
		return e
	}
	return errors.New("interrupted")
}

// untilSignal ends the context at the first SIGINT or SIGTERM. The second one has its
// usual effect: to end the process at once.
func untilSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			cancel(&died{s.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// endEarly has cmd and the commands below it end when their --timeout is over, and say
// so, or that they were interrupted, by their exit code. Services are stopped by a signal
// in the normal course of things, they do without.
func endEarly(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		endEarly(sub)
	}
	work := cmd.RunE
	if work == nil {
		return
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, cancel, err := limited(cmd)
		if err != nil {
			return err
		}
		defer cancel()
		cmd.SetContext(ctx)
		return early(ctx, work(cmd, args))
	}
}

// limited is the context of a command under its --timeout, if it has one.
func limited(cmd *cobra.Command) (context.Context, context.CancelFunc, error) {
	if cmd.Flags().Lookup("timeout") == nil {
		return cmd.Context(), func() {}, nil
	}
	limit, err := cmd.Flags().GetDuration("timeout")
	switch {
	case err != nil || limit == 0:
		return cmd.Context(), func() {}, err
	case limit < 0:
		return nil, nil, errors.New("--timeout must not be negative")
	}
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), limit, &overtime{limit})
	return ctx, cancel, nil
}

// early gives what a command returned the exit code of why it ended early. Interrupted in
// its last moment, when all was well already, it dies of the signal all the same: a loop in
// a shell would go on otherwise.
func early(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if d, ok := errors.AsType[*died](cause); ok {
		return &exitError{exitSignal + int(d.signal), err}
	}
	o, over := errors.AsType[*overtime](cause)
	if err == nil || !over {
		return err
	}
	if _, said := errors.AsType[*overtime](err); !said {
		err = withCode(exitTimeout, fmt.Errorf("%w: %w", o, err))
	}
	return err
}

// exit ends the process. One that a signal ended dies of it: a shell goes on with its loop
// after any exit code.
func exit(code int) {
	if code > exitSignal && os.Getpid() != 1 { // the first process of a container dies of none
		number := syscall.Signal(code - exitSignal)
		signal.Reset(number)
		if self, err := os.FindProcess(os.Getpid()); err == nil && self.Signal(number) == nil {
			time.Sleep(time.Second) // where the signal is ignored, nohup has done that
		}
	}
	os.Exit(code)
}
