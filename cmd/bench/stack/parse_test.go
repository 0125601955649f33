package stack

import (
	"strings"
	"testing"
	"time"
)

func TestCPUTime(t *testing.T) {
	// A command may have spaces and parentheses in its name.
	stat := "4242 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 4 0 100"
	if got, err := statCPU(stat); err != nil || got != 2*time.Second {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "1 (a) S 1 2", "1 (a) S 1 2 3 4 5 6 7 8 9 10 x 50 0"} {
		if got, err := statCPU(bad); err == nil {
			t.Errorf("%q gives %v", bad, got)
		}
	}
}

func TestStatusBytes(t *testing.T) {
	const status = "Name:\tworker\nVmHWM:\t   20480 kB\nVmRSS:\t   10240 kB\n"
	if got, err := statusBytes(status, "VmHWM"); err != nil || got != 20<<20 {
		t.Errorf("got %d, %v", got, err)
	}
	if _, err := statusBytes(status, "VmSwap"); err == nil {
		t.Error("a field that is missing is found")
	}
	if _, err := statusBytes(status, "Name"); err == nil {
		t.Error("a name is a number")
	}
}

func TestInfoField(t *testing.T) {
	const info = "# CPU\r\nused_cpu_sys:1.5\r\nused_cpu_user:2.5\r\nused_cpu_user_children:9\r\n"
	if got, err := infoField(info, "used_cpu_user"); err != nil || got != "2.5" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := infoField(info, "used_cpu"); err == nil {
		t.Error("half a name is found")
	}
}

func TestCommandStatistics(t *testing.T) {
	costs, err := parseCommands("# Commandstats\r\n" +
		"cmdstat_lrem:calls=20,usec=30,usec_per_call=1.50,rejected_calls=0,failed_calls=0\r\n" +
		"cmdstat_config|resetstat:calls=1,usec=90,usec_per_call=90.00\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(costs) != 2 || costs[0] != (CommandCost{"lrem", 20, 30}) || costs[1].Name != "config|resetstat" {
		t.Errorf("got %+v", costs)
	}
	lines := strings.Split(CommandTable(costs, 10), "\n")
	if got := strings.Join(strings.Fields(lines[2]), " "); got != "lrem 2.000 1.50 3.00" {
		t.Errorf("the second most expensive is %q in %q", got, lines)
	}
	if _, err := parseCommands("cmdstat_lrem:calls=many,usec=1"); err == nil {
		t.Error("a count that is none is read")
	}
}

func TestTheUsageOfAnAPI(t *testing.T) {
	got, err := parseUsage("# HELP go_goroutines Number of goroutines.\n# TYPE go_goroutines gauge\ngo_goroutines 20018\n" +
		"batchreset_waiting_requests{kind=\"poll\"} 5000\nbatchreset_waiting_requests{kind=\"stream\"} 4999\n" +
		"process_resident_memory_bytes 4.06786048e+08\nprocess_resident_memory_bytes_else 1\n")
	if want := (Usage{Waiters: 9999, Goroutines: 20018, Memory: 406786048}); got != want || err != nil {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	if _, err := parseUsage("go_goroutines 3\n"); err == nil {
		t.Error("metrics without memory are taken")
	}
}
