package notify

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"batchreset/tasks"
)

// maxRuns is how many runs of a kind are looked at: of more than that no end is told.
const maxRuns = 500

// Sources are what a notifier looks at.
type Sources struct {
	Runs      Runs
	Census    Census
	Planes    Planes
	Storage   Storage
	Endpoints Endpoints
}

// Runs are the runs that have not ended.
type Runs interface {
	// ForPeople returns the runs that go on only once somebody decides, up to limit of each.
	ForPeople(ctx context.Context, limit int) (waiting, paused tasks.SomeRuns, err error)
}

// Census says what holds items.
type Census interface {
	Census(ctx context.Context) (tasks.Census, error)
}

// Planes are the drivers whose control planes no worker reaches, and since when.
type Planes interface {
	Unreachable(ctx context.Context) (map[string]tasks.Time, error)
}

// Storage is the room that Redis has.
type Storage interface {
	Accepting(ctx context.Context) bool
	FullAt() int
}

// Endpoints are the tenants' webhook endpoints.
type Endpoints interface {
	List(ctx context.Context) ([]tasks.Endpoint, error)
}

// seen is what a notifier sees.
type seen struct {
	alerts []tasks.Alert
	looked map[tasks.AlertKind]bool // kinds of which alerts has all
	err    error                    // why it has not the others
}

// look looks at everything. What cannot be looked at is not over.
func (s Sources) look(ctx context.Context, now time.Time) seen {
	found := seen{looked: map[tasks.AlertKind]bool{}}
	note := func(alerts []tasks.Alert, all bool, err error, kinds ...tasks.AlertKind) {
		found.err = errors.Join(found.err, err)
		if err != nil {
			return
		}
		found.alerts = append(found.alerts, alerts...)
		for _, kind := range kinds {
			found.looked[kind] = all
		}
	}
	waiting, paused, err := s.Runs.ForPeople(ctx, maxRuns)
	note(alertsOf(paused.Runs, pausedRun), paused.More == 0, err, tasks.AlertRunPaused)
	note(alertsOf(waiting.Runs, waitingRun), waiting.More == 0, err, tasks.AlertRunApproval)
	held, err := s.held(ctx, now)
	note(held, true, err, tasks.AlertHalt, tasks.AlertUnserved)
	unreached, err := s.unreached(ctx)
	note(unreached, true, err, tasks.AlertUnreachable)
	disabled, err := s.disabled(ctx)
	note(disabled, true, err, tasks.AlertWebhookDisabled)
	note(s.full(ctx), true, nil, tasks.AlertNotAccepting)
	return found
}

// alertsOf are alerts about runs.
func alertsOf(runs []tasks.Run, about func(tasks.Run) tasks.Alert) (all []tasks.Alert) {
	for _, run := range runs {
		all = append(all, about(run))
	}
	return all
}

func pausedRun(run tasks.Run) tasks.Alert {
	a := aboutRun(tasks.AlertRunPaused, run)
	a.Text = "the " + nameOf(run) + " is paused"
	if run.Held.Reason != "" {
		a.Text += ": " + run.Held.Reason
	}
	return a
}

func waitingRun(run tasks.Run) tasks.Alert {
	a := aboutRun(tasks.AlertRunApproval, run)
	a.Text = fmt.Sprintf("the %s waits for approval: nothing of its %d instances begins before, and it expires at %s",
		nameOf(run), run.Total, run.Approval.ExpiresAt.UTC().Format("2006-01-02 15:04Z"))
	return a
}

func aboutRun(kind tasks.AlertKind, run tasks.Run) tasks.Alert {
	return tasks.Alert{Kind: kind, About: run.ID, Tenant: run.Tenant, Path: "runs/" + run.ID}
}

func nameOf(run tasks.Run) string {
	if run.Name == "" {
		return "run " + run.ID + " of the tenant " + run.Tenant
	}
	return fmt.Sprintf("run %q (%s) of the tenant %s", run.Name, run.ID, run.Tenant)
}

// held are alerts about halts that were forgotten, and drivers that nobody has.
func (s Sources) held(ctx context.Context, now time.Time) (found []tasks.Alert, err error) {
	census, err := s.Census.Census(ctx)
	if err != nil {
		return nil, err
	}
	for _, h := range census.Holdings {
		text := fmt.Sprintf("%s; %d items wait", h.Text(), h.Items)
		switch h.Reason {
		case tasks.HoldHalt, tasks.HoldTenantHalt, tasks.HoldOwnHalt:
			if h.Items == 0 || now.Sub(h.Since.Time) < tasks.HaltForgottenAfter {
				continue
			}
			text += ", since " + h.Since.UTC().Format("2006-01-02 15:04Z")
			if h.Reason != tasks.HoldHalt && h.Tenant != "" {
				text = "tenant " + h.Tenant + ": " + text
			} else {
				h.Tenant = ""
			}
			found = append(found, tasks.Alert{Kind: tasks.AlertHalt, About: string(h.Reason) + ":" + h.Tenant, Tenant: h.Tenant, Text: text, Path: "tenants"})
		case tasks.HoldUnserved:
			found = append(found, tasks.Alert{Kind: tasks.AlertUnserved, About: h.Driver, Text: text, Path: "workers"})
		}
	}
	return unique(found), nil
}

// unique drops what is about the same as one before it.
func unique(alerts []tasks.Alert) []tasks.Alert {
	keys := map[string]bool{}
	return slices.DeleteFunc(alerts, func(a tasks.Alert) bool {
		again := keys[a.Key()]
		keys[a.Key()] = true
		return again
	})
}

func (s Sources) unreached(ctx context.Context) (found []tasks.Alert, err error) {
	drivers, err := s.Planes.Unreachable(ctx)
	for name, since := range drivers {
		found = append(found, tasks.Alert{
			Kind: tasks.AlertUnreachable, About: name, Path: "control-planes",
			Text: fmt.Sprintf("no worker reaches the control plane of the driver %s, since %s", name, since.UTC().Format("2006-01-02 15:04Z")),
		})
	}
	return found, err
}

func (s Sources) full(ctx context.Context) []tasks.Alert {
	if s.Storage.Accepting(ctx) {
		return nil
	}
	return []tasks.Alert{{Kind: tasks.AlertNotAccepting, Text: fmt.Sprintf("Redis has used %d %% of its memory: new work is refused", s.Storage.FullAt())}}
}

func (s Sources) disabled(ctx context.Context) (found []tasks.Alert, err error) {
	endpoints, err := s.Endpoints.List(ctx)
	for _, e := range endpoints {
		if e.DisabledAt.IsZero() || strings.HasPrefix(e.DisabledReason, "by ") { // by an operator, who knows
			continue
		}
		// Its URL may have a secret of the tenant in it.
		found = append(found, tasks.Alert{
			Kind: tasks.AlertWebhookDisabled, About: e.ID, Tenant: e.Tenant, Path: "webhooks",
			Text: fmt.Sprintf("the webhook endpoint %s (%s) of the tenant %s is disabled: %s", e.ID, hostOf(e.URL), e.Tenant, e.DisabledReason),
		})
	}
	return found, err
}

// hostOf is the part of a URL that is no secret.
func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "no host"
	}
	return u.Host
}
