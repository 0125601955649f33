package wire

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// readings are of servers whose clocks are behind this machine's by so much.
func readings(behind ...time.Duration) *clocks {
	var all []clockReading
	for _, d := range behind {
		now := time.Now()
		all = append(all, clockReading{redis: now.Add(-d), here: now})
	}
	c := &clocks{}
	c.last.Store(&all)
	return c
}

func TestOfSeveralClocksTheMiddleOneHoldsAndTheWorstOneIsTold(t *testing.T) {
	for _, row := range []struct {
		behind        []time.Duration // in order
		middle, worst time.Duration
	}{
		{[]time.Duration{0}, 0, 0},
		{[]time.Duration{-10 * time.Second, 0, time.Second}, 0, -10 * time.Second},
		{[]time.Duration{-time.Second, 0, 7 * time.Second}, 0, 7 * time.Second},
		{[]time.Duration{100 * time.Second, 100 * time.Second, 110 * time.Second}, 100 * time.Second, 110 * time.Second},
	} {
		c := readings(row.behind...)
		middle, _ := c.middle()
		worst, _ := c.worst()
		if got := middle.offset(); (got - row.middle).Abs() > time.Second/2 {
			t.Errorf("%v: the middle is %s, want %s", row.behind, got, row.middle)
		}
		if got := worst.offset(); (got - row.worst).Abs() > time.Second/2 {
			t.Errorf("%v: the worst is %s, want %s", row.behind, got, row.worst)
		}
	}
	if _, ok := (&clocks{}).middle(); ok {
		t.Error("nothing was compared and there is a middle")
	}
}

func TestClocksThatDifferAreToldAtAChangeAndNowAndThen(t *testing.T) {
	var said bytes.Buffer
	w := clockWatch{log: slog.New(slog.NewTextHandler(&said, nil))}
	start := time.Now()
	for _, row := range []struct {
		at            time.Duration
		offset, doubt time.Duration
		want          string // what a line has, or that there is none
	}{
		{0, 0, 0, ""},
		{10 * time.Second, 900 * time.Millisecond, 0, ""},
		{20 * time.Second, 1200 * time.Millisecond, 400 * time.Millisecond, ""}, // who knows
		{30 * time.Second, 1200 * time.Millisecond, 0, "level=WARN"},
		{40 * time.Second, 1300 * time.Millisecond, 0, ""},
		{50 * time.Second, -45 * time.Second, 0, "offset=-45s redis=10.0.0.7:6379"},
		{60 * time.Second, -45 * time.Second, 0, ""},
		{5 * time.Minute, -45 * time.Second, 0, ""},
		{50*time.Second + 5*time.Minute, -45 * time.Second, 0, "level=WARN"},
		{6 * time.Minute, 10 * time.Millisecond, 0, "agrees"},
		{7 * time.Minute, 10 * time.Millisecond, 0, ""},
	} {
		said.Reset()
		now := time.Now()
		w.see(clockReading{server: "10.0.0.7:6379", redis: now.Add(-row.offset), here: now, doubt: row.doubt}, start.Add(row.at))
		// The reading is some microseconds old.
		got := strings.ReplaceAll(said.String(), "offset=-44.999s", "offset=-45s")
		if row.want == "" && got != "" || !strings.Contains(got, row.want) {
			t.Errorf("after %s with %s: it says %q, want %q", row.at, row.offset, got, row.want)
		}
	}
}
