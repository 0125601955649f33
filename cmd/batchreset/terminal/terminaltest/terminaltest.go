// Package terminaltest runs command lines in a test and looks at what they did.
package terminaltest

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
)

// Result is what a command did.
type Result struct {
	Err       error
	Code      int    // with which a process would end
	Out, Errs string // what it wrote
	Said      string // errs, and after it what a process would say of err
}

// Run runs a command line on the streams, of which it needs those that it reads.
func Run(ctx context.Context, newRoot func(*terminal.Streams) *cobra.Command, std *terminal.Streams, args ...string) Result {
	var out, errs, said bytes.Buffer
	std.Out, std.Err = &out, &errs
	err := terminal.Execute(ctx, newRoot(std), args)
	said.WriteString(errs.String())
	terminal.Complain(&said, err, args, std.Environment)
	return Result{err, terminal.ExitCode(err), out.String(), errs.String(), said.String()}
}

// Root makes a command line that has only these commands.
func Root(commands func(*terminal.Streams) []*cobra.Command) func(*terminal.Streams) *cobra.Command {
	return func(std *terminal.Streams) *cobra.Command {
		root := &cobra.Command{Use: "batchreset"}
		root.AddCommand(commands(std)...)
		terminal.Setup(root, std)
		return root
	}
}

// Runner returns what runs a command line that has nothing to read.
func Runner(newRoot func(*terminal.Streams) *cobra.Command) func(t *testing.T, environment map[string]string, args ...string) Result {
	return func(t *testing.T, environment map[string]string, args ...string) Result {
		t.Helper()
		return Run(t.Context(), newRoot, &terminal.Streams{In: strings.NewReader(""), Environment: environment}, args...)
	}
}

// OK ends the test unless the command did what it was to do.
func (r Result) OK(t *testing.T) Result {
	t.Helper()
	if r.Err != nil {
		t.Fatalf("%v\n%s", r.Err, r.Errs)
	}
	return r
}

// WantError wants an error with a text in it.
func (r Result) WantError(t *testing.T, want string) {
	t.Helper()
	if r.Err == nil || !strings.Contains(r.Err.Error(), want) {
		t.Errorf("got %v, want an error that says %q", r.Err, want)
	}
}

// Exits wants an exit code.
func (r Result) Exits(t *testing.T, code int) {
	t.Helper()
	if r.Code != code {
		t.Errorf("exit code %d, want %d: %v\n%s", r.Code, code, r.Err, r.Errs)
	}
}

// Wants wants an exit code, all of standard output, and parts of what is said on standard error.
func (r Result) Wants(t *testing.T, code int, out string, saying ...string) {
	t.Helper()
	if r.Code != code {
		t.Errorf("exit code %d, want %d", r.Code, code)
	}
	if r.Out != out {
		t.Errorf("standard output is %q, want %q", r.Out, out)
	}
	r.Says(t, saying...)
	if t.Failed() {
		t.Logf("standard error: %s", r.Said)
	}
}

// Says wants parts of what is said on standard error.
func (r Result) Says(t *testing.T, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(r.Said, part) {
			t.Errorf("standard error %q does not say %q", r.Said, part)
		}
	}
}

// File makes a file with a text.
func File(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// Interruptible is a context that interrupt ends as Ctrl-C does.
func Interruptible(t *testing.T) (ctx context.Context, interrupt func()) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	return ctx, func() { cancel(&terminal.SignalError{Signal: syscall.SIGINT}) }
}

// ExitInterrupted is what a shell says of a command that was interrupted.
const ExitInterrupted = terminal.ExitSignal + int(syscall.SIGINT)
