package ops

import (
	"fmt"
	"strings"
	"testing"

	"batchreset/tasks"
)

func TestWavesOfARun(t *testing.T) {
	canary := tasks.RunOptions{MaxParallel: 320, Canary: 10, Growth: 2}
	for _, row := range []struct {
		name string
		run  tasks.Run
		want string
	}{
		{"one wave", tasks.Run{Total: 100, RunOptions: tasks.RunOptions{MaxParallel: 10}}, ""},
		{"all of it a canary", tasks.Run{Total: 10, RunOptions: canary}, ""},
		{
			"before it begins",
			tasks.Run{State: tasks.RunWaiting, Total: 100, Counts: tasks.Counts{Pending: 100}, RunOptions: canary},
			"Canary 0/10 later, Wave 1 0/20 later, Wave 2 0/40 later, Wave 3 0/30 later",
		},
		{
			"the canary",
			tasks.Run{State: tasks.RunRunning, Total: 100, Next: 1, Open: map[int]int{0: 10}, Counts: tasks.Counts{Pending: 96, Succeeded: 4}, RunOptions: canary},
			"Canary 4/10 now, Wave 1 0/20 later, Wave 2 0/40 later, Wave 3 0/30 later",
		},
		{
			"the second",
			tasks.Run{State: tasks.RunPaused, Total: 100, Next: 4, Wave: 2, Open: map[int]int{2: 32, 3: 8}, Closed: tasks.Counts{Succeeded: 30}, Counts: tasks.Counts{Pending: 68, Succeeded: 31, Failed: 1}, RunOptions: canary},
			"Canary 10/10 done, Wave 1 20/20 done, Wave 2 2/40 now, Wave 3 0/30 later",
		},
		{
			"cancelled",
			tasks.Run{State: tasks.RunPartial, Cancelled: true, Total: 100, Next: 2, Wave: 1, Closed: tasks.Counts{Succeeded: 30}, Counts: tasks.Counts{Succeeded: 30, Cancelled: 70}, RunOptions: canary},
			"Canary 10/10 done, Wave 1 20/20 done, Wave 2 0/40 never, Wave 3 0/30 never",
		},
		{"never begun", tasks.Run{State: tasks.RunRejected, Total: 100, Counts: tasks.Counts{Cancelled: 100}, RunOptions: canary}, ""},
		{
			"another round",
			tasks.Run{State: tasks.RunRunning, Total: 1000, Next: 41, Retries: []tasks.RunRetry{{First: 40}}, Before: tasks.Counts{Succeeded: 985}, Closed: tasks.Counts{Succeeded: 985}, Open: map[int]int{40: 10}, Counts: tasks.Counts{Succeeded: 988, Pending: 12}, RunOptions: canary},
			"Canary 3/10 now, Wave 1 0/5 later",
		},
		{
			"very many",
			tasks.Run{State: tasks.RunRunning, Total: 1000, Next: 100, Wave: 99, Closed: tasks.Counts{Succeeded: 99}, Open: map[int]int{99: 1}, Counts: tasks.Counts{Succeeded: 99, Pending: 901}, RunOptions: tasks.RunOptions{MaxParallel: 320, Canary: 1, Growth: 1}},
			"Canary 1/1 done, Waves 1 to 95 95/95 done, Wave 96 1/1 done, Wave 97 1/1 done, Wave 98 1/1 done, Wave 99 0/1 now, Wave 100 0/1 later, Wave 101 0/1 later, Wave 102 0/1 later, Waves 103 to 998 0/896 later, Wave 999 0/1 later",
		},
	} {
		var got []string
		for _, w := range wavesOf(row.run) {
			got = append(got, fmt.Sprintf("%s %d/%d %s", w.Name(), w.Ended, w.Size, w.State))
			if w.Width() < 1 || w.Width() > 8 {
				t.Errorf("%s: %+v is %d wide", row.name, w, w.Width())
			}
		}
		if text := strings.Join(got, ", "); text != row.want {
			t.Errorf("%s:\n%s, want\n%s", row.name, text, row.want)
		}
	}
}

func TestTheSharesOfABarFillIt(t *testing.T) {
	for _, counts := range []tasks.Counts{
		{},
		{Pending: 1},
		{Succeeded: 99_999, Failed: 1},
		{Pending: 1, Running: 1, Retrying: 1, Succeeded: 1, Failed: 1, Unknown: 1, Cancelled: 1},
		{Pending: 100_000, Running: 1, Retrying: 1, Succeeded: 1, Failed: 1, Unknown: 1, Cancelled: 1},
	} {
		x := 0
		for _, s := range sharesOf(counts) {
			if s.X != x || s.Width < minShare || s.Count == 0 {
				t.Errorf("%+v: share %+v begins not at %d", counts, s, x)
			}
			x += s.Width
		}
		if x != barLength && counts.Total() > 0 {
			t.Errorf("%+v: %d long", counts, x)
		}
	}
}

func TestNumbersForPeople(t *testing.T) {
	for n, want := range map[int]string{0: "0 instances", 1: "1 instance", 999: "999 instances", 4312: "4,312 instances", 100_000: "100,000 instances", 1_234_567: "1,234,567 instances"} {
		if got := instances(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
}
