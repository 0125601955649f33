package main

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	for _, row := range []struct {
		name string
		r    result
		want verdict
	}{
		{"a median above a least value", result{Rounds: []float64{0.5, 0.7, 0.8}, Target: atLeast(0.6)}, met},
		{"a median at a least value", result{Rounds: []float64{0.6}, Target: atLeast(0.6)}, met},
		{"a median above the stretch target", result{Rounds: []float64{0.9}, Target: atLeast(0.6), Stretch: 0.8}, stretch},
		{"a best round that reaches a least value", result{Rounds: []float64{0.4, 0.5, 0.61}, Target: atLeast(0.6)}, noise},
		{"no round that reaches a least value", result{Rounds: []float64{0.4, 0.5, 0.59}, Target: atLeast(0.6)}, missed},
		{"a median below a highest value", result{Rounds: []float64{10, 12, 99}, Target: atMost(15)}, met},
		{"a best round below a highest value", result{Rounds: []float64{14, 16, 17}, Target: atMost(15)}, noise},
		{"no round below a highest value", result{Rounds: []float64{16, 17, 18}, Target: atMost(15)}, missed},
		{"no target", result{Rounds: []float64{1}}, untold},
		{"no figure", result{Target: atMost(15)}, failed},
		{"a figure that is none", result{Rounds: []float64{math.NaN()}, Target: atMost(15)}, failed},
		{"a failure", result{Rounds: []float64{1}, Target: atMost(15), Failure: "no Redis"}, failed},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := row.r.verdict(); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestComplaint(t *testing.T) {
	fine := result{Row: "submit", What: "a", Rounds: []float64{1}, Target: atLeast(1)}
	late := result{Row: "start", What: "b", Rounds: []float64{9}, Target: atMost(1)}
	lost := result{Row: "polls", What: "c", Failure: "no Redis"}
	if err := complaint([]result{fine}); err != nil {
		t.Errorf("complains of %v", err)
	}
	if err := complaint([]result{fine, late}); err == nil || err.Error() != "a target was missed: start (b)" {
		t.Errorf("complains of %v", err)
	}
	if err := complaint([]result{late, lost}); err == nil || err.Error() != "2 targets were missed: start (b), polls (c)" {
		t.Errorf("complains of %v", err)
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	if err := table(&out, machine{CPU: "Abacus", Cores: 2}, []result{
		{Row: "submit", What: "one api", Unit: "x", Rounds: []float64{0.7, 0.65, 0.81}, Target: atLeast(0.6), Stretch: 0.8, Note: "noted"},
		{Row: "start", What: "first task", Unit: "ms", Target: atMost(300), Failure: "no worker"},
	}); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"Abacus, 2 cores",
		"1 submit one api 0.70 x 0.65 .. 0.81 >= 0.60, stretch 0.80 met",
		"2 start first task - - <= 300 FAILED",
		"1: noted",
		"2: no figure: no worker",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestAReportCanAlwaysBeWritten(t *testing.T) {
	text, err := json.Marshal(report{Results: []judged{
		judge(result{Row: "submit", Rounds: []float64{math.NaN()}}),
		judge(result{Row: "drain", Rounds: []float64{1, 3}, Target: atLeast(2)}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"verdict":"FAILED"`, `"spread":{"median":2,"min":1,"max":3},"verdict":"met"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}
