package terminal

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"

	"batchreset/api/client"
	"batchreset/tasks"
)

// Complain says what is wrong, if anything, in the form that the command line asks for.
func Complain(w io.Writer, err error, args []string, environment map[string]string) {
	if err != nil && err.Error() != "" {
		output := outputOf(args, environment)
		output.complain(w, err, ExitCode(err))
	}
}

// Failure is an error in JSON output.
type Failure struct {
	Code       string `json:"error_code,omitempty"`
	Message    string `json:"error_msg"`
	HTTPStatus int    `json:"http_status,omitempty"`
	RequestID  string `json:"request_id,omitempty"`

	Err error `json:"-"` // for people
}

// NewFailure takes an error apart. Its message does not repeat what has a field of its own.
func NewFailure(err error) Failure {
	f := Failure{Message: err.Error(), Err: err}
	if e, ok := errors.AsType[*client.Error](err); ok {
		f.Code, f.HTTPStatus, f.RequestID = e.Code, e.HTTPStatus, e.RequestID
		f.Message = strings.Replace(f.Message, e.Error(), e.Message, 1)
	} else if e, ok := errors.AsType[*tasks.Error](err); ok {
		f.Code = string(e.Code)
		f.Message = strings.Replace(f.Message, e.Error(), e.Message, 1)
	}
	return f
}

// trouble is the error that a command ends with, for programs.
type trouble struct {
	Failure
	ExitCode int `json:"exit_code"`
}

// complain says on standard error what went wrong: to programs that asked for JSON, YAML or
// lines as one object, the last line there is.
func (f *Output) complain(w io.Writer, err error, code int) {
	t := trouble{Failure: NewFailure(err), ExitCode: code}
	written := errors.New("nobody asked")
	switch f.String() {
	case "json", "jsonl":
		written = jsonLines(w).Encode(t)
	case "yaml":
		written = writeYAML(w, t)
	}
	if written != nil {
		fmt.Fprintln(w, "batchreset:", tasks.VisibleLines(err.Error()))
	}
}

// outputOf is the form that a command line asks for, or else the environment, also where
// something else of it cannot be read.
func outputOf(args []string, environment map[string]string) (output Output) {
	_ = output.Set(environment[EnvironmentVariable("output")]) // what cannot be understood is text
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	flags.SetOutput(io.Discard)
	flags.VarP(&output, "output", "o", "")
	_ = flags.Parse(args) // what is wrong with them was said
	return output
}
