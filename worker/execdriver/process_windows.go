package execdriver

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

var errUnsupported = errors.New("does not run on Windows, where a program cannot be stopped together with all that it has started")

// supported returns an error where a program cannot be run as this driver must run it. So nothing else here is called.
func supported() error { return errUnsupported }

func attributes() *syscall.SysProcAttr { return nil }

func lockThread() {}

func watch(cmd *exec.Cmd) (ended <-chan struct{}, reap func() *os.ProcessState) {
	end := make(chan struct{})
	close(end)
	return end, func() *os.ProcessState { return cmd.ProcessState }
}

func signal(int, syscall.Signal) {}

func readNow(uintptr, []byte) (int, error) { return 0, errUnsupported }
