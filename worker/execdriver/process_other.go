//go:build !linux && !windows

package execdriver

import (
	"os"
	"os/exec"
	"syscall"
)

// attributes puts a program into a process group of its own, to be stopped as a whole.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// lockThread is for Linux.
func lockThread() {}

// watch tells when a program has ended.
func watch(cmd *exec.Cmd) (ended <-chan struct{}, reap func() *os.ProcessState) {
	end := make(chan struct{})
	var state *os.ProcessState
	go func() {
		state, _ = cmd.Process.Wait() // fails if somebody else has waited, and nobody does
		close(end)
	}()
	return end, func() *os.ProcessState {
		<-end
		_ = cmd.Wait() // for what it has opened; the process was waited for
		return state
	}
}
