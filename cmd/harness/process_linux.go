package harness

import "syscall"

// attributes puts a process into a group of its own: Ctrl-C is for the program that has
// started it, which ends the rest. If that program is killed, the kernel kills the process.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
