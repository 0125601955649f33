package redisdb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/registry"
	"batchreset/tasks/redisdb/views"
	"batchreset/tasks/redisdb/wire"
)

const sweeperKey = "reset:sweeper"

// Sweep is what the sweeper asks of the store.
type Sweep struct {
	redis    *wire.Client
	attempts *Attempts
	jobs     *views.Jobs
	fleet    *registry.Fleet
	queues   *Queues
}

// Lead makes the process with this token the only sweeper until ttl has passed,
// and reports whether it is.
func (s *Sweep) Lead(ctx context.Context, token string, ttl time.Duration) (bool, error) {
	leads, err := leadScript.Run(ctx, s.redis, []string{sweeperKey}, token, ttl.Milliseconds()).Int()
	if err != nil {
		return false, fmt.Errorf("lead: %w", err)
	}
	return leads == 1, nil
}

// Led reports whether there is a sweeper.
func (s *Sweep) Led(ctx context.Context) (bool, error) {
	n, err := s.redis.Exists(ctx, sweeperKey).Result()
	if err != nil {
		return false, fmt.Errorf("look for the sweeper: %w", err)
	}
	return n > 0, nil
}

// Claim takes open jobs whose sweep is due, the longest waiting first, at most n. Nobody else
// gets them for as long as the claim lasts. It returns the time by Redis's clock, too.
func (s *Sweep) Claim(ctx context.Context, n int, lasts time.Duration) ([]tasks.OpenJob, time.Time, error) {
	a, err := claimScript.Run(ctx, s.redis, []string{codec.OpenKey}, n, lasts.Milliseconds()).Slice()
	if err != nil || len(a) != 2 {
		return nil, time.Time{}, fmt.Errorf("claim open jobs: %w", orOddAnswer(err, a))
	}
	now := time.UnixMilli(codec.Number(a[0]))
	listed, _ := a[1].([]any)
	due := make([]tasks.OpenJob, len(listed))
	for i, id := range listed {
		due[i] = tasks.OpenJob{ID: codec.Text(id), Due: tasks.FromMillis(now.Add(lasts).UnixMilli())}
	}
	return due, now, nil
}

// Reschedule sets the time of a job's next sweep, unless someone has set another
// one since it was read.
func (s *Sweep) Reschedule(ctx context.Context, j tasks.OpenJob, next time.Time) error {
	return s.reschedule(ctx, j, strconv.FormatInt(next.UnixMilli(), 10))
}

// Unlist takes a job that is final, or has no record, out of the open index,
// unless someone has listed it anew since it was read.
func (s *Sweep) Unlist(ctx context.Context, j tasks.OpenJob) error { return s.reschedule(ctx, j, "") }

func (s *Sweep) reschedule(ctx context.Context, j tasks.OpenJob, score string) error {
	if err := s.redis.Run(ctx, rescheduleScript, []string{codec.OpenKey}, j.ID, j.Due.UnixMilli(), score).Err(); err != nil {
		return fmt.Errorf("reschedule open job: %w", err)
	}
	return nil
}

// Redeliver hands an open item of the job to the workers again, because the task of delivery
// d is lost; delay says how long to wait if an attempt was lost with it, given how many were
// before. Errors: a tasks.Refusal if the item has moved on, or tasks.AttemptAlive if its
// attempt is still at work.
func (s *Sweep) Redeliver(ctx context.Context, job tasks.Job, d tasks.Delivery, delay func(lost int) time.Duration) error {
	return s.redeliver(ctx, job, d, "", delay)
}

// Reroute hands an open item to the workers with the driver that the fleet has for its instance now.
// Errors: a tasks.Refusal, tasks.InPlace if that is the driver it waits for already.
func (s *Sweep) Reroute(ctx context.Context, d tasks.Delivery) error {
	fleet, err := s.fleet.Registered(ctx, []string{d.InstanceID})
	if err != nil {
		return fmt.Errorf("reroute: %w", err)
	}
	driver := fleet[d.InstanceID].Driver
	if driver == d.Driver {
		return tasks.InPlace
	}
	id, _, _ := tasks.ParseItemID(d.ItemID)
	job, err := s.jobs.Job(ctx, id)
	if err != nil {
		return fmt.Errorf("reroute: %w", err)
	}
	d.Driver = driver
	return s.redeliver(ctx, job, d, "="+driver, func(int) time.Duration { return 0 })
}

// Hold says in a job's record why its items wait, and since when; empty: nothing holds them.
func (s *Sweep) Hold(ctx context.Context, job, reason string) error {
	if err := s.redis.Run(ctx, holdScript, []string{codec.JobKey(job)}, reason).Err(); err != nil {
		return fmt.Errorf("hold: %w", err)
	}
	return nil
}

// Abandon ends an item that no living worker can take, as Attempts.Abandon does.
func (s *Sweep) Abandon(ctx context.Context, d tasks.Delivery, code tasks.Code, message string, maxFailures int) (tasks.Ended, error) {
	return s.attempts.Abandon(ctx, d, code, message, maxFailures)
}

// Served are the drivers that living workers have.
func (s *Sweep) Served(ctx context.Context) (map[string]bool, error) { return s.queues.Served(ctx) }

// redeliver delivers an item to the driver of d, which deliver.lua writes down as reroute says.
func (s *Sweep) redeliver(ctx context.Context, job tasks.Job, d tasks.Delivery, reroute string, delay func(lost int) time.Duration) error {
	record, n := codec.RecordOf(d)
	wait := time.Duration(0)
	a, err := s.attempts.overDead(ctx, d, func(dead string) ([]any, error) {
		a, err := s.attempts.answered(ctx, deliverScript, record, n, d.Number, d.InstanceID, dead, wait.Milliseconds(), reroute)
		if running, ok := errors.AsType[*runningError](err); ok {
			wait = delay(running.lost)
		}
		return a, err
	})
	if err != nil {
		return fmt.Errorf("deliver again: %w", err)
	}
	d.Number, d.Epoch = int(codec.Number(a[0])), job.Epoch
	when := asynq.ProcessAt(startOf(job))
	if left := codec.Number(a[1]); left > 0 {
		when = asynq.ProcessIn(time.Duration(left) * time.Millisecond)
	}
	if err := s.redis.Enqueue(ctx, tasks.QueueOf(job.Queue, d.Driver), 1, func(ctx context.Context, client *asynq.Client, _ int) error {
		return enqueueOne(ctx, client, job, d, when)
	}); err != nil {
		return fmt.Errorf("deliver again: %w", err)
	}
	return nil
}

// judgeTask reads asynq's answer about a task.
func judgeTask(look wire.TaskLook) tasks.TaskLook {
	switch info, err, behind := look.Info, look.Err, look.Behind; {
	case errors.Is(err, asynq.ErrTaskNotFound):
		return tasks.TaskLook{Fate: tasks.Missing}
	case err != nil && (behind == nil || strings.Contains(behind.Error(), "WRONGTYPE")):
		// Redis has answered, and asynq cannot read it: no worker could, either.
		return tasks.TaskLook{Fate: tasks.Unreadable}
	case err != nil:
		return tasks.TaskLook{Err: fmt.Errorf("look up task: %w", err)}
	case info.State == asynq.TaskStateCompleted:
		return tasks.TaskLook{Fate: tasks.Completed}
	case info.State == asynq.TaskStateArchived:
		return tasks.TaskLook{Fate: tasks.Archived}
	}
	return tasks.TaskLook{}
}

// LookUp says what has become of tasks of one queue, in the same order.
func (s *Sweep) LookUp(ctx context.Context, queue string, ids []string) []tasks.TaskLook {
	found := make([]tasks.TaskLook, len(ids))
	for i, look := range s.redis.LookUp(ctx, queue, ids) {
		found[i] = judgeTask(look)
	}
	return found
}

// InHand returns the IDs of the tasks that living asynq servers say they work on. They say so
// every five seconds.
func (s *Sweep) InHand(ctx context.Context) (map[string]bool, error) { return s.redis.InHand(ctx) }

// Active returns the tasks of a queue that workers have in hand. What is not ours is left
// out. An error comes with those that could be read.
func (s *Sweep) Active(ctx context.Context, queue string) ([]tasks.ActiveTask, error) {
	some, err := s.redis.Active(ctx, queue)
	var found []tasks.ActiveTask
	for _, info := range some {
		d, err := tasks.DecodeDelivery(info.Payload)
		if info.Type != tasks.TypeReset || err != nil {
			continue // whoever runs it will archive it
		}
		// asynq notes the time when a task is put back, with or without a failure.
		found = append(found, tasks.ActiveTask{ID: info.ID, Delivery: d, Handling: info.LastFailedAt.Unix()})
	}
	return found, err
}

// Holds says who has items in hand, in the order of the deliveries.
func (s *Sweep) Holds(ctx context.Context, deliveries []tasks.Delivery) []tasks.Hold {
	pipe := s.redis.Pipeline()
	records := make([]*redis.StringCmd, len(deliveries))
	for i, d := range deliveries {
		record, n := codec.RecordOf(d)
		records[i] = pipe.HGet(ctx, record, strconv.Itoa(n))
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	pipe = s.redis.Pipeline()
	signs := lifeSigns{}
	asked := make([]lifeSign, len(deliveries))
	holds := make([]tasks.Hold, len(deliveries))
	for i, d := range deliveries {
		raw, err := records[i].Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			holds[i].Err = fmt.Errorf("read item: %w", err)
			continue
		}
		var token string
		holds[i].Open, token, holds[i].Err = codec.HeldBy(raw, d.Number)
		if codec.WorkerOf(token) != "" {
			asked[i] = signs.ask(ctx, pipe, d, token)
		}
	}
	_, _ = pipe.Exec(ctx)
	for i, sign := range asked {
		if sign.worker != nil {
			holds[i].Alive, holds[i].Err = sign.alive()
		}
	}
	return holds
}
