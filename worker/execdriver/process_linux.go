package execdriver

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes puts a program into a process group of its own, to be stopped as a whole, and has the
// kernel kill the program when the worker dies: nobody would hear its answer, and the next attempt
// must not run beside it. What the program has started goes on to its own end.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// lockThread keeps a goroutine on its thread, which ends with it.
func lockThread() { runtime.LockOSThread() }

// watch tells when a program has ended. Until it is reaped its number, and that of its group, are
// nobody else's.
func watch(cmd *exec.Cmd) (ended <-chan struct{}, reap func() *os.ProcessState) {
	end := make(chan struct{})
	go func() {
		if poll(cmd.Process) != nil {
			waitOnThread(cmd.Process.Pid)
		}
		close(end)
	}()
	return end, func() *os.ProcessState {
		<-end
		_ = cmd.Wait() // how it ended is in the state
		return cmd.ProcessState
	}
}

// poll waits in Go's poller. [os.Process.Wait] takes a thread for each process, and a Go program
// with ten thousand threads is ended.
func poll(p *os.Process) error {
	fd, dupErr := -1, error(nil)
	err := p.WithHandle(func(handle uintptr) {
		fd, dupErr = unix.FcntlInt(handle, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err := errors.Join(err, dupErr); err != nil {
		return err
	}
	if err := unix.SetNonblock(fd, true); err != nil { // or the poller does not take it
		_ = unix.Close(fd)
		return err
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = f.Close() }()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 && err == nil
	})
}

// waitOnThread is for kernels before 5.4, which have no handles of processes.
func waitOnThread(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}
