package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// RunDecisions are what people decide about runs. They fail with tasks.JobFinal where this cannot be done to the run as it
// is, and with tasks.RunGone.
type RunDecisions interface {
	Pause(ctx context.Context, id string, actor tasks.Actor) error
	// Resume leaves the run the budget that it has if there is none.
	Resume(ctx context.Context, id string, budget *tasks.Budget, actor tasks.Actor) error
	Cancel(ctx context.Context, id string, actor tasks.Actor) error
	Retry(ctx context.Context, id string, states []tasks.ItemState, actor tasks.Actor, codes ...tasks.Code) error
	// Approve and Reject keep what the actor's principal decides about the run with this list, and the reason as a comment.
	// Approve fails with tasks.OwnRun for who has asked for the run.
	Approve(ctx context.Context, id, list string, actor tasks.Actor) error
	Reject(ctx context.Context, id, list string, actor tasks.Actor) error
}

// runAction is something that people do with a run: what does it, and the fields of its form.
type runAction struct {
	do     echo.HandlerFunc
	fields []string
}

func (s *site) runActions() map[string]runAction {
	return map[string]runAction{
		"pause":   {s.pauseRun, []string{"reason"}},
		"resume":  {s.resumeRun, []string{"reason", "max_failures"}},
		"cancel":  {s.cancelRun, []string{"reason"}},
		"retry":   {s.retryRun, []string{"reason", "state"}},
		"approve": {s.judgeRun(s.Store.Runs.Approve), []string{"list_sha256", "comment"}},
		"reject":  {s.judgeRun(s.Store.Runs.Reject), []string{"list_sha256", "comment"}},
	}
}

// askRun shows what a button will do, and asks once more.
func (s *site) askRun(action string) echo.HandlerFunc {
	return func(c echo.Context) error {
		p, found, err := s.runPage(c)
		if !found {
			return err
		}
		if !p.Can(action) {
			return s.refuse(c, http.StatusConflict, fmt.Sprintf("This cannot be done: the run is %s%s.", p.Run.State, p.whyNot(action)))
		}
		p.Ask = action
		return s.show(c, http.StatusOK, "askrun", p)
	}
}

func (s *site) pauseRun(c echo.Context) error { return s.changeRun(c, s.Store.Runs.Pause) }

func (s *site) cancelRun(c echo.Context) error { return s.changeRun(c, s.Store.Runs.Cancel) }

func (s *site) resumeRun(c echo.Context) error {
	var budget *tasks.Budget
	if text := c.FormValue("max_failures"); text != "" {
		b, err := tasks.ParseBudget(text)
		if err != nil {
			return s.refuse(c, http.StatusBadRequest, "The new budget "+err.Error()+".")
		}
		budget = &b
	}
	return s.changeRun(c, func(ctx context.Context, id string, actor tasks.Actor) error {
		return s.Store.Runs.Resume(ctx, id, budget, actor)
	})
}

func (s *site) retryRun(c echo.Context) error {
	states, wrong := retryStates(c)
	if wrong != "" {
		return s.refuse(c, http.StatusBadRequest, wrong)
	}
	return s.changeRun(c, func(ctx context.Context, id string, actor tasks.Actor) error {
		return s.Store.Runs.Retry(ctx, id, states, actor)
	})
}

func (s *site) changeRun(c echo.Context, change func(context.Context, string, tasks.Actor) error) error {
	reason := c.FormValue("reason")
	if err := tasks.CheckReason(reason); err != nil {
		return s.refuse(c, http.StatusBadRequest, "The reason "+err.Error()+".")
	}
	return s.decideRun(c, reason, change)
}

// judgeRun keeps what somebody decides about the run with the list that the page showed.
func (s *site) judgeRun(judge func(ctx context.Context, id, list string, actor tasks.Actor) error) echo.HandlerFunc {
	return func(c echo.Context) error {
		if login.Operator(c) == nil {
			return s.refuse(c, http.StatusForbidden, "Nobody is logged in, and only somebody who is known can decide about a run.")
		}
		list, comment := c.FormValue("list_sha256"), c.FormValue("comment")
		if list == "" { // which would be whatever list the run has
			return s.refuse(c, http.StatusBadRequest, "The form does not say which list it is about.")
		}
		if err := tasks.CheckComment(comment); err != nil {
			return s.refuse(c, http.StatusBadRequest, "The comment "+err.Error()+".")
		}
		return s.decideRun(c, comment, func(ctx context.Context, id string, actor tasks.Actor) error {
			return judge(ctx, id, list, actor)
		})
	}
}

func (s *site) decideRun(c echo.Context, reason string, decide func(context.Context, string, tasks.Actor) error) error {
	run, found, err := s.findRun(c)
	if !found {
		return err
	}
	err = decide(c.Request().Context(), run.ID, login.Actor(c, reason))
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		status := http.StatusConflict
		if e.Code == tasks.OwnRun {
			status = http.StatusForbidden
		}
		return s.refuse(c, status, e.Message)
	}
	if errors.Is(err, tasks.RunGone) {
		return s.noRun(c)
	}
	if err != nil {
		return err
	}
	return redirect(c, "/runs/"+run.ID)
}

// Can reports whether who looks can do something with the run as it is.
func (p runPage) Can(action string) bool {
	run := p.Run
	open := !run.Cancelled && !run.State.Final()
	judges := p.Operator != nil && p.MayApprove() && p.Judged() && !p.Decided()
	switch action {
	case "pause":
		return p.MayAct() && open && run.State != tasks.RunPaused
	case "resume":
		return p.MayAct() && open && run.State == tasks.RunPaused
	case "cancel":
		return p.MayAct() && open
	case "retry":
		return p.MayAct() && run.State.Final() && run.Approved() && len(p.Choices) > 0
	case "approve":
		return judges && !p.Own()
	case "reject":
		return judges
	}
	return false
}

// whyNot says more than the run's state does about what cannot be done.
func (p runPage) whyNot(action string) string {
	switch {
	case action == "approve" && p.Own():
		return ", and you have asked for it: somebody else must approve it"
	case p.Decided():
		return ", and you have decided about it"
	case p.Operator == nil && p.Judged():
		return ", and nobody is logged in"
	}
	return ""
}

// CancelWhat is what a cancel would end.
func (p runPage) CancelWhat() string {
	switch counts := p.Run.Counts; {
	case counts.Pending > 0 && counts.Retrying > 0:
		return fmt.Sprintf("%s that have not begun, and %s that wait for another attempt", instances(counts.Pending), number(counts.Retrying))
	case counts.Pending > 0:
		return instances(counts.Pending) + " that have not begun"
	case counts.Retrying > 0:
		return instances(counts.Retrying) + " that wait for another attempt"
	}
	return "further attempts"
}

// RetryWhat is what a retry would be about.
func (p runPage) RetryWhat() string { return retryWhat(p.Run.Counts) }

// Judged reports whether the run waits for people who approve it.
func (p runPage) Judged() bool {
	return p.Run.State == tasks.RunWaiting && !p.Run.Approved() && !p.Run.Cancelled
}

// Own reports whether who looks has asked for the run.
func (p runPage) Own() bool { return p.Operator != nil && p.Run.Principal == p.Operator.Name }

// Decided reports whether who looks has decided about the run.
func (p runPage) Decided() bool {
	return p.Operator != nil && p.Run.Approval != nil && slices.ContainsFunc(p.Run.Approval.Decisions, func(d tasks.RunDecision) bool {
		return d.Principal == p.Operator.Name
	})
}

// Approvals is how many have approved the run.
func (p runPage) Approvals() (n int) {
	for _, d := range p.Run.Approval.Decisions {
		if d.Decision == tasks.Approved {
			n++
		}
	}
	return n
}

// Budget is how many instances failed or are unknown in this round, and how many may.
func (p runPage) Budget() string {
	counts, before := p.Run.Counts, p.Run.Before
	failures := counts.In(failureStates) - before.In(failureStates)
	text := number(failures)
	if ended := failures + counts.Succeeded - before.Succeeded; ended > 0 {
		text += fmt.Sprintf(" of %s that ended (%.1f%%)", number(ended), float64(failures)*100/float64(ended))
	}
	return text + ", allowed: " + p.Run.MaxFailures.String()
}

// Soak is how long the run waits after its canary.
func (p runPage) Soak() time.Duration { return time.Duration(p.Run.Soak) }
