package worker

import (
	"testing"
	"time"
)

func TestRetryAfterInBothForms(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"":                              0,
		"0":                             0,
		"90":                            90 * time.Second,
		"Sun, 22 Nov 2026 10:01:30 GMT": 90 * time.Second,
		"Sun, 22 Nov 2026 09:00:00 GMT": 0,
		"Sun, 22 Nov 2036 10:00:00 GMT": 24 * time.Hour,
		"tomorrow":                      0,
	} {
		if got := RetryAfter(header, now); got != want {
			t.Errorf("%q is %s, want %s", header, got, want)
		}
	}
}
