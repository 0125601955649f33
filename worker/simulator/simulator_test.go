package simulator_test

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"batchreset/worker"
	"batchreset/worker/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// attempt is one that may send.
func attempt(id string, number int) worker.Attempt {
	return worker.Attempt{InstanceID: id, Number: number, MaySend: func() error { return nil }}
}

// outcomes resets a hundred phones, in the order given by from and step.
func outcomes(t *testing.T, cfg simulator.Config, from, step int) map[string]string {
	t.Helper()
	d, err := simulator.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for n := range 100 {
		id := fmt.Sprintf("phone-%d", (from+n*step)%100)
		got[id] = fmt.Sprint(d.Reset(t.Context(), attempt(id, 1)))
	}
	return got
}

func TestTheSameSeedGivesTheSameOutcomesInAnyOrder(t *testing.T) {
	cfg := simulator.Config{FailureRate: 0.5, Seed: 7}
	first, second := outcomes(t, cfg, 0, 1), outcomes(t, cfg, 42, 3)
	if fmt.Sprint(first) != fmt.Sprint(second) {
		t.Error("the outcomes depend on the order")
	}
	cfg.Seed = 8
	if fmt.Sprint(first) == fmt.Sprint(outcomes(t, cfg, 0, 1)) {
		t.Error("the outcomes do not depend on the seed")
	}
	failed := 0
	for _, outcome := range first {
		if strings.Contains(outcome, "CPS.0003") {
			failed++
		}
	}
	if failed < 30 || failed > 70 {
		t.Errorf("%d of 100 failed at a rate of 0.5", failed)
	}
}

func TestRatesOfZeroAndOne(t *testing.T) {
	for id, outcome := range outcomes(t, simulator.Config{}, 0, 1) {
		if outcome != "<nil>" {
			t.Errorf("%s: %s at a rate of 0", id, outcome)
		}
	}
	for id, outcome := range outcomes(t, simulator.Config{FailureRate: 1}, 0, 1) {
		if outcome == "<nil>" {
			t.Errorf("%s succeeded at a rate of 1", id)
		}
	}
}

func TestAResetTakesHalfToOneAndAHalfOfTheLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := simulator.New(simulator.Config{Latency: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		shortest, longest := 2*time.Hour, time.Duration(0)
		for n := range 100 {
			start := time.Now()
			if err := d.Reset(t.Context(), attempt(fmt.Sprint(n), 1)); err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			shortest, longest = min(shortest, took), max(longest, took)
		}
		if shortest < 30*time.Minute || shortest > 40*time.Minute || longest < 80*time.Minute || longest > 90*time.Minute {
			t.Errorf("from %s to %s", shortest, longest)
		}
	})
}

func TestTheNextAttemptHasAnOutcomeOfItsOwn(t *testing.T) {
	d, err := simulator.New(simulator.Config{FailureRate: 0.5})
	if err != nil {
		t.Fatal(err)
	}
	failed := 0
	for n := range 100 {
		if d.Reset(t.Context(), attempt("phone-1", n+1)) != nil {
			failed++
		}
	}
	if failed < 30 || failed > 70 {
		t.Errorf("%d of 100 attempts failed at a rate of 0.5", failed)
	}
}

func TestInstancesHaveACharacter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := simulator.New(simulator.Config{Latency: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		looking := simulator.Looking{Driver: d}
		for _, row := range []struct {
			id       string
			number   int
			fails    bool
			slowly   bool
			seenThen worker.SightState
		}{
			{"phone-1", 1, false, false, worker.Initial},
			{"flaky-1", 1, true, false, worker.Initial},
			{"flaky-1", 2, false, false, worker.Initial},
			{"lies-1", 1, false, false, worker.NotInitial},
			{"slow-1", 1, false, true, worker.Initial},
		} {
			a := attempt(row.id, row.number)
			begin := time.Now()
			err := looking.Reset(t.Context(), a)
			sight, lookErr := looking.Look(t.Context(), a)
			if (err != nil) != row.fails || (time.Since(begin) > 1500*time.Millisecond) != row.slowly || sight.State != row.seenThen || lookErr != nil {
				t.Errorf("%+v: %v after %s, seen %+v", row, err, time.Since(begin), sight)
			}
		}
	})
}

func TestBadSettingsAreNamed(t *testing.T) {
	for want, cfg := range map[string]simulator.Config{
		"latency":      {Latency: -1},
		"failure_rate": {FailureRate: 1.1},
		"hang_rate":    {HangRate: math.NaN()},
	} {
		if _, err := simulator.New(cfg); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
