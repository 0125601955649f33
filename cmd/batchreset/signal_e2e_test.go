package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
)

// caller starts the binary as a process of its own, with the service's address.
func caller(t *testing.T, s *calltest.Service, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Env = append(os.Environ(), "BATCHRESET_SERVER="+s.URL, "BATCHRESET_TOKEN="+calltest.Token)
	return cmd
}

// waiting is a service whose jobs never end, and that tells when it is first asked for one.
func waiting(t *testing.T) (s *calltest.Service, asked chan struct{}) {
	t.Helper()
	s = calltest.NewService(t)
	asked = make(chan struct{})
	var once sync.Once
	s.Mu.Lock() // requests come from another process, which the race detector knows nothing of
	defer s.Mu.Unlock()
	s.Looks = 1_000_000
	s.Looking = func(http.ResponseWriter, *http.Request, int) bool {
		once.Do(func() { close(asked) })
		return false
	}
	return s, asked
}

func TestASignalIsDiedOf(t *testing.T) {
	for _, number := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		for _, args := range [][]string{{"submit", "phone-1", "--wait"}, {"watch", job1}} {
			t.Run(fmt.Sprintf("%s, %s", args[0], number), func(t *testing.T) {
				t.Parallel()
				s, asked := waiting(t)
				if args[0] == "watch" {
					s.Add("phone-1")
				}
				cmd := caller(t, s, args...)
				var errs bytes.Buffer
				cmd.Stderr = &errs
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				<-asked
				if err := cmd.Process.Signal(number); err != nil {
					t.Fatal(err)
				}
				err, _ := errors.AsType[*exec.ExitError](cmd.Wait())
				if status := err.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != number {
					t.Errorf("it ended with status %#x", status)
				}
				want := "batchreset: interrupted; the jobs go on; 'batchreset watch " + job1 + "' follows them, 'batchreset cancel " + job1 + "' takes back"
				if !strings.Contains(errs.String(), want) {
					t.Errorf("it says %s", &errs)
				}
			})
		}
	}
}

// ptyTerminal is a terminal on which somebody types.
type ptyTerminal struct {
	t    *testing.T
	keys *os.File
	text chan string // what was shown, in pieces
	seen string
}

func newTerminal(t *testing.T) (term *ptyTerminal, tty *os.File) {
	t.Helper()
	keys, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	term = &ptyTerminal{t: t, keys: keys, text: make(chan string)}
	go func() {
		defer close(term.text)
		buffer := make([]byte, 4096)
		for {
			n, err := keys.Read(buffer) // fails when nobody has the terminal open any more
			if err != nil {
				return
			}
			term.text <- string(buffer[:n])
		}
	}()
	t.Cleanup(func() {
		_ = tty.Close()
		for range term.text { // to its end
		}
		_ = keys.Close()
	})
	return term, tty
}

func (term *ptyTerminal) types(text string) {
	term.t.Helper()
	if _, err := io.WriteString(term.keys, text); err != nil {
		term.t.Fatal(err)
	}
}

// shows waits until the terminal shows a text, and returns what it has shown since the last.
func (term *ptyTerminal) shows(want string) string {
	term.t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		if before, after, found := strings.Cut(term.seen, want); found {
			term.seen = after
			return before
		}
		select {
		case more, ok := <-term.text:
			if !ok {
				term.t.Fatalf("the terminal is closed, it shows %q, want %q", term.seen, want)
			}
			term.seen += more
		case <-timeout:
			term.t.Fatalf("the terminal shows %q, want %q", term.seen, want)
		}
	}
}

func TestCtrlCStopsALoopInAShell(t *testing.T) {
	t.Parallel()
	s, asked := waiting(t)
	shell := exec.CommandContext(t.Context(), "sh", "-i")
	shell.Env = append(os.Environ(), "PS1=ready> ", "ENV=", "BATCHRESET_SERVER="+s.URL, "BATCHRESET_TOKEN="+calltest.Token)
	term, tty := newTerminal(t)
	shell.Stdin, shell.Stdout, shell.Stderr = tty, tty, tty
	shell.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	term.shows("ready> ")
	term.types("for n in 1 2 3; do " + binary + " submit phone-$n --wait; done\n")
	<-asked
	term.types("\x03")
	term.shows("interrupted; the jobs go on")
	term.shows("ready> ")
	term.types("exit 7\n")
	if err := shell.Wait(); err == nil || shell.ProcessState.ExitCode() != 7 {
		t.Errorf("the shell: %v", err)
	}
	if got := s.Sent(); len(got) != 1 {
		t.Errorf("the loop went on: %v", got)
	}
}

// TestAQuestionIsSeenWhereStandardErrorIsAFile: a command whose question went to a log would
// wait for an answer to it.
func TestAQuestionIsSeenWhereStandardErrorIsAFile(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"--wait=false", "--quiet"} {
		s := calltest.NewService(t)
		term, tty := newTerminal(t)
		cmd := caller(t, s, "submit", "phone-1", "phone-2", flag)
		var errs bytes.Buffer
		cmd.Stdin, cmd.Stderr = tty, &errs
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		term.shows("Go on? [y/N] ")
		term.types("n\n")
		_ = cmd.Wait() // its state tells
		if code := cmd.ProcessState.ExitCode(); code != terminal.ExitOther || strings.Contains(errs.String(), "Go on?") {
			t.Errorf("%s: exit code %d, the file has %q", flag, code, &errs)
		}
	}
}

func TestSubmitAsksOnATerminal(t *testing.T) {
	const question = "This destroys the data on them. Go on? [y/N] "
	for name, row := range map[string]struct {
		args   []string
		list   string // on standard input, which is no terminal then
		answer string // none: it does not ask
		code   int
	}{
		"and does nothing after no":        {args: []string{"phone-1", "phone-2"}, answer: "n\n", code: terminal.ExitOther},
		"and does nothing after no answer": {args: []string{"phone-1", "phone-2"}, answer: "\n", code: terminal.ExitOther},
		"and goes on after yes":            {args: []string{"phone-1", "phone-2"}, answer: "y\n"},
		"but not for one instance":         {args: []string{"phone-1"}},
		"but not with --yes":               {args: []string{"phone-1", "phone-2", "--yes"}},
		"but not when it has a list there": {args: []string{"--file", "-"}, list: "phone-1\nphone-2\n"},
		"but not for a dry run":            {args: []string{"phone-1", "phone-2", "--dry-run"}, code: terminal.ExitAway},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := calltest.NewService(t)
			term, tty := newTerminal(t)
			cmd := caller(t, s, append([]string{"submit"}, row.args...)...)
			cmd.Stdin, cmd.Stderr = tty, tty
			if row.list != "" {
				cmd.Stdin = strings.NewReader(row.list)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if row.answer != "" {
				asks := term.shows(question)
				for _, part := range []string{"2 instances: phone-1 phone-2\r\n", "server " + s.URL + ", tenant "} {
					if !strings.Contains(asks, part) {
						t.Errorf("it asks %q", asks)
					}
				}
				term.types(row.answer)
			}
			_ = cmd.Wait() // its state tells
			if code := cmd.ProcessState.ExitCode(); code != row.code {
				t.Errorf("exit code %d, want %d; it shows %q", code, row.code, term.seen)
			}
			if sent := len(s.Sent()); sent != 1 && row.code == 0 || sent != 0 && row.code == terminal.ExitOther {
				t.Errorf("%d requests were sent", sent)
			}
		})
	}
}
