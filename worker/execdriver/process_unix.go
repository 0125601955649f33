//go:build !windows

package execdriver

import "syscall"

// supported returns an error where a program cannot be run as this driver must run it.
func supported() error { return nil }

// signal signals a process, or a process group under its negative number. It may have ended.
func signal(pid int, s syscall.Signal) { _ = syscall.Kill(pid, s) }

// readNow reads what is there already.
func readNow(fd uintptr, p []byte) (n int, err error) { return syscall.Read(int(fd), p) }
