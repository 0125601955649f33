//go:build !race

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness/faketime"
	"batchreset/tasks"
	"batchreset/worker"
)

// simRunner is the store of the runner in one worker process. The runner may stand still between two steps, for
// longer than it has a run for itself; it is killed by the link, which knows each of its commands.
type simRunner struct {
	worker.Runs
	worker.RunProgress
	worker.RunNotices
	worker.RunHalts
	worker.RunJobs
	worker.RunFleet
	w    *simWorld
	link *simLink
}

// between lets time pass between two steps, and jobs that are made side by side be made in an order that the seed
// says.
func (s *simRunner) between(step ...any) {
	r := s.w.stream(fmt.Sprint("runner ", s.link.name, step, s.w.now()))
	faketime.Pass(rand1(r, time.Millisecond))
	if s.w.on("runner") && r.IntN(30) == 0 {
		d := rand1(r, 100*time.Second)
		s.w.note("the runner of %s stands still before %v for %s", s.link.name, step, d)
		faketime.Pass(d)
	}
}

func (s *simRunner) Parts(ctx context.Context, run string, from, n int) ([]tasks.Part, error) {
	s.between("parts", from, n)
	return s.Runs.Parts(ctx, run, from, n)
}

func (s *simRunner) Take(ctx context.Context, run tasks.Run, parts []tasks.Part) (bool, error) {
	s.between("take", run.Next)
	return s.RunProgress.Take(ctx, run, parts)
}

func (s *simRunner) Submit(ctx context.Context, sub tasks.Submission) (tasks.Job, error) {
	s.between("submit", sub.Part)
	return s.RunJobs.Submit(ctx, sub)
}

func (s *simRunner) Cancel(ctx context.Context, id string, actor tasks.Actor) error {
	s.between("cancel", id)
	return s.RunJobs.Cancel(ctx, id, actor)
}

func (s *simRunner) Close(ctx context.Context, run string, part int, job tasks.Job) error {
	s.between("close", part)
	return s.RunProgress.Close(ctx, run, part, job)
}

func (s *simRunner) PauseItself(ctx context.Context, run tasks.Run, reason string) error {
	s.between("pause")
	return s.RunProgress.PauseItself(ctx, run, reason)
}

func (s *simRunner) Brake(ctx context.Context, id string) error {
	s.between("brake")
	return s.RunProgress.Brake(ctx, id)
}

func (s *simRunner) Finish(ctx context.Context, run tasks.Run) (ended bool, err error) {
	s.between("finish")
	return s.RunProgress.Finish(ctx, run)
}

func (s *simRunner) EnqueueRunNotices(ctx context.Context, run tasks.Run) error {
	s.between("tell")
	return s.RunNotices.EnqueueRunNotices(ctx, run)
}

func (s *simRunner) Retire(ctx context.Context, run tasks.Run) error {
	s.between("retire")
	return s.RunProgress.Retire(ctx, run)
}

// newRunner makes the runner of a process, and lets it work until the story ends.
func (w *simWorld) newRunner(ctx context.Context, p *simProcess) {
	store := &simRunner{Runs: p.db.Runs, RunProgress: p.db.RunProgress, RunNotices: p.db.Notices, RunHalts: p.db.Policies, RunJobs: p.db.Records, RunFleet: p.db.Fleet, w: w, link: p.link}
	p.runner = worker.NewRunner(worker.RunnerStore{Runs: store, RunProgress: store, RunNotices: store, RunHalts: store, RunJobs: store, RunFleet: store}, slog.New(slog.DiscardHandler))
	runner, db, link, r := p.runner, p.db, p.link, w.stream(fmt.Sprint("rounds of ", p.name, w.now()))
	w.all.Go(func() {
		for w.on("runs") && ctx.Err() == nil && !link.isDead() {
			if ids := w.runIDs(); len(ids) > 0 && r.IntN(3) == 0 { // an announcement, which may be missed
				if id := ids[r.IntN(len(ids))]; w.redis.Exists("reset:run:{" + id + "}") {
					_ = db.RunProgress.Hurry(ctx, id)
				}
			}
			w.round(ctx, runner)
			faketime.Pass(100*time.Millisecond + rand1(r, 2*time.Second))
		}
	})
}

func (w *simWorld) round(ctx context.Context, runner *worker.Runner) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	if err := runner.Round(ctx); err != nil {
		w.note("a runner could not look: %v", err)
	}
}

func (w *simWorld) runIDs() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.runs)
}

// someRun is one of the runs that were asked for, or "".
func (w *simWorld) someRun() string {
	ids := w.runIDs()
	if len(ids) == 0 {
		return ""
	}
	return ids[w.rand.IntN(len(ids))]
}

// drawRun draws a run on a few phones, some of which jobs ask for, too.
func (w *simWorld) drawRun() tasks.RunSubmission {
	s := tasks.RunSubmission{Tenant: history.Tenant, AllowUnregistered: true, IdempotencyKey: fmt.Sprintf("run-%d", len(w.asked))}
	for _, n := range w.rand.Perm(6)[:2+w.rand.IntN(5)] {
		s.InstanceIDs = append(s.InstanceIDs, fmt.Sprintf("phone-%d", n))
	}
	s.Options = tasks.RunOptions{MaxParallel: 1 + w.rand.IntN(4)}
	if w.rand.IntN(2) == 0 {
		s.Options.Canary, s.Options.Growth = 1+w.rand.IntN(2), []float64{1, 1.5, 2}[w.rand.IntN(3)]
		if w.rand.IntN(2) == 0 {
			s.Options.Soak = tasks.Duration(rand1(w.rand, 30*time.Second).Truncate(time.Millisecond))
		}
	}
	if w.rand.IntN(2) == 0 {
		s.Options.MaxFailures, _ = tasks.ParseBudget([]string{"0", "1", "50%"}[w.rand.IntN(3)])
	}
	if w.rand.IntN(4) == 0 {
		s.AskApproval, s.Approval = true, tasks.ApprovalRule{Approvers: 1, Expiry: 10*time.Second + rand1(w.rand, 2*time.Minute)}
	}
	if w.rand.IntN(6) == 0 {
		s.NotBefore = tasks.Time{Time: time.Now().Add(rand1(w.rand, 40*time.Second)).Truncate(time.Millisecond)}
	}
	return s
}

// requestOf is a run as callers ask for it.
func requestOf(s tasks.RunSubmission) *client.RunRequest {
	o := s.Options
	return &client.RunRequest{
		Canary: o.Canary, Soak: time.Duration(o.Soak).String(), Growth: o.Growth, MaxParallel: o.MaxParallel,
		MaxFailures: client.Budget(o.MaxFailures.String()), NotBefore: s.NotBefore.Time, Approval: s.AskApproval,
	}
}

// submitRun asks for a run, or once more for one that was asked for before, sometimes with another list.
func (w *simWorld) submitRun() {
	s := w.drawRun()
	if len(w.asked) > 2 || len(w.asked) > 0 && w.rand.IntN(4) == 0 {
		before := w.asked[w.rand.IntN(len(w.asked))]
		if s = before; w.rand.IntN(4) == 0 {
			s.InstanceIDs = s.InstanceIDs[1:]
		}
	} else {
		w.asked = append(w.asked, s)
		w.plane.use(s.InstanceIDs)
		w.mu.Lock()
		w.runs = append(w.runs, s.RunID())
		w.mu.Unlock()
		for part := range 2 * len(s.InstanceIDs) { // and some of later rounds
			w.jobs = append(w.jobs, tasks.PartJobID(s.RunID(), part))
		}
	}
	e := history.Event{Kind: history.SubmitRun, Key: s.IdempotencyKey, Instances: s.InstanceIDs, Request: requestOf(s)}
	db := w.api.db
	w.ask(e, func(ctx context.Context, e *history.Event) error {
		run, err := db.Runs.Create(ctx, s)
		e.Run = run.ID
		return err
	})
}

// decide asks for a change of a run.
func (w *simWorld) decide(e history.Event, change func(context.Context, string) error) {
	if e.Run != "" {
		w.ask(e, func(ctx context.Context, e *history.Event) error { return change(ctx, e.Run) })
	}
}

// stopRun pauses or cancels a run.
func (w *simWorld) stopRun(kind history.Kind, run string) {
	decisions := w.api.db.RunDecisions
	w.decide(history.Event{Kind: kind, Run: run}, func(ctx context.Context, run string) error {
		if kind == history.PauseRun {
			return decisions.Pause(ctx, run, simActor)
		}
		return decisions.Cancel(ctx, run, simActor)
	})
}

// resumeRun lets a run go on, with another budget if there is one.
func (w *simWorld) resumeRun(run string, budget string) {
	decisions := w.api.db.RunDecisions
	w.decide(history.Event{Kind: history.ResumeRun, Run: run, Budget: client.Budget(budget)}, func(ctx context.Context, run string) error {
		more, err := tasks.ParseBudget(budget)
		switch {
		case err != nil:
			return err
		case more.IsZero():
			return decisions.Resume(ctx, run, nil, simActor)
		}
		return decisions.Resume(ctx, run, &more, simActor)
	})
}

// judge decides about a run that somebody else has asked for.
func (w *simWorld) judge(kind history.Kind, run string) {
	db, somebody := w.api.db, tasks.Actor{By: "somebody", Principal: "somebody", Reason: "seen"}
	w.decide(history.Event{Kind: kind, Run: run}, func(ctx context.Context, id string) error {
		if kind == history.RejectRun {
			return db.RunDecisions.Reject(ctx, id, "", somebody)
		}
		run, err := db.Runs.Stored(ctx, id)
		if err != nil {
			return err
		}
		return db.RunDecisions.Approve(ctx, id, run.ListSHA256, somebody)
	})
}

// runThat is a run that fits, if there is one, else any.
func (w *simWorld) runThat(fits func(tasks.Run) bool) string {
	id := w.someRun()
	for _, other := range w.runIDs() {
		if run, err := w.watcher.Runs.Stored(context.Background(), other); err == nil && fits(run) {
			id = other
		}
	}
	return id
}

// retryRun asks for another round of a run, of one that has ended if there is one.
func (w *simWorld) retryRun() {
	id := w.runThat(func(run tasks.Run) bool { return run.State.Final() && run.State != tasks.RunSucceeded })
	states := [][]tasks.ItemState{
		{tasks.ItemFailed, tasks.ItemUnknown}, {tasks.ItemUnknown}, {tasks.ItemCancelled}, {tasks.ItemFailed, tasks.ItemUnknown, tasks.ItemCancelled},
	}[w.rand.IntN(4)]
	e, decisions := history.Event{Kind: history.RetryRun, Run: id}, w.api.db.RunDecisions
	for _, state := range states {
		e.States = append(e.States, string(state))
	}
	w.decide(e, func(ctx context.Context, run string) error { return decisions.Retry(ctx, run, states, simActor) })
}

// ask does what an api does for a request, and records it with the status of its answer, 0 for what is no answer.
func (w *simWorld) ask(e history.Event, do func(context.Context, *history.Event) error) {
	e.Begin = w.now()
	w.all.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		err := do(ctx, &e)
		e.End, e.Status = w.now(), statusAfter(err)
		if err != nil {
			e.Error = err.Error()
			w.note("%s %s: %v", e.Kind, e.Run, err)
		}
		w.rec.Add(e)
	})
}

// statusAfter is the status of an answer that an api would give; 0 for one that leaves it open what was done.
func statusAfter(err error) int {
	switch {
	case err == nil:
		return http.StatusOK
	case errors.Is(err, tasks.RunGone), errors.Is(err, tasks.JobGone):
		return http.StatusNotFound
	case tasks.CodeOf(err) == tasks.JobFinal, tasks.CodeOf(err) == tasks.KeyReused:
		return http.StatusConflict
	}
	return 0
}

// pauseRun pauses some run for a while.
func (w *simWorld) pauseRun() {
	run := w.someRun()
	w.stopRun(history.PauseRun, run)
	budget := []string{"", "", "2", "80%"}[w.rand.IntN(4)]
	w.later(rand1(w.rand, 40*time.Second), func() { w.resumeRun(run, budget) })
}

// readRun looks at a run, and returns what it saw; the zero Run if there is none.
func (w *simWorld) readRun(id string) (seen client.Run) {
	e := history.Event{Kind: history.ReadRun, Begin: w.now(), Run: id}
	run, err := w.watcher.Runs.Run(context.Background(), id)
	e.End = w.now()
	switch {
	case errors.Is(err, tasks.RunGone):
	case err != nil:
		w.t.Fatalf("seed %d: read run: %v", w.seed, err)
	default:
		text, err := json.Marshal(run)
		if err == nil {
			err = json.Unmarshal(text, &seen)
		}
		if err != nil {
			panic(err)
		}
		seen.Record = nil
		e.RunRecord = &seen
	}
	w.rec.Add(e)
	return seen
}

// runsEnd lets runs go on until all have ended, and says whether they have.
func (w *simWorld) runsEnd() (ended bool) {
	ended = true
	for _, id := range w.runIDs() {
		_ = w.watcher.RunProgress.Hurry(context.Background(), id) // nothing is missed any more
	}
	for _, p := range w.workers {
		w.round(context.Background(), p.runner)
	}
	for _, id := range w.runIDs() {
		run := w.readRun(id)
		if run.State == "paused" {
			w.resumeRun(id, map[bool]string{true: "", false: fmt.Sprint(run.Total)}[run.Stage == "approval"])
		}
		ended = ended && (run.ID == "" || run.Final())
	}
	return ended
}

// readResults reads the results of every run that there is.
func (w *simWorld) readResults() {
	for _, id := range w.runIDs() {
		e := history.Event{Kind: history.Results, Begin: w.now(), Run: id}
		run, err := w.watcher.Runs.Run(context.Background(), id)
		if errors.Is(err, tasks.RunGone) {
			continue
		}
		if err == nil {
			err = w.watcher.Runs.Instances(context.Background(), run, func(in tasks.RunInstance) error {
				if in.JobID != "" && !slices.Contains(w.jobs, in.JobID) {
					w.jobs = append(w.jobs, in.JobID)
					w.readJob(in.JobID)
				}
				e.Rows = append(e.Rows, client.RunResult{InstanceID: in.Item.InstanceID, JobID: in.JobID, ItemID: in.Item.ID, State: string(in.Item.State)})
				return nil
			})
		}
		if err != nil {
			w.t.Fatalf("seed %d: results: %v", w.seed, err)
		}
		e.End = w.now()
		w.rec.Add(e)
	}
}

// killsRunner reports whether the process at the end of a link is killed when it has sent this: something about a run.
func (l *simLink) killsRunner(carried []byte) bool {
	if !strings.HasPrefix(l.name, "worker") || !strings.Contains(string(carried), "reset:run:{") || !l.w.on("runner") {
		return false
	}
	return l.w.stream(fmt.Sprint("kill ", l.name, string(carried), l.w.now())).IntN(30) == 0
}
