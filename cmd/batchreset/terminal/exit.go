package terminal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/tasks"
)

// The exit codes of all commands; exitCodeTable says them to people.
const (
	ExitOther   = 1   // this machine's doing: a port that is taken, a full disk, "no" to a question
	ExitSome    = 2   // some instances or jobs were not done, a proof does not verify, or doctor found something
	ExitRefused = 3   // by the service
	ExitAway    = 4   // the service, or Redis, or its fault
	ExitUsage   = 64  // EX_USAGE of BSD's sysexits
	ExitTimeout = 124 // as the command timeout has it
	ExitSignal  = 128 // and the number of the signal, as shells have it
)

const exitCodeTable = `  0    all well
  1    something on this machine failed, such as a port that is taken or a result that
       could not be written; or you said no to a question
  2    some instances were not reset, or part of what was asked was refused; or a proof
       does not verify, or 'doctor' found what does not work
  3    the service refused all of it (4xx): credentials, instances that are not yours,
       no such job, …; or there is no entry of that name
  4    the service could not be reached or failed (5xx); commands that need Redis:
       Redis could not be reached or failed
  64   the command line is wrong, or a file or an ID that it names
  124  --timeout was over
  130  ended by Ctrl-C (SIGINT), 143 by SIGTERM: the process dies of the signal

api, worker and dev end with 0 when a signal stops them in good order.`

// NewExitCodesTopic is a page of help.
func NewExitCodesTopic() *cobra.Command {
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "What the exit codes of all commands mean",
		Long:  "Exit codes of all commands:\n\n" + exitCodeTable,
	}
}

// ExitError ends the process with an exit code. Without err it says nothing
// more: what there is to say has been printed.
type ExitError struct {
	Code int
	Err  error
}

// Error implements error.
func (e *ExitError) Error() string {
	if e.Err == nil {
		return ""
	}
	return e.Err.Error()
}

// Unwrap returns what is wrong, or nil.
func (e *ExitError) Unwrap() error { return e.Err }

// ExitCode is the one place that says which error has which exit code. What nothing is
// known of was found wrong with the command line, before anybody was asked.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	if code := knownCode(err); code != 0 {
		return code
	}
	return ExitUsage
}

func knownCode(err error) int {
	if e, ok := errors.AsType[*ExitError](err); ok {
		return e.Code
	}
	if _, ok := errors.AsType[*TimeoutError](err); ok {
		return ExitTimeout
	}
	if e, ok := errors.AsType[*client.Error](err); ok {
		return ExitStatus(e.HTTPStatus)
	}
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return exitRefusal(e.Code)
	}
	if errors.Is(err, client.ErrNoAnswer) {
		return ExitAway
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok && e.Op == "write" {
		return ExitOther
	}
	return 0
}

// ExitStatus is the code for an HTTP status that is no success. One that is none of the
// contract's comes from something before the service.
func ExitStatus(status int) int {
	if status >= 400 && status < 500 {
		return ExitRefused
	}
	return ExitAway
}

// exitRefusal is the code for what the store says.
func exitRefusal(code tasks.Code) int {
	switch code {
	case tasks.Internal, tasks.StorageFull:
		return ExitAway
	}
	return ExitRefused
}

// WithCode gives an error its exit code, unless it has one.
func WithCode(code int, err error) error {
	if err == nil || knownCode(err) != 0 {
		return err
	}
	return &ExitError{Code: code, Err: err}
}

// NotFound is the error for names that there is nothing of, while done others there was.
func NotFound(done int, format string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	err := fmt.Errorf(format, strings.Join(slices.Sorted(slices.Values(names)), ", "))
	if done > 0 {
		return WithCode(ExitSome, err)
	}
	return WithCode(ExitRefused, err)
}
