// Command batchreset is a self-hosted, KooPhone-compatible batch reset service,
// and the command line of its callers and operators.
package main

import (
	"context"
	"log/slog"
	"os"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/redisdb"
)

func main() {
	redisdb.LogTo(slog.New(slog.DiscardHandler)) // unless a process has a log
	ctx, stop := terminal.UntilSignal(context.Background())
	err := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	terminal.Complain(os.Stderr, err, os.Args[1:], terminal.ParseEnvironment(os.Environ()))
	terminal.Exit(terminal.ExitCode(err))
}
