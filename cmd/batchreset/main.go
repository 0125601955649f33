// Command batchreset is a self-hosted, KooPhone-compatible batch reset service,
// and the command line of its callers and operators.
package main

import (
	"context"
	"log/slog"
	"os"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/redisdb/wire"
)

func main() {
	wire.LogTo(slog.New(slog.DiscardHandler)) // unless a process has a log
	ctx, stop := terminal.UntilSignal(context.Background())
	args, environment := os.Args[1:], terminal.ParseEnvironment(os.Environ())
	std := &terminal.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environment: environment}
	err := terminal.Execute(ctx, newRootCommand(std), args)
	stop()
	terminal.Complain(os.Stderr, err, args, environment)
	terminal.Exit(terminal.ExitCode(err))
}
