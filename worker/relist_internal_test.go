package worker

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/tasks"
)

// lister counts how often it is asked to list what is open.
type lister struct {
	OpenJobs
	halt  *tasks.Halt
	asked int
	err   error
}

func (l *lister) Relist(context.Context) (int, error) {
	l.asked++
	return 1, l.err
}

func (l *lister) PolicyOf(context.Context, string, string) (tasks.Policy, error) {
	return tasks.Policy{OperatorHalt: l.halt}, nil
}

func TestWhenWhatIsOpenIsListed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lister{}
		s := NewSweeper(SweepStore{OpenJobs: l, AllHalted: l}, nil, slog.New(slog.DiscardHandler))
		halt := func() *tasks.Halt { return &tasks.Halt{Since: tasks.Time{Time: time.Now()}} }
		for _, step := range []struct {
			what string
			do   func()
			want int
		}{
			{"another process leads", func() {}, 0},
			{"this one leads", func() { s.leads.Store(true) }, 1},
			{"it goes on leading", func() {}, 1},
			{"everything is halted", func() { l.halt = halt() }, 2},
			{"it stays halted", func() {}, 2},
			{"it is halted anew, in what was restored", func() { l.halt = halt() }, 3},
			{"it is halted once more, and Redis is away", func() { l.halt, l.err = halt(), errors.New("away") }, 4},
			{"Redis is back", func() { l.err = nil }, 5},
			{"it goes on", func() { l.halt = nil }, 5},
			{"an hour later", func() { time.Sleep(relistEvery) }, 6},
			{"another one led for a time", func() { s.leads.Store(false); _ = s.Relist(t.Context()); s.leads.Store(true) }, 7},
		} {
			time.Sleep(sweepEvery)
			step.do()
			if err := s.Relist(t.Context()); !errors.Is(err, l.err) || l.asked != step.want {
				t.Errorf("%s: looked %d times, %v; want %d", step.what, l.asked, err, step.want)
			}
		}
	})
}
