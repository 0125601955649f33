package worker

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"batchreset/tasks"
)

const (
	// suspectFor is how long a task must look as if nobody had it in hand before it is taken
	// over: longer than the five seconds in which a living asynq server says what it works on.
	// With the ten and twenty seconds for which Redis keeps the signs of life of a server
	// and of a worker, and the five between two looks, a take-over comes within 40 s of a
	// death.
	suspectFor = 10 * time.Second
	// suspectGap is the longest time between two looks that count as one observation. After a
	// longer gap, Redis or this process was away, and the signs of life may have lapsed only
	// because of that.
	suspectGap = 10 * time.Second
)

// suspects are active tasks without a sign that anybody works on them. How long that is so is
// measured by this process alone: no clock of another machine is trusted.
type suspects struct {
	ripeAfter time.Duration
	looked    time.Time
	since     map[suspect]time.Time
}

type suspect struct {
	task     string
	handling int64
}

func newSuspects() suspects { return suspects{ripeAfter: suspectFor, since: map[suspect]time.Time{}} }

func (s *suspects) forget() { clear(s.since) }

// see takes in what a look has shown, and returns those that have been seen for long enough.
func (s *suspects) see(seen []suspect, now time.Time) map[string]bool {
	if now.Sub(s.looked) > suspectGap {
		s.forget()
	}
	s.looked = now
	before := s.since
	s.since = make(map[suspect]time.Time, len(seen))
	ripe := map[string]bool{}
	for _, one := range seen {
		since, known := before[one]
		if !known {
			since = now
		}
		s.since[one] = since
		if now.Sub(since) >= s.ripeAfter {
			ripe[one.task] = true
		}
	}
	return ripe
}

// takeOver delivers the items anew whose worker has died, long before asynq would.
// asynq gives the dead worker's task to someone later; begin refuses it then.
func (s *Sweeper) takeOver(ctx context.Context) {
	idle := s.idle(ctx)
	seen := make([]suspect, len(idle))
	for i, task := range idle {
		seen[i] = suspect{task.ID, task.Handling}
	}
	ripe := s.suspects.see(seen, time.Now())
	if len(ripe) == 0 {
		return
	}
	inHand, err := s.store.InHand(ctx)
	if err != nil {
		s.trouble(ctx, stepHolder, err)
		return
	}
	idle = slices.DeleteFunc(idle, func(t tasks.ActiveTask) bool { return !ripe[t.ID] || inHand[t.ID] })
	s.takeOverAll(ctx, idle)
}

// idle are the active tasks of open items that no living worker is known to have begun.
func (s *Sweeper) idle(ctx context.Context) []tasks.ActiveTask {
	queues, err := s.queues(ctx)
	if err != nil {
		s.trouble(ctx, stepQueues, err)
	}
	var idle []tasks.ActiveTask
	for _, queue := range queues {
		active, err := s.store.Active(ctx, queue)
		if err != nil {
			s.trouble(ctx, stepActive, err, slog.String("queue", queue))
		}
		for some := range slices.Chunk(active, 1000) {
			idle = append(idle, s.idleOf(ctx, some)...)
		}
	}
	return idle
}

func (s *Sweeper) idleOf(ctx context.Context, active []tasks.ActiveTask) (idle []tasks.ActiveTask) {
	deliveries := make([]tasks.Delivery, len(active))
	for i, task := range active {
		deliveries[i] = task.Delivery
	}
	for i, hold := range s.store.Holds(ctx, deliveries) {
		if hold.Err != nil {
			s.trouble(ctx, stepHolder, hold.Err, slog.String("item", deliveries[i].ItemID))
		} else if hold.Open && !hold.Alive {
			idle = append(idle, active[i])
		}
	}
	return idle
}

// takeOverAll delivers the items of the tasks again, job by job.
func (s *Sweeper) takeOverAll(ctx context.Context, idle []tasks.ActiveTask) {
	byJob := map[string][]tasks.Delivery{}
	for _, task := range idle {
		id, _, _ := tasks.ParseItemID(task.Delivery.ItemID)
		byJob[id] = append(byJob[id], task.Delivery)
	}
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(byJob)), sliceSize) {
		reads := s.store.Records(ctx, ids)
		sideBySide(len(ids), func(i int) {
			switch read := reads[i]; {
			case errors.Is(read.Err, tasks.JobGone):
			case read.Err != nil:
				s.trouble(ctx, stepRead, read.Err, slog.String("job", ids[i]))
			default:
				for _, d := range byJob[ids[i]] {
					s.redeliver(ctx, read.Job, d, tasks.Orphaned)
				}
			}
		})
	}
}
