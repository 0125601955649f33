package report

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	for _, row := range []struct {
		name string
		r    Result
		want Verdict
	}{
		{"a median above a least value", Result{Rounds: []float64{0.5, 0.7, 0.8}, Target: AtLeast(0.6)}, Met},
		{"a median at a least value", Result{Rounds: []float64{0.6}, Target: AtLeast(0.6)}, Met},
		{"a median above the stretch target", Result{Rounds: []float64{0.9}, Target: AtLeast(0.6), Stretch: 0.8}, StretchMet},
		{"a best round that reaches a least value", Result{Rounds: []float64{0.4, 0.5, 0.61}, Target: AtLeast(0.6)}, WithinNoise},
		{"no round that reaches a least value", Result{Rounds: []float64{0.4, 0.5, 0.59}, Target: AtLeast(0.6)}, Missed},
		{"a median below a highest value", Result{Rounds: []float64{10, 12, 99}, Target: AtMost(15)}, Met},
		{"a best round below a highest value", Result{Rounds: []float64{14, 16, 17}, Target: AtMost(15)}, WithinNoise},
		{"no round below a highest value", Result{Rounds: []float64{16, 17, 18}, Target: AtMost(15)}, Missed},
		{"no target", Result{Rounds: []float64{1}}, NoTarget},
		{"no figure", Result{Target: AtMost(15)}, Failed},
		{"a figure that is none", Result{Rounds: []float64{math.NaN()}, Target: AtMost(15)}, Failed},
		{"a failure", Result{Rounds: []float64{1}, Target: AtMost(15), Failure: "no Redis"}, Failed},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := row.r.Verdict(); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

func TestMissedTargetsAreNamed(t *testing.T) {
	fine := Result{Row: "submit", What: "a", Rounds: []float64{1}, Target: AtLeast(1)}
	late := Result{Row: "start", What: "b", Rounds: []float64{9}, Target: AtMost(1)}
	lost := Result{Row: "polls", What: "c", Failure: "no Redis"}
	if err := (Report{Results: []Result{fine}}).Err(); err != nil {
		t.Errorf("complains of %v", err)
	}
	if err := (Report{Results: []Result{fine, late}}).Err(); err == nil || err.Error() != "a target was missed: start (b)" {
		t.Errorf("complains of %v", err)
	}
	if err := (Report{Results: []Result{late, lost}}).Err(); err == nil || err.Error() != "2 targets were missed: start (b), polls (c)" {
		t.Errorf("complains of %v", err)
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	if err := (Report{Machine: Machine{CPU: "Abacus", Cores: 2}, Results: []Result{
		{Row: "submit", What: "one api", Unit: "x", Rounds: []float64{0.7, 0.65, 0.81}, Target: AtLeast(0.6), Stretch: 0.8, Note: "noted"},
		{Row: "start", What: "first task", Unit: "ms", Target: AtMost(300), Failure: "no worker"},
	}}).Table(&out); err != nil {
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
	text, err := json.Marshal(Report{Results: []Result{
		{Row: "submit", Rounds: []float64{math.NaN()}},
		{Row: "drain", Rounds: []float64{1, 3}, Target: AtLeast(2)},
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
