package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/errgroup"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// bulkResult is what has become of an action.
type bulkResult struct {
	page
	Action  bulkAction
	Done    int
	Changed []bulkTarget
	Refused []bulkRefusal
}

// bulkRefusal is a target that could not be changed, and why.
type bulkRefusal struct{ Kind, ID, Why string }

// doBulk changes the jobs and runs that the preview has named, each by itself and with its own entry in the audit trail.
func (s *site) doBulk(c echo.Context) error {
	form := c.Request().PostForm
	reason, action := form.Get("reason"), bulkAction(form.Get("action"))
	if err := tasks.CheckReason(reason); err != nil {
		return s.refuse(c, http.StatusBadRequest, "The reason "+err.Error()+".")
	}
	var what tasks.Again
	switch action {
	case bulkCancel:
	case bulkRetry:
		states, wrong := retryStates(c)
		if wrong != "" {
			return s.refuse(c, http.StatusBadRequest, wrong)
		}
		what.States = states
		if code := form.Get("code"); code != "" {
			what.Codes = []tasks.Code{tasks.Code(code)}
		}
	default:
		return s.refuse(c, http.StatusBadRequest, fmt.Sprintf("There is no action %.80q: choose cancel or retry.", action))
	}
	targets, err := parseTargets(form["target"])
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return s.refuse(c, http.StatusBadRequest, e.Message)
	}
	// Who has gone has not changed the mind: what was asked for is done for all of them.
	ctx := context.WithoutCancel(c.Request().Context())
	errs := make([]error, len(targets))
	var all errgroup.Group
	all.SetLimit(bulkAtOnce)
	for i, t := range targets {
		all.Go(func() error {
			errs[i] = s.changeOne(ctx, t, action, what, login.Actor(c, reason))
			return nil
		})
	}
	_ = all.Wait() // each has its own error
	p := bulkResult{page: s.page(c, "Done"), Action: action}
	for i, err := range errs {
		e, sayable := errors.AsType[*tasks.Error](err)
		switch {
		case err == nil:
			p.Done++
			p.Changed = append(p.Changed, targets[i])
		case sayable:
			p.Refused = append(p.Refused, bulkRefusal{targets[i].Kind, targets[i].ID, e.Message})
		default:
			s.Log.Error("bulk action", "kind", targets[i].Kind, "id", targets[i].ID, "error", err)
			p.Refused = append(p.Refused, bulkRefusal{targets[i].Kind, targets[i].ID, "Redis did not answer: look whether it was done"})
		}
	}
	return s.show(c, http.StatusOK, "bulkdone", p)
}

// parseTargets reads what bulkTarget.Value writes. Errors: tasks.BadRequest.
func parseTargets(values []string) ([]bulkTarget, error) {
	if len(values) == 0 {
		return nil, tasks.Errorf(tasks.BadRequest, "The form names no job and no run.")
	}
	if len(values) > bulkTargets {
		return nil, tasks.Errorf(tasks.BadRequest, "The form names %d jobs and runs, the limit is %d.", len(values), bulkTargets)
	}
	seen := map[string]bool{}
	targets := make([]bulkTarget, 0, len(values))
	for _, value := range values {
		parts := strings.Split(value, " ")
		if len(parts) != 3 || parts[0] != "job" && parts[0] != "run" || !tasks.ValidJobID(parts[1]) || seen[parts[1]] {
			return nil, tasks.Errorf(tasks.BadRequest, "%.80q is not a job or a run, or is named twice.", value)
		}
		revision, err := strconv.ParseInt(parts[2], 10, 64)
		if err != nil {
			return nil, tasks.Errorf(tasks.BadRequest, "%.80q is not a job or a run.", value)
		}
		seen[parts[1]] = true
		targets = append(targets, bulkTarget{Kind: parts[0], ID: parts[1], revision: revision})
	}
	return targets, nil
}

// changeOne changes one target. A retry is refused if the target is not as it was in the preview: other instances of it may
// have failed since.
func (s *site) changeOne(ctx context.Context, t bulkTarget, action bulkAction, what tasks.Again, by tasks.Actor) error {
	if action == bulkRetry {
		if err := s.unchanged(ctx, t); err != nil {
			return err
		}
	}
	var err error
	switch {
	case t.Kind == "run" && action == bulkCancel:
		err = s.Store.Runs.Cancel(ctx, t.ID, by)
	case t.Kind == "run":
		err = s.Store.Runs.Retry(ctx, t.ID, what.States, by, what.Codes...)
	case action == bulkCancel:
		err = s.Store.Cancel(ctx, t.ID, by)
	default:
		err = s.Store.Retry(ctx, t.ID, what.States, by, what.Codes...)
	}
	if _, undelivered := errors.AsType[*tasks.UndeliveredError](err); undelivered {
		err = nil // the sweeper delivers what is missing
	}
	if errors.Is(err, tasks.RunGone) || errors.Is(err, tasks.JobGone) {
		err = tasks.Errorf(tasks.JobFinal, "its record is not kept any more")
	}
	return err
}

func (s *site) unchanged(ctx context.Context, t bulkTarget) error {
	var revision int64
	if t.Kind == "run" {
		run, err := s.Store.Runs.Run(ctx, t.ID)
		if err != nil {
			return err
		}
		revision = run.Revision
	} else {
		job, err := s.Store.Job(ctx, t.ID)
		if err != nil {
			return err
		}
		revision = job.Revision
	}
	if revision != t.revision {
		return tasks.Errorf(tasks.JobFinal, "it has changed since the preview: look again")
	}
	return nil
}
