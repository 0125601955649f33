package terminal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// SignalError is why a context ended: somebody ended the process.
type SignalError struct{ Signal syscall.Signal }

// Error implements error.
func (e *SignalError) Error() string { return "interrupted" }

// TimeoutError is why a context ended: the time of --timeout is over.
type TimeoutError struct{ After time.Duration }

// Error implements error.
func (e *TimeoutError) Error() string { return fmt.Sprintf("--timeout %s is over", e.After) }

// Cause says why ctx ended, in the words of the beginning of a sentence.
func Cause(ctx context.Context) error {
	if e, ok := errors.AsType[*TimeoutError](context.Cause(ctx)); ok {
		return e
	}
	return errors.New("interrupted")
}

// UntilSignal ends the context at the first SIGINT or SIGTERM. The second one has its
// usual effect: to end the process at once.
func UntilSignal(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		select {
		case s := <-signals:
			signal.Stop(signals)
			cancel(&SignalError{s.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// EndEarly has cmd and the commands below it end when their --timeout is over, and say
// so, or that they were interrupted, by their exit code. Services are stopped by a signal
// in the normal course of things, they do without.
func EndEarly(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		EndEarly(sub)
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
	ctx, cancel := context.WithTimeoutCause(cmd.Context(), limit, &TimeoutError{limit})
	return ctx, cancel, nil
}

// early gives what a command returned the exit code of why it ended early. Interrupted in
// its last moment, when all was well already, it dies of the signal all the same: a loop in
// a shell would go on otherwise.
func early(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if d, ok := errors.AsType[*SignalError](cause); ok {
		return &ExitError{ExitSignal + int(d.Signal), err}
	}
	o, over := errors.AsType[*TimeoutError](cause)
	if err == nil || !over {
		return err
	}
	if _, said := errors.AsType[*TimeoutError](err); !said {
		err = WithCode(ExitTimeout, fmt.Errorf("%w: %w", o, err))
	}
	return err
}

// Exit ends the process. One that a signal ended dies of it: a shell goes on with its loop
// after any exit code.
func Exit(code int) {
	if code > ExitSignal && os.Getpid() != 1 { // the first process of a container dies of none
		number := syscall.Signal(code - ExitSignal)
		signal.Reset(number)
		if self, err := os.FindProcess(os.Getpid()); err == nil && self.Signal(number) == nil {
			time.Sleep(time.Second) // where the signal is ignored, nohup has done that
		}
	}
	os.Exit(code)
}
