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
