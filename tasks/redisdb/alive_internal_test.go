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
		back      bool
	}
	for _, row := range []struct {
		name string
		seen []seen
	}{
		{"all is there", []seen{{1, 0, 0, false}, {2, 3 * time.Second, 0, false}, {3, time.Hour, 0, false}}},
		{"a beat was sent twice", []seen{{1, 0, 0, false}, {3, 3 * time.Second, 0, false}, {4, 6 * time.Second, 0, false}}},
		{"the last beat is forgotten", []seen{{1, 0, 0, false}, {2, 3 * time.Second, 0, false}, {3, 6 * time.Second, 0, false}, {3, 9 * time.Second, 0, true}, {4, 12 * time.Second, 0, false}}},
		{"five beats are, and after that all is there", []seen{
			{1, 0, 0, false},
			{2, 3 * time.Second, 0, false},
			{3, 6 * time.Second, 0, false},
			{4, 9 * time.Second, 0, false},
			{5, 12 * time.Second, 0, false},
			{6, 15 * time.Second, 0, false},
			{2, 20 * time.Second, 12 * time.Second, true},
			{3, 23 * time.Second, 0, false},
			{4, 26 * time.Second, 0, false},
		}},
		{"all beats are", []seen{{1, 0, 0, false}, {2, 3 * time.Second, 0, false}, {3, time.Minute, 0, false}, {1, 2 * time.Minute, time.Minute, true}, {2, 3 * time.Minute, 0, false}}},
		{"twice", []seen{{7, 0, 0, false}, {8, time.Minute, 0, false}, {7, 2 * time.Minute, time.Minute, true}, {8, 3 * time.Minute, 0, false}, {7, 4 * time.Minute, time.Minute, true}}},
		{"a pause forgets nothing", []seen{{1, 0, 0, false}, {2, 24 * time.Hour, 0, false}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			m, start := memory{}, time.Now()
			for _, s := range row.seen {
				got, back := m.note(s.number, start.Add(s.after))
				if got != s.forgotten || back != s.back {
					t.Errorf("beat %d after %s: %s are forgotten, %t; want %s, %t", s.number, s.after, got, back, s.forgotten, s.back)
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
	if got, _ := m.note(1, start.Add(time.Hour)); got != (remembered-1)*time.Second {
		t.Errorf("%s are forgotten, want all that is remembered", got)
	}
}
