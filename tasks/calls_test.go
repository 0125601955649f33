package tasks_test

import (
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
)

func latenciesOf(durations ...time.Duration) (l tasks.Latencies) {
	for _, d := range durations {
		l[tasks.LatencyBucket(d)]++
	}
	return l
}

func TestQuantilesOfKnownDurations(t *testing.T) {
	var durations []time.Duration
	for n := range 1000 {
		durations = append(durations, time.Duration(n+1)*10*time.Millisecond) // to 10 s, evenly
	}
	l := latenciesOf(durations...)
	for part, want := range map[float64]time.Duration{.5: 5 * time.Second, .95: 9500 * time.Millisecond, .99: 9900 * time.Millisecond} {
		if got := l.Quantile(part); got < want*9/10 || got > want*11/10 {
			t.Errorf("quantile %v is %s, want %s", part, got, want)
		}
	}
	if l.Count() != 1000 {
		t.Errorf("%d", l.Count())
	}
	for _, d := range []time.Duration{0, time.Microsecond, time.Hour, 100 * time.Hour, -time.Second} {
		one := latenciesOf(d)
		if q := one.Quantile(.5); q <= 0 || q > 71*time.Minute {
			t.Errorf("%s is %s", d, q)
		}
	}
	var none tasks.Latencies
	if none.Quantile(.5) != 0 {
		t.Error("nothing takes some time")
	}
}

// plane makes a control plane with calls of the hour before and of the last minutes.
func plane(before, now tasks.Calls) tasks.ControlPlane {
	p := tasks.ControlPlane{Driver: "lab", Minutes: make([]tasks.Calls, tasks.PlaneMinutes)}
	p.Minutes[0], p.Minutes[tasks.PlaneMinutes-1] = before, now
	return p
}

func resets(n int, took time.Duration) (c tasks.Calls) {
	c.Kinds[tasks.CallDone] = int64(n)
	c.Resets[tasks.LatencyBucket(took)] = int64(n)
	return c
}

func looks(n int, took time.Duration) (c tasks.Calls) {
	c.Looks[tasks.LatencyBucket(took)] = int64(n)
	return c
}

func TestAControlPlaneThatGotSlow(t *testing.T) {
	for _, row := range []struct {
		name string
		tasks.ControlPlane
		want string
	}{
		{"fifteen times", plane(resets(500, 2*time.Second), resets(20, 30*time.Second)), "The control plane of driver lab answers slowly: half of its calls take "},
		{"too few calls", plane(resets(500, 2*time.Second), resets(19, 30*time.Second)), ""},
		{"nothing to compare with", plane(tasks.Calls{}, resets(1000, 30*time.Second)), ""},
		{"too little to compare with", plane(resets(19, 2*time.Second), resets(1000, 30*time.Second)), ""},
		{"twice as long", plane(resets(500, 2*time.Second), resets(1000, 4*time.Second)), ""},
		{"faster", plane(resets(500, 30*time.Second), resets(1000, 2*time.Second)), ""},
		{"what nobody notices", plane(resets(500, time.Millisecond), resets(1000, 50*time.Millisecond)), ""},
		{"looks", plane(looks(500, 100*time.Millisecond), looks(50, 2*time.Second)), "half of its looks take "},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := row.Slow(); row.want == "" && got != "" || !strings.Contains(got, row.want) {
				t.Errorf("says %q", got)
			}
		})
	}
	if got := plane(resets(500, 2*time.Second), resets(20, 30*time.Second)).Slow(); !strings.Contains(got, "times as long as in the hour before (") {
		t.Error(got)
	}
	p := plane(tasks.Calls{}, tasks.Calls{})
	p.Minutes[59], p.Minutes[60] = resets(30, time.Second), resets(30, 10*time.Second) // the border of the two times
	if p.Slow() == "" {
		t.Error("the last five minutes begin elsewhere")
	}
}

func TestUnreachableDrivers(t *testing.T) {
	at := func(second int) tasks.Time { return tasks.FromMillis(int64(second+1) * 1000) }
	worker := func(state tasks.WorkerCondition, open ...tasks.Time) tasks.WorkerView {
		w := tasks.WorkerView{Reports: true}
		w.State = state
		for i, since := range open {
			w.Drivers = append(w.Drivers, tasks.WorkerDriver{Name: string(rune('a' + i)), OpenSince: since})
		}
		return w
	}
	silent, old := worker(tasks.WorkerWorks, tasks.Time{}), worker("", tasks.Time{})
	silent.Silent, old.Reports = time.Minute, false
	for _, row := range []struct {
		name    string
		workers []tasks.WorkerView
		want    map[string]tasks.Time
	}{
		{"nobody", nil, nil},
		{"all of them, since the last one", []tasks.WorkerView{worker(tasks.WorkerWorks, at(5), tasks.Time{}), worker(tasks.WorkerWorks, at(9))}, map[string]tasks.Time{"a": at(9)}},
		{"one of two", []tasks.WorkerView{worker(tasks.WorkerWorks, at(5)), worker(tasks.WorkerWorks, tasks.Time{})}, nil},
		{"one that is quiet reaches nobody", []tasks.WorkerView{worker(tasks.WorkerWorks, at(5)), worker(tasks.WorkerQuiet, tasks.Time{}), worker(tasks.WorkerDrains, tasks.Time{})}, map[string]tasks.Time{"a": at(5)}},
		{"one that is dead", []tasks.WorkerView{worker(tasks.WorkerWorks, at(5)), silent}, map[string]tasks.Time{"a": at(5)}},
		{"one that does not tell", []tasks.WorkerView{worker(tasks.WorkerWorks, at(5)), old}, nil},
	} {
		got := tasks.UnreachableDrivers(row.workers)
		if len(got) != len(row.want) {
			t.Errorf("%s: %v", row.name, got)
		}
		for driver, since := range row.want {
			if !got[driver].Equal(since.Time) {
				t.Errorf("%s: %v", row.name, got)
			}
		}
	}
}

func TestShortDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 ms", 300 * time.Microsecond: "0.3 ms", 12 * time.Millisecond: "12 ms", 1500 * time.Millisecond: "1.5 s", 2 * time.Second: "2 s",
		9940 * time.Millisecond: "9.9 s", 9990 * time.Millisecond: "10 s", 30 * time.Second: "30 s", 90 * time.Second: "90 s", 10 * time.Minute: "10 min",
	} {
		if got := tasks.ShortDuration(d); got != want {
			t.Errorf("%s is %q, want %q", d, got, want)
		}
	}
}

func TestCountingACallMakesNoGarbage(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { tasks.LatencyBucket(1234 * time.Millisecond) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
