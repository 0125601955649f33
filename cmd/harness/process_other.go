//go:build !linux

package harness

import "syscall"

// attributes puts a process into a group of its own: Ctrl-C is for the program that has
// started it, which ends the rest.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
