package requeue

import (
	"testing"
	"time"
)

func TestJitterUsesTheWholeRange(t *testing.T) {
	low, high := time.Hour, time.Duration(0)
	for range 10_000 {
		d := Jitter(time.Second)
		low, high = min(low, d), max(high, d)
	}
	if low < 1 || low > 10*time.Millisecond || high < 990*time.Millisecond || high > time.Second {
		t.Errorf("from %s to %s", low, high)
	}
}

func TestDelaysEndOnWholeSecondsAndNeverEarly(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 300_000_000, time.UTC)
	for _, row := range []struct{ delay, want time.Duration }{
		{0, 700 * time.Millisecond},
		{700 * time.Millisecond, 700 * time.Millisecond},
		{701 * time.Millisecond, 1700 * time.Millisecond},
		{time.Minute, time.Minute + 700*time.Millisecond},
	} {
		if got := wholeSeconds(now, row.delay); got != row.want {
			t.Errorf("%s becomes %s, want %s", row.delay, got, row.want)
		}
	}
}
