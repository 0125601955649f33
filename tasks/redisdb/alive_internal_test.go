package redisdb

import (
	"testing"
	"time"
)

func TestMemory(t *testing.T) {
	type seen struct {
		number    int64
		after     time.Duration // since the first
		forgotten time.Duration
	}
	for _, row := range []struct {
		name string
		seen []seen
	}{
		{"all is there", []seen{{1, 0, 0}, {2, 3 * time.Second, 0}, {3, time.Hour, 0}}},
		{"a beat was sent twice", []seen{{1, 0, 0}, {3, 3 * time.Second, 0}, {4, 6 * time.Second, 0}}},
		{"the last beat is forgotten", []seen{{1, 0, 0}, {2, 3 * time.Second, 0}, {3, 6 * time.Second, 0}, {3, 9 * time.Second, 0}, {4, 12 * time.Second, 0}}},
		{"five beats are, and after that all is there", []seen{
			{1, 0, 0},
			{2, 3 * time.Second, 0},
			{3, 6 * time.Second, 0},
			{4, 9 * time.Second, 0},
			{5, 12 * time.Second, 0},
			{6, 15 * time.Second, 0},
			{2, 20 * time.Second, 12 * time.Second},
			{3, 23 * time.Second, 0},
			{4, 26 * time.Second, 0},
		}},
		{"all beats are", []seen{{1, 0, 0}, {2, 3 * time.Second, 0}, {3, time.Minute, 0}, {1, 2 * time.Minute, time.Minute}, {2, 3 * time.Minute, 0}}},
		{"twice", []seen{{7, 0, 0}, {8, time.Minute, 0}, {7, 2 * time.Minute, time.Minute}, {8, 3 * time.Minute, 0}, {7, 4 * time.Minute, time.Minute}}},
		{"a pause forgets nothing", []seen{{1, 0, 0}, {2, 24 * time.Hour, 0}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			m, start := memory{}, time.Now()
			for _, s := range row.seen {
				if got := m.note(s.number, start.Add(s.after)); got != s.forgotten {
					t.Errorf("beat %d after %s: %s are forgotten, want %s", s.number, s.after, got, s.forgotten)
				}
			}
		})
	}
}

func TestMemoryHasAnEnd(t *testing.T) {
	m, start := memory{}, time.Now()
	for n := range 3 * remembered {
		m.note(int64(n), start.Add(time.Duration(n)*time.Second))
	}
	if len(m.beats) != remembered {
		t.Errorf("%d beats are remembered", len(m.beats))
	}
	if got := m.note(1, start.Add(time.Hour)); got != (remembered-1)*time.Second {
		t.Errorf("%s are forgotten, want all that is remembered", got)
	}
}
