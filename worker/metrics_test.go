package worker

import (
	"context"
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"batchreset/tasks"
)

// measured is what Prometheus would read of a worker: its gauges, and the number of
// attempts by outcome.
func measured(t *testing.T, w *Worker) (slots, busy float64, attempts map[string]uint64) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	attempts = map[string]uint64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			switch family.GetName() {
			case "batchreset_worker_slots":
				slots = m.GetGauge().GetValue()
			case "batchreset_worker_slots_busy":
				busy = m.GetGauge().GetValue()
			case "batchreset_attempt_duration_seconds":
				attempts[m.GetLabel()[1].GetValue()] = m.GetHistogram().GetSampleCount()
			}
		}
	}
	return slots, busy, attempts
}

func TestAttemptsAreMeasuredByOutcome(t *testing.T) {
	for _, row := range []struct {
		name, outcome string
		err           error
	}{
		{"success", "succeeded", nil},
		{"a failure that is tried again", "retry", &DriverError{Verdict: Retryable}},
		{"a failure for good", "failed", &DriverError{Verdict: Permanent}},
		{"no answer", "unknown", &DriverError{Verdict: Unknown}},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newBench(t, driverFunc(func(context.Context, Attempt) error { return row.err }))
			_ = b.deliver(t, b.submit(t, "phone-1")) // the other tests are about what it returns
			want := map[string]uint64{"succeeded": 0, "retry": 0, "failed": 0, "unknown": 0}
			want[row.outcome] = 1
			if _, _, got := measured(t, b.Worker); !maps.Equal(got, want) {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestBusySlotsAreCounted(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	b := newBench(t, driverFunc(func(context.Context, Attempt) error {
		entered <- struct{}{}
		<-release
		return nil
	}))
	job := b.submit(t, "phone-1", "phone-2")
	stop := b.start(t)
	<-entered
	<-entered
	if slots, busy, _ := measured(t, b.Worker); slots != 8 || busy != 2 {
		t.Errorf("%v of %v slots are busy, want 2 of 8", busy, slots)
	}
	close(release)
	b.waitFinal(t, job)
	stop()
	if _, busy, _ := measured(t, b.Worker); busy != 0 {
		t.Errorf("%v slots are busy after the end", busy)
	}
}

// counted are the counters of a worker, by name and label values; what is 0 is left out.
func counted(t *testing.T, w *Worker) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counters := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			if n := m.GetCounter().GetValue(); n != 0 {
				counters[name] = n
			}
		}
	}
	return counters
}

func TestItIsCountedHowDoubtEnds(t *testing.T) {
	for name, row := range map[string]struct {
		begun tasks.Begun
		r     result
		want  string
	}{
		"a look shows the reset":              {tasks.Begun{}, result{resolved: true}, "look"},
		"the control plane tells of the call": {tasks.Begun{Ambiguous: true, Checkpoint: "job 7"}, result{}, "poll"},
		"it answers a repeat":                 {tasks.Begun{Ambiguous: true}, result{}, "repeat"},
		"it has failed, by its own word":      {tasks.Begun{Ambiguous: true, Checkpoint: "job 7"}, result{err: &DriverError{Verdict: Retryable, EndsDoubt: true}}, "poll"},
		"a refusal says nothing about it":     {tasks.Begun{Ambiguous: true}, result{err: &DriverError{Verdict: Permanent}}, ""},
		"it is still in doubt":                {tasks.Begun{Ambiguous: true}, result{err: &DriverError{Verdict: Unknown}}, ""},
		"nothing was in doubt":                {tasks.Begun{}, result{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, driverFunc(func(context.Context, Attempt) error { return nil }))
			a := &attempt{Worker: b.Worker, equipment: b.drivers[tasks.DefaultDriver], begun: row.begun}
			a.noteResolved(row.r)
			want := map[string]float64{}
			if row.want != "" {
				want["batchreset_doubts_resolved_total default "+row.want] = 1
			}
			if got := counted(t, b.Worker); !maps.Equal(got, want) {
				t.Errorf("counted %v, want %v", got, want)
			}
		})
	}
}
