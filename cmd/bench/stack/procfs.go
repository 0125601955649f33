package stack

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"batchreset/cmd/harness"
)

// CPUTime is the processor time that a process has used so far.
func CPUTime(p *harness.Process) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0, err
	}
	return statCPU(string(stat))
}

// RSS is the resident memory of a process, in bytes.
func RSS(p *harness.Process) (int64, error) { return status(p, "VmRSS") }

// PeakRSS is the highest resident memory of a process so far, in bytes.
func PeakRSS(p *harness.Process) (int64, error) { return status(p, "VmHWM") }

func status(p *harness.Process, field string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	return statusBytes(string(text), field)
}

// statCPU reads the text of /proc/PID/stat.
func statCPU(stat string) (time.Duration, error) {
	// The fields after the command, which stands in parentheses and may contain some.
	end := strings.LastIndex(stat, ") ")
	if end < 0 {
		return 0, errors.New("/proc/PID/stat has no command")
	}
	fields := strings.Fields(stat[end+2:])
	if len(fields) < 13 {
		return 0, errors.New("/proc/PID/stat is short")
	}
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/PID/stat: %w", err)
		}
		ticks += n
	}
	const ticksPerSecond = 100 // USER_HZ, the same on every Linux that Go runs on
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// statusBytes reads a field of memory from the text of /proc/PID/status.
func statusBytes(status, field string) (int64, error) {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/PID/status: %w", err)
			}
			return kib << 10, nil
		}
	}
	return 0, fmt.Errorf("/proc/PID/status has no %s", field)
}
