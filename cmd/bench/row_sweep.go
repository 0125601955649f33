package main

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"batchreset/cmd/bench/load"
	"batchreset/cmd/bench/report"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/worker"
)

// sweepRow measures a pass of one sweeper over many open jobs that are all due, and whose
// tasks all wait, against reading each of their records once.
func sweepRow(ctx context.Context, b *bench) ([]report.Result, error) {
	s, err := b.newStage(ctx, "sweep")
	if err != nil {
		return nil, err
	}
	db, err := redisdb.Open(ctx, redisdb.Options{URL: s.Redis.URL(), Queues: 16})
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }()
	jobs, err := submitJobs(ctx, db, b.sweepJobs)
	if err != nil {
		return nil, err
	}
	var passes, floors, trips []float64
	for i := range b.sweepRounds {
		if err := alternate(i, func() error {
			took, n, err := s.pass(ctx, db, jobs)
			passes, trips = append(passes, took), append(trips, n/float64(len(jobs)))
			return err
		}, func() error {
			took, err := s.readAll(ctx, jobs)
			floors = append(floors, took)
			return err
		}); err != nil {
			return nil, err
		}
	}
	return []report.Result{{
		What: "a pass over all open jobs", Unit: "s", Rounds: passes, Target: report.AtMost(180),
		Note: fmt.Sprintf("%d jobs of %d, all due, by one process", len(jobs), load.BatchSize),
	}, {
		What: "the same, against reading each record once", Unit: "x", Rounds: report.Ratios(passes, floors), Target: report.AtMost(50),
		Note: fmt.Sprintf("which takes %.1f s; a pass looks up %d tasks, too", report.Median(floors), len(jobs)*load.BatchSize),
	}, {
		What: "round trips for a job", Unit: "", Rounds: trips, Target: report.AtMost(1),
		Note: "at 1 ms each",
	}}, nil
}

// submitJobs makes so many jobs, and returns their IDs.
func submitJobs(ctx context.Context, db *redisdb.DB, n int) ([]string, error) {
	ids := make([]string, n)
	var all errgroup.Group
	all.SetLimit(32)
	for i := range ids {
		all.Go(func() error {
			instances := make([]string, load.BatchSize)
			for k := range instances {
				instances[k] = fmt.Sprintf("phone-%d-%d", i, k)
			}
			job, err := db.Records.Submit(ctx, tasks.Submission{Tenant: fmt.Sprint("bench-", i%64), InstanceIDs: instances, AllowUnregistered: true})
			ids[i] = job.ID
			return err
		})
	}
	return ids, all.Wait()
}

// pass makes the jobs due and sweeps until none is. It returns how long that took, in
// seconds, and how many round trips.
func (s *stage) pass(ctx context.Context, db *redisdb.DB, jobs []string) (seconds, trips float64, err error) {
	due := make([]redis.Z, len(jobs))
	for i, id := range jobs {
		due[i] = redis.Z{Member: id}
	}
	if err := s.Redis.Client.ZAdd(ctx, "reset:open", due...).Err(); err != nil {
		return 0, 0, err
	}
	before, err := roundTrips(db)
	if err != nil {
		return 0, 0, err
	}
	sweeper := worker.NewSweeper(worker.SweepStore{OpenJobs: db.Sweep, Jobs: db.Jobs, Events: db.Notices, Failures: db.Failures, AllHalted: db.Policies}, db.Queues.Queues, slog.New(slog.DiscardHandler))
	begin := time.Now()
	for {
		if err := sweeper.Sweep(ctx); err != nil {
			return 0, 0, err
		}
		now := strconv.FormatInt(time.Now().UnixMilli(), 10)
		left, err := s.Redis.Client.ZCount(ctx, "reset:open", "-inf", now).Result()
		if err != nil {
			return 0, 0, err
		}
		if left == 0 {
			break
		}
	}
	seconds = time.Since(begin).Seconds()
	after, err := roundTrips(db)
	return seconds, after - before, err
}

// readAll reads each record once, in pipelines, and returns how long that took.
func (s *stage) readAll(ctx context.Context, jobs []string) (seconds float64, err error) {
	const together = 200
	begin := time.Now()
	for len(jobs) > 0 {
		some := jobs[:min(together, len(jobs))]
		if _, err := s.Redis.Client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			for _, id := range some {
				pipe.HGetAll(ctx, "reset:{"+id+"}")
			}
			return nil
		}); err != nil {
			return 0, err
		}
		jobs = jobs[len(some):]
	}
	return time.Since(begin).Seconds(), nil
}

// roundTrips is how many the DB has made so far.
func roundTrips(db *redisdb.DB) (float64, error) {
	registry := prometheus.NewRegistry()
	if err := registry.Register(db); err != nil {
		return 0, err
	}
	families, err := registry.Gather()
	if err != nil {
		return 0, err
	}
	for _, family := range families {
		if family.GetName() == "batchreset_redis_round_trip_duration_seconds" {
			return float64(family.GetMetric()[0].GetHistogram().GetSampleCount()), nil
		}
	}
	return 0, fmt.Errorf("the round trips are not counted")
}
