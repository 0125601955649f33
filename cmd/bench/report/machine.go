package report

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// Machine is where and when results were measured, and of what.
type Machine struct {
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Kernel  string `json:"kernel"`
	Load    string `json:"load"` // of the last minute, before the start
	Go      string `json:"go"`
	Redis   string `json:"redis"`
	Asynq   string `json:"asynq"`
	Commit  string `json:"commit"`
	Date    string `json:"date"`
	Command string `json:"command"`
}

// ThisMachine fills in all but the version of Redis. args are the arguments of the
// benchmark. What cannot be found out is "unknown".
func ThisMachine(ctx context.Context, args []string) Machine {
	load, _, _ := strings.Cut(fileText("/proc/loadavg"), " ")
	return Machine{
		CPU:     cpuModel(fileText("/proc/cpuinfo")),
		Cores:   runtime.NumCPU(),
		Kernel:  fileText("/proc/sys/kernel/osrelease"),
		Load:    load,
		Go:      runtime.Version(),
		Asynq:   moduleVersion("github.com/hibiken/asynq"),
		Commit:  commit(ctx),
		Date:    time.Now().UTC().Format(time.RFC3339),
		Command: strings.Join(append([]string{"bench"}, args...), " "),
	}
}

const unknown = "unknown"

func fileText(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return unknown
	}
	return strings.TrimSpace(string(text))
}

// cpuModel reads the text of /proc/cpuinfo.
func cpuModel(cpuinfo string) string {
	for line := range strings.Lines(cpuinfo) {
		name, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return unknown
}

func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	for _, dependency := range info.Deps {
		if dependency.Path == path {
			return dependency.Version
		}
	}
	return unknown
}

// commit is that of the working tree, with a mark if there are changes since.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty", "--exclude=*").Output()
	if err != nil {
		return unknown
	}
	return strings.TrimSpace(string(out))
}
