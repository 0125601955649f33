package api_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"batchreset/tasks"
)

// fakeRuns keeps runs in memory. Nothing goes on by itself: tests change what is kept.
type fakeRuns struct {
	mu        sync.Mutex
	kept      map[string]tasks.Run
	lists     map[string][]string
	order     []string
	instances map[string]tasks.RunInstance // by instance; the others are pending
	audited   []string
	// full is the error of Create, away that of Instances after broken instances.
	full   error
	broken int
	away   error
	heard  func(run string) // of announcements
	reads  int              // of whole records
	lost   int              // so many of them fail
	// visited is called after Instances.
	visited func()
}

func newFakeRuns() *fakeRuns {
	return &fakeRuns{kept: map[string]tasks.Run{}, lists: map[string][]string{}, instances: map[string]tasks.RunInstance{}}
}

func (f *fakeRuns) Create(_ context.Context, s tasks.RunSubmission) (tasks.Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.full != nil {
		return tasks.Run{}, f.full
	}
	run := tasks.Run{
		ID: s.RunID(), Name: s.Name, State: tasks.RunRunning, RequestID: s.RequestID, CreatedAt: tasks.FromMillis(time.Now().UnixMilli()),
		Total: len(s.InstanceIDs), Repeats: s.Repeats, ListSHA256: tasks.ListHash(s.InstanceIDs), NotBefore: s.NotBefore,
		Reason: s.Reason, Labels: s.Labels, RunOptions: s.Options, Tenant: s.Tenant, By: s.By, From: s.From, Principal: s.Principal, Fingerprint: s.Fingerprint(), Parts: 1, Round: 1,
	}
	if s.Principal != "" {
		run.Principal = s.Principal
	}
	if !s.NotBefore.IsZero() || s.AskApproval {
		run.State = tasks.RunWaiting
	}
	f.kept[run.ID], f.lists[run.ID] = run, s.InstanceIDs
	f.order = append(f.order, run.ID)
	return run.Sum(nil, time.Now()), nil
}

func (f *fakeRuns) Run(_ context.Context, id string) (tasks.Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	if f.lost > 0 {
		f.lost--
		return tasks.Run{}, errors.New("Redis is away")
	}
	return f.read(id)
}

func (f *fakeRuns) read(id string) (tasks.Run, error) {
	run, found := f.kept[id]
	if !found {
		return tasks.Run{}, tasks.RunGone
	}
	return run.Sum(nil, time.Now()), nil
}

func (f *fakeRuns) Stored(_ context.Context, id string) (tasks.Run, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.read(id)
}

func (f *fakeRuns) Announced(ctx context.Context, heard func(string)) error {
	f.mu.Lock()
	f.heard = heard
	f.mu.Unlock()
	<-ctx.Done()
	return nil
}

func (f *fakeRuns) List(_ context.Context, tenant string, filter tasks.RunFilter) (found []tasks.Run, cursor string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	skip, err := strconv.Atoi("0" + filter.Cursor)
	if err != nil {
		return nil, "", tasks.Errorf(tasks.BadRequest, "cursor is not one of these")
	}
	for _, id := range slices.Backward(f.order) {
		run := f.kept[id]
		if run.Tenant != tenant || !filter.Match(run) {
			continue
		}
		if skip--; skip >= 0 {
			continue
		}
		if len(found) == filter.Limit {
			after, _ := strconv.Atoi("0" + filter.Cursor)
			return found, strconv.Itoa(after + filter.Limit), nil
		}
		found = append(found, run.Sum(nil, time.Now()))
	}
	return found, "", nil
}

// change changes a run that is in one of the states.
func (f *fakeRuns) change(id, action string, from []tasks.RunState, change func(*tasks.Run)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	run, found := f.kept[id]
	switch {
	case !found:
		return tasks.RunGone
	case !slices.Contains(from, run.State):
		return tasks.Errorf(tasks.JobFinal, "the run is %s: it cannot be %sd", run.State, action)
	}
	change(&run)
	run.Revision++
	f.kept[id] = run
	f.audited = append(f.audited, action)
	return nil
}

func (f *fakeRuns) Pause(_ context.Context, id string, _ tasks.Actor) error {
	return f.change(id, "pause", []tasks.RunState{tasks.RunWaiting, tasks.RunRunning}, func(r *tasks.Run) { r.State = tasks.RunPaused })
}

func (f *fakeRuns) Resume(_ context.Context, id string, budget *tasks.Budget, _ tasks.Actor) error {
	return f.change(id, "resume", []tasks.RunState{tasks.RunPaused}, func(r *tasks.Run) {
		r.State = tasks.RunRunning
		if budget != nil {
			r.MaxFailures = *budget
		}
	})
}

func (f *fakeRuns) Cancel(_ context.Context, id string, _ tasks.Actor) error {
	return f.change(id, "cancel", []tasks.RunState{tasks.RunWaiting, tasks.RunRunning, tasks.RunPaused}, func(r *tasks.Run) {
		r.State, r.Cancelled = tasks.RunCancelled, true
	})
}

func (f *fakeRuns) Approve(ctx context.Context, id, list string, actor tasks.Actor) error {
	switch run, err := f.Run(ctx, id); {
	case err != nil:
		return err
	case run.Principal == actor.Principal:
		return tasks.Errorf(tasks.OwnRun, "%s has asked for this run: somebody else must approve it", actor.Principal)
	case run.ListSHA256 != list:
		return tasks.Errorf(tasks.JobFinal, "list_sha256 is not the hash of this run's list")
	}
	return f.change(id, "approve", []tasks.RunState{tasks.RunWaiting}, func(r *tasks.Run) { r.State = tasks.RunRunning })
}

func (f *fakeRuns) Reject(_ context.Context, id, _ string, _ tasks.Actor) error {
	return f.change(id, "reject", []tasks.RunState{tasks.RunWaiting}, func(r *tasks.Run) { r.State = tasks.RunRejected })
}

func (f *fakeRuns) Retry(_ context.Context, id string, _ []tasks.ItemState, _ tasks.Actor, _ ...tasks.Code) error {
	if f.full != nil {
		return f.full
	}
	return f.change(id, "retry", []tasks.RunState{tasks.RunFailed, tasks.RunPartial}, func(r *tasks.Run) { r.State = tasks.RunRunning })
}

func (f *fakeRuns) Instances(_ context.Context, run tasks.Run, visit func(tasks.RunInstance) error) error {
	f.mu.Lock()
	list := f.lists[run.ID]
	f.mu.Unlock()
	for n, id := range list {
		if f.away != nil && n >= f.broken {
			return f.away
		}
		in, known := f.instances[id]
		if !known {
			in.Item = tasks.Item{InstanceID: id, State: tasks.ItemPending}
		}
		if err := visit(in); err != nil {
			return err
		}
	}
	if f.visited != nil {
		f.visited()
	}
	return nil
}
