// Phone stands in for Android in a container: it is init, getprop, find and more of an image that has
// nothing else. It is called with arguments name=value, as redroid is:
//
//	phone.boot=500ms    how long a boot takes; never, exit or nothing are possible too
package main

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// booted is in the container itself, and taken away at each start.
const booted = "/booted"

func main() {
	switch filepath.Base(os.Args[0]) {
	case "getprop":
		getprop()
	case "find":
		find(os.Args[1:])
	case "healthy":
		healthy()
	case "boot": // the end of a boot that takes for ever
		must(os.WriteFile(booted, nil, 0o644))
	default:
		initialize(os.Args[1:])
	}
}

// initialize boots, and runs until it is told to end.
func initialize(args []string) {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	_ = os.Remove(booted)
	must(os.MkdirAll("/data/system", 0o755)) // as Android does in its first boot
	boot := "0s"
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, "phone.boot="); ok {
			boot = value
		}
	}
	switch boot {
	case "exit":
		os.Exit(7)
	case "never":
		<-end
		return
	}
	takes, err := time.ParseDuration(boot)
	must(err)
	select {
	case <-end:
		return
	case <-time.After(takes):
	}
	must(os.WriteFile(booted, nil, 0o644))
	<-end
}

func getprop() {
	if _, err := os.Stat(booted); err == nil && len(os.Args) == 2 && os.Args[1] == "sys.boot_completed" {
		fmt.Println(1)
		return
	}
	fmt.Println()
}

func healthy() {
	if _, err := os.Stat(booted); err != nil {
		os.Exit(1)
	}
}

// find knows 'find FOLDER... -mindepth 1 -delete', and instead of these: -lie, which does nothing
// and ends well, and -fail.
func find(args []string) {
	var folders []string
	for len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		folders, args = append(folders, args[0]), args[1:]
	}
	switch strings.Join(args, " ") {
	case "-lie":
	case "-fail":
		must(fmt.Errorf("find: %s: Permission denied", folders[0]))
	case "-mindepth 1 -delete":
		for _, folder := range folders {
			entries, err := os.ReadDir(folder)
			must(err)
			for _, entry := range entries {
				must(os.RemoveAll(filepath.Join(folder, entry.Name())))
			}
		}
	default:
		must(fmt.Errorf("find: unknown arguments %q", args))
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
