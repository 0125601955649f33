package terminal

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"testing"
)

func TestExitCodes(t *testing.T) {
	for want, err := range map[int]error{
		0:           nil,
		ExitUsage:   fmt.Errorf("--flag is wrong"),
		ExitSome:    fmt.Errorf("list: %w", &ExitError{Code: ExitSome}),
		ExitTimeout: &TimeoutError{1},
		ExitOther:   fmt.Errorf("print: %w", &os.PathError{Op: "write", Path: "/dev/full", Err: syscall.ENOSPC}),
	} {
		if got := ExitCode(err); got != want {
			t.Errorf("%v exits with %d, want %d", err, got, want)
		}
	}
}

func TestASignalDecidesTheExitCode(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(&SignalError{syscall.SIGTERM})
	for name, err := range map[string]error{"well": nil, "not": &ExitError{Code: ExitSome}} {
		if got := ExitCode(early(ctx, err)); got != 143 {
			t.Errorf("a command that ended %s, and was to end, exits with %d", name, got)
		}
	}
}
