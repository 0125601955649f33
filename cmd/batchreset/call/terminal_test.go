package call

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/harness"
)

// TestLoginAsksOnATerminal types a token, and sees that the terminal does not show it.
func TestLoginAsksOnATerminal(t *testing.T) {
	s := newFakeService(t)
	dir, _ := configDir(t)
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = master.Close() }()
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() {
		done <- terminal.Execute(t.Context(), newRootCommand(&terminal.Streams{In: slave, Out: &out, Err: slave}), []string{"login", s.URL, "--name", "lab", "--config-dir", dir, "-q"})
	}()
	harness.Eventually(t, 90*time.Second, "the terminal echoes nothing", func() bool {
		mode, err := unix.IoctlGetTermios(int(master.Fd()), unix.TCGETS)
		return err == nil && mode.Lflag&unix.ECHO == 0
	})
	if _, err := master.WriteString(calltest.Token + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := slave.WriteString("the end\n"); err != nil {
		t.Fatal(err)
	}
	shown := ""
	for lines := bufio.NewScanner(master); !strings.Contains(shown, "the end") && lines.Scan(); {
		shown += lines.Text() + "\n"
	}
	if shown != "Token: \nthe end\n" {
		t.Errorf("the terminal shows %q", shown)
	}
	mode, err := unix.IoctlGetTermios(int(slave.Fd()), unix.TCGETS)
	if err != nil || mode.Lflag&unix.ECHO == 0 {
		t.Errorf("the terminal is left without its echo, %v", err)
	}
	if kept, err := (contexts{dir: dir}).read("lab"); err != nil || kept.Token != calltest.Token {
		t.Errorf("kept %+v, %v", kept, err)
	}
	if err := slave.Close(); err != nil {
		t.Error(err)
	}
}
