// Command batchreset is a self-hosted, KooPhone-compatible batch reset service,
// and the command line of its callers and operators.
package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"batchreset/tasks/redisdb"
)

// version is set by the linker for released binaries.
var version = ""

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// After the first signal the second one has its usual effect: to end the
	// process at once.
	context.AfterFunc(ctx, stop)
	redisdb.LogTo(slog.New(slog.DiscardHandler)) // unless a process has a log
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	code := exitCode(err)
	if err != nil && err.Error() != "" {
		output := outputOf(os.Args[1:], os.Environ())
		output.complain(os.Stderr, err, code)
	}
	os.Exit(code)
}

// exitCode is what the process ends with.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return 1
}
