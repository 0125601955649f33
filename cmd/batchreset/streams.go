package main

import (
	"io"
	"os"
)

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
	asking   io.Writer // where questions go, once that is known
}

// quiet drops what is said on standard error, but for questions.
func (s *streams) quiet() { s.asking, s.err = s.prompts(), io.Discard }

// prompts is where questions go: to the terminal that is to answer, also where standard error
// is a file. Who sees no question waits for ever.
func (s *streams) prompts() io.Writer {
	if s.asking != nil {
		return s.asking
	}
	s.asking = s.err
	if isTerminal(s.in) && !isTerminal(s.err) {
		if tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0); err == nil {
			s.asking = tty // until the process ends
		}
	}
	return s.asking
}
