package execdriver

import (
	"bytes"
	"errors"
	"io"
	"os"
	"syscall"
	"time"
)

// maxLog is how much of a program's standard error is kept: its end, in bytes.
const maxLog = 4 << 10

// output is a pipe that a program writes to. It ends with the program, even if something that the
// program has started lives on and holds the other end.
type output struct {
	r, w *os.File
	over bool // reading does not wait any more
	left int  // what may be read then, in bytes
}

// newOutput makes a pipe and gives the writing end to a command.
func newOutput(to *io.Writer) (*output, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	*to = w
	return &output{r: r, w: w}, nil
}

// started leaves the writing end to the program.
func (o *output) started() { _ = o.w.Close() }

// end says that the program has ended. All that it wrote is in the pipe by now.
func (o *output) end() { _ = o.r.SetReadDeadline(time.Unix(1, 0)) }

func (o *output) close() {
	if o != nil {
		_ = o.r.Close()
		_ = o.w.Close()
	}
}

// Read waits for what the program writes until it has ended, and then reads what is left.
func (o *output) Read(p []byte) (n int, err error) {
	if !o.over {
		n, err = o.r.Read(p)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		o.over, o.left = true, maxRest
		if err := o.r.SetReadDeadline(time.Time{}); err != nil {
			return 0, err
		}
	}
	return o.rest(p)
}

// maxRest is the most that a pipe can hold, unless somebody privileged has asked for more: what
// comes after that is not the program's.
const maxRest = 1 << 20

// rest reads without waiting.
func (o *output) rest(p []byte) (n int, err error) {
	raw, err := o.r.SyscallConn()
	if err != nil {
		return 0, err
	}
	if rawErr := raw.Read(func(fd uintptr) bool {
		n, err = readNow(fd, p)
		return true
	}); rawErr != nil {
		return 0, rawErr
	}
	o.left -= max(n, 0)
	switch {
	case n > 0 && o.left > 0:
		return n, nil
	case err == nil, errors.Is(err, syscall.EAGAIN): // who else writes has left the program
		return 0, io.EOF
	}
	return 0, err
}

// lastBytes reads to the end and returns the last of it.
func lastBytes(r io.Reader, limit int) string {
	var tail []byte
	var chunk [512]byte
	for {
		n, err := r.Read(chunk[:])
		tail = append(tail, chunk[:n]...)
		if len(tail) > 2*limit {
			tail = append(tail[:0], tail[len(tail)-limit:]...)
		}
		if err != nil {
			return string(bytes.TrimSpace(tail[max(0, len(tail)-limit):]))
		}
	}
}
