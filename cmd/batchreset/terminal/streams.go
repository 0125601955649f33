package terminal

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Streams are where a command reads and writes, and the environment that sets its flags.
type Streams struct {
	In          io.Reader
	Out, Err    io.Writer
	Environment map[string]string // by the name of the variable

	asking io.Writer // where questions go, once that is known
}

// quiet drops what is said on standard error, but for questions.
func (s *Streams) quiet() { s.asking, s.Err = s.prompts(), io.Discard }

// prompts is where questions go: to the terminal that is to answer, also where standard error
// is a file. Who sees no question waits for ever.
func (s *Streams) prompts() io.Writer {
	if s.asking != nil {
		return s.asking
	}
	s.asking = s.Err
	if IsTerminal(s.In) && !IsTerminal(s.Err) {
		if tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0); err == nil {
			s.asking = tty // until the process ends
		}
	}
	return s.asking
}

// IsTerminal reports whether a stream is one that a person sits at.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
