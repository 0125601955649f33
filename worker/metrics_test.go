package worker

import (
	"context"
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
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
