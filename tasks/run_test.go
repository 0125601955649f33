package tasks

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func phones(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("phone-%d", i)
	}
	return list
}

// sizes says how the waves of a run are cut, such as "0:2 1:4 2:5,5".
func sizes(parts []Part) string {
	var waves []string
	last := -1
	for _, p := range parts {
		if p.Wave != last {
			waves, last = append(waves, fmt.Sprintf("%d:%d", p.Wave, len(p.InstanceIDs))), p.Wave
		} else {
			waves[len(waves)-1] += fmt.Sprintf(",%d", len(p.InstanceIDs))
		}
	}
	return strings.Join(waves, " ")
}

func TestHowARunIsCut(t *testing.T) {
	for _, row := range []struct {
		name string
		n    int
		o    RunOptions
		want string
	}{
		{"one", 1, RunOptions{MaxParallel: 3200}, "1:1"},
		{"no canary", 70, RunOptions{MaxParallel: 3200}, "1:32,32,6"},
		{"few at a time", 25, RunOptions{MaxParallel: 10}, "1:10,10,5"},
		{"a canary and waves", 50, RunOptions{MaxParallel: 3200, Canary: 2, Growth: 2}, "0:2 1:4 2:8 3:16 4:20"},
		{"a factor that is not whole", 20, RunOptions{MaxParallel: 3200, Canary: 3, Growth: 1.5}, "0:3 1:5 2:7 3:5"},
		{"no growth", 5, RunOptions{MaxParallel: 3200, Canary: 2, Growth: 1}, "0:2 1:2 2:1"},
		{"a wave as large as may be open", 100, RunOptions{MaxParallel: 10, Canary: 5, Growth: 2}, "0:5 1:10,10,10,10,10,10,10,10,10,5"},
		{"all of it a canary", 40, RunOptions{MaxParallel: 3200, Canary: 40, Growth: 2}, "0:32,8"},
		{"growth without end", 200, RunOptions{MaxParallel: 1_000_000_000, Canary: 1, Growth: 1000}, "0:1 1:32,32,32,32,32,32,7"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := row.o.Check(row.n); err != nil {
				t.Fatal(err)
			}
			list := phones(row.n)
			parts := row.o.Parts(list, nil)
			if got := sizes(parts); got != row.want {
				t.Errorf("cut as %s, want %s", got, row.want)
			}
			var all []string
			for _, p := range parts {
				all = append(all, p.InstanceIDs...)
			}
			if !slices.Equal(all, list) {
				t.Error("they are not all, or not in order")
			}
		})
	}
}

func TestOptionsOfARunThatCannotBe(t *testing.T) {
	for want, o := range map[string]RunOptions{
		"max_parallel must be from 1":                    {},
		"canary must not be negative":                    {MaxParallel: 1, Canary: -1},
		"canary is 11, and the list has 10":              {MaxParallel: 1, Canary: 11, Growth: 2},
		"soak needs a canary":                            {MaxParallel: 1, Soak: Duration(time.Second)},
		"soak must be from 0s to 7 days":                 {MaxParallel: 1, Canary: 1, Growth: 2, Soak: Duration(MaxSoak + 1)},
		"soak must be 0s, or at least 1ms":               {MaxParallel: 1, Canary: 1, Growth: 2, Soak: Duration(time.Microsecond)},
		"growth needs a canary":                          {MaxParallel: 1, Growth: 2},
		"growth must be from 1 to 1000":                  {MaxParallel: 1, Canary: 1, Growth: 0.5},
		"max_parallel must be from 1 to " + "1000000000": {MaxParallel: 1_000_000_001},
	} {
		if err := o.Check(10); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", o, err, want)
		}
	}
}

func TestBudget(t *testing.T) {
	for text, json := range map[string]string{"0": "0", "7": "7", "2%": `"2%"`, "0.5%": `"0.5%"`, "100%": `"100%"`} {
		b, err := ParseBudget(text)
		if got := encode(t, b); err != nil || got != json || b.String() != text {
			t.Errorf("%s is %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"-1", "1.5", "101%", "-1%", "%", "NaN%", "1e1%", "+1%", "x", "1 %", "2%%", "Inf%", "0x1p3%"} {
		if b, err := ParseBudget(text); err == nil {
			t.Errorf("%q is taken for %+v", text, b)
		}
	}
	for _, row := range []struct {
		budget          string
		failures, ended int
		want            bool
	}{
		{"", 1000, 1000, false},
		{"0", 0, 10, false},
		{"0", 1, 1, true},
		{"5", 5, 5, false},
		{"5", 6, 6, true},
		{"10%", 19, 19, false},
		{"10%", 2, 20, false},
		{"10%", 3, 20, true},
		{"0%", 1, 19, false},
		{"0%", 1, 20, true},
		{"100%", 50, 50, false},
	} {
		b, err := ParseBudget(row.budget)
		if err != nil || b.Exceeded(row.failures, row.ended) != row.want {
			t.Errorf("%+v: %v", row, err)
		}
	}
}

func encode(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheSumOfARun(t *testing.T) {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	run := Run{
		State: RunRunning, Total: 100, Parts: 4, Next: 3, Wave: 1, RoundAt: Time{start}, Open: map[int]int{1: 32, 2: 32},
		Closed: Counts{Succeeded: 30, Failed: 2}, Codes: map[Code]int{"A": 1, "B": 1},
	}
	items := []Item{{State: ItemFailed, Code: "B"}, {State: ItemUnknown, Code: "C"}, {State: ItemSucceeded}}
	for len(items) < 32 {
		items = append(items, Item{State: ItemRunning})
	}
	sum := run.Sum(map[int]Job{1: {Items: items, Counts: Count(items)}}, start.Add(10*time.Second))
	if want := (Counts{Pending: 36, Running: 29, Succeeded: 31, Failed: 3, Unknown: 1}); sum.Counts != want {
		t.Errorf("counts %+v, want %+v", sum.Counts, want)
	}
	if run.MaxFailures, _ = ParseBudget("50%"); run.Sum(nil, start).BudgetUsed != 2 {
		t.Errorf("budget used %d", run.Sum(nil, start).BudgetUsed)
	}
	if want := []RunFailure{{"B", 2}, {"A", 1}, {"C", 1}}; !slices.Equal(sum.Failures, want) {
		t.Errorf("failures %+v", sum.Failures)
	}
	if sum.Stage != "wave 1" || sum.RatePerSecond != 3.5 || !sum.EstimatedFinishAt.Equal(start.Add(10*time.Second+time.Duration(65/sum.RatePerSecond*float64(time.Second)))) {
		t.Errorf("stage %s, rate %v, finish %v", sum.Stage, sum.RatePerSecond, sum.EstimatedFinishAt)
	}
	run.Cancelled = true
	if sum := run.Sum(nil, start); sum.Counts.Cancelled != 4 || sum.Counts.Pending != 64 || sum.Stage != "draining" {
		t.Errorf("cancelled it is %+v", sum)
	}
}

func TestTheFingerprintOfARun(t *testing.T) {
	seen := map[string]int{}
	budget, _ := ParseBudget("2%")
	for i, s := range []RunSubmission{
		{Tenant: "acme", InstanceIDs: []string{"a", "b"}},
		{Tenant: "acme", InstanceIDs: []string{"b", "a"}},
		{Tenant: "other", InstanceIDs: []string{"a", "b"}},
		{Tenant: "acme", InstanceIDs: []string{"a", "b"}, Name: "x"},
		{Tenant: "acme", InstanceIDs: []string{"a", "b"}, Reason: "x"},
		{Tenant: "acme", InstanceIDs: []string{"a", "b"}, Labels: map[string]string{"x": "y"}},
		{Tenant: "acme", InstanceIDs: []string{"a", "b"}, Options: RunOptions{MaxParallel: 2}},
		{Tenant: "acme", InstanceIDs: []string{"a", "b"}, Options: RunOptions{Canary: 1}},
		{Tenant: "acme", InstanceIDs: []string{"a", "b"}, Options: RunOptions{Soak: 1}},
		{Tenant: "acme", InstanceIDs: []string{"a", "b"}, Options: RunOptions{Growth: 3}},
		{Tenant: "acme", InstanceIDs: []string{"a", "b"}, Options: RunOptions{MaxFailures: budget}},
		{Tenant: "acme", InstanceIDs: []string{"a", "b"}, NotBefore: FromMillis(1)},
	} {
		f := s.Fingerprint()
		if other, twice := seen[f]; twice {
			t.Errorf("%d is the same request as %d", i, other)
		}
		seen[f] = i
	}
	same := RunSubmission{Tenant: "acme", InstanceIDs: []string{"a", "b"}, RequestID: "r", By: "x", Repeats: 3}
	if _, known := seen[same.Fingerprint()]; !known {
		t.Error("who asks, and how often an instance is named, makes another request")
	}
}

// A run whose jobs are held says so, or it would look as if it went on.
func TestARunIsHeldByWhatHoldsItsJobs(t *testing.T) {
	at := func(minute int) Time { return Time{time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC)} }
	jobs := map[int]Job{
		0: {Counts: Counts{Running: 1}},
		1: {Counts: Counts{Pending: 1}, Held: Held{"the driver ghost has no worker", at(2)}},
		2: {Counts: Counts{Pending: 1}, Held: Held{"halted", at(1)}},
	}
	r := Run{State: RunRunning, Total: 3, Parts: 3, Next: 3, Open: map[int]int{0: 1, 1: 1, 2: 1}}
	free := r.Sum(nil, at(3).Time)
	if held := r.Sum(jobs, at(3).Time); held.Held != jobs[2].Held || held.Tag() == free.Tag() || free.Held.Reason != "" {
		t.Errorf("held %+v, %+v", held.Held, free.Held)
	}
	r.State, r.Held = RunPaused, Held{"paused by hand", at(3)}
	if held := r.Sum(jobs, at(3).Time); held.Held != r.Held {
		t.Errorf("held %+v", held.Held)
	}
}
