package worker

import (
	"context"
	"log/slog"
	"time"

	"batchreset/tasks"
)

// runStep is one look at a run that has not ended.
type runStep struct {
	*Runner
	run  tasks.Run // completed by Sum
	jobs map[int]tasks.Job
	now  time.Time
	more bool // there may be room for more than was taken
}

// goOn does what is to be done next, and says when the run is to be looked at again.
func (s *runStep) goOn(ctx context.Context) (next time.Time, err error) {
	run := s.run
	switch {
	case len(run.Open) == 0 && (run.Cancelled || run.Next == run.Parts):
		ended, err := s.store.Finish(ctx, run)
		if err != nil {
			return next, err
		}
		if ended {
			s.log.Info("run ended", slog.String("run", run.ID), slog.String("state", string(run.Counts.State())))
			s.waveEnded()
		}
		return s.now, nil // once more: the record is final then, or was changed meanwhile
	case run.Cancelled:
		return s.recheck(), s.brake(ctx, run, s.jobs)
	case !run.Approved():
		if s.now.Before(run.Approval.ExpiresAt.Time) {
			return earlier(run.Approval.ExpiresAt.Time, s.now.Add(runIdle)), nil
		}
		s.log.Info("run expired", slog.String("run", run.ID))
		return s.now, s.store.Expire(ctx, run)
	case run.State == tasks.RunPaused:
		if len(run.Open) == 0 {
			return s.now.Add(runIdle), nil
		}
		return s.recheck(), nil
	case run.State == tasks.RunWaiting:
		if s.now.Before(run.NotBefore.Time) {
			return earlier(run.NotBefore.Time, s.now.Add(runIdle)), nil
		}
		return s.now, s.store.Start(ctx, run)
	}
	if why := run.TooManyFailed(); why != "" {
		s.log.Warn("run pauses itself", slog.String("run", run.ID), slog.String("reason", why))
		return s.now, s.store.PauseItself(ctx, run, why)
	}
	return s.advance(ctx)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// waveEnded observes a wave of which nothing is open any more. That of a run that was cancelled has not ended by itself.
func (s *runStep) waveEnded() {
	if s.run.WaveAt.IsZero() || s.run.Cancelled {
		return
	}
	end := s.now
	if s.run.Wave == 0 && !s.run.SoakUntil.IsZero() {
		end = s.run.SoakUntil.Add(-time.Duration(s.run.Soak))
	}
	s.waves.Observe(end.Sub(s.run.WaveAt.Time).Seconds())
}

func (s *runStep) recheck() time.Time { return s.now.Add(runRecheck) }

// advance takes the next parts, as far as the wave and the bound on open instances allow.
func (s *runStep) advance(ctx context.Context) (next time.Time, err error) {
	run := s.run
	if run.Next == run.Parts {
		return s.recheck(), nil
	}
	room := run.MaxParallel
	for part, size := range run.Open {
		if job, made := s.jobs[part]; made {
			size = job.Counts.Open()
		}
		room -= size
	}
	parts, err := s.store.Parts(ctx, run.ID, run.Next, takeAtOnce)
	if err != nil || len(parts) == 0 {
		return s.recheck(), err
	}
	newWave := run.Next > run.FirstPart() && parts[0].Wave != run.Wave
	if newWave {
		wait, err := s.betweenWaves(ctx)
		if err != nil || !wait.IsZero() {
			return wait, err
		}
	}
	n := 0
	for n < len(parts) && parts[n].Wave == parts[0].Wave && room >= len(parts[n].InstanceIDs) {
		room -= len(parts[n].InstanceIDs)
		n++
	}
	if n == 0 {
		return s.recheck(), nil
	}
	taken, err := s.store.Take(ctx, run, parts[:n])
	if err != nil || !taken {
		return s.now, err
	}
	if newWave {
		s.waveEnded()
	}
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = run.Next + i
	}
	if err := s.makeJobs(ctx, run, numbers); err != nil {
		return next, err
	}
	s.more = n == takeAtOnce
	return s.now, nil // some may have ended meanwhile
}

// betweenWaves says when the next wave may begin; the zero time means now.
func (s *runStep) betweenWaves(ctx context.Context) (next time.Time, err error) {
	run := s.run
	if len(run.Open) > 0 {
		return s.recheck(), nil
	}
	if run.Wave > 0 || run.Canary == 0 || run.Soak == 0 {
		return time.Time{}, nil
	}
	if run.SoakUntil.IsZero() {
		until := s.now.Add(time.Duration(run.Soak))
		return until, s.store.Soak(ctx, run, until)
	}
	if s.now.Before(run.SoakUntil.Time) {
		return earlier(run.SoakUntil.Time, s.now.Add(runIdle)), nil
	}
	return time.Time{}, nil
}
