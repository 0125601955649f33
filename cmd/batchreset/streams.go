package main

import "io"

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
	asking   io.Writer // where questions go, if err is quiet
}

// quiet drops what is said on standard error, but for questions.
func (s *streams) quiet() { s.asking, s.err = s.prompts(), io.Discard }

// prompts is where questions go.
func (s *streams) prompts() io.Writer {
	if s.asking != nil {
		return s.asking
	}
	return s.err
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
