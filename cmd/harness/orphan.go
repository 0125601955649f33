package harness

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// StartAgain starts this program once more with a variable in its environment. The first line that
// it prints is the number of a process that it has started, which is pid. kill ends the program
// alone: a [Process] would end what it has started with it.
func StartAgain(t T, variable string) (pid int, kill func()) {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatalf("%v", err)
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Env = append(os.Environ(), variable)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("%v", err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v", err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the program says %q: %v", line, err)
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(line)); err != nil {
		t.Fatalf("%v", err)
	}
	return pid, func() {
		t.Helper()
		if err := cmd.Process.Kill(); err != nil {
			t.Fatalf("%v", err)
		}
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // it was killed
	}
}

// HasEnded says whether a process that is not our child has ended. Init may leave it as a zombie
// for a while.
func HasEnded(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil && runtime.GOOS == "linux" || strings.Contains(string(stat), ") Z ") || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}
