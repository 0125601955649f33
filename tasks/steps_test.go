package tasks

import (
	"slices"
	"testing"
	"time"
)

func TestStepsAreReadAsTheyWereWritten(t *testing.T) {
	s := Steps("").With(StepSent, 120*time.Millisecond).With(StepSaved, -time.Second).With(StepLooked, 2010*time.Millisecond)
	if s != "s120 c0 l2010" {
		t.Errorf("they are %q", s)
	}
	want := []Step{{StepSent, 120 * time.Millisecond}, {StepSaved, 0}, {StepLooked, 2010 * time.Millisecond}}
	if got := s.All(); !slices.Equal(got, want) {
		t.Errorf("read as %v", got)
	}
	for text, n := range map[Steps]int{"": 0, "s": 0, "sx": 0, "z17": 0, "z17 s5": 1, "  s5  l7": 2} {
		if got := text.All(); len(got) != n {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}
