// Command batchreset is a self-hosted, KooPhone-compatible batch reset service,
// and the command line of its callers and operators.
package main

import (
	"context"
	"io"
	"log/slog"
	"os"

	"batchreset/tasks/redisdb"
)

// version is set by the linker for released binaries.
var version = ""

func main() {
	redisdb.LogTo(slog.New(slog.DiscardHandler)) // unless a process has a log
	ctx, stop := untilSignal(context.Background())
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	complain(os.Stderr, err, os.Args[1:], os.Environ())
	exit(exitCode(err))
}

// complain says what is wrong, if anything, in the form that the command line asks for.
func complain(w io.Writer, err error, args, environ []string) {
	if err != nil && err.Error() != "" {
		output := outputOf(args, environ)
		output.complain(w, err, exitCode(err))
	}
}
