package ops

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// FailureIndex is what has failed, by kind.
type FailureIndex interface {
	FailureKinds(ctx context.Context, before time.Duration, parts int) ([]tasks.FailureCount, error)
	// FailureKindsOf is FailureKinds of one tenant, among the newest of each kind.
	FailureKindsOf(ctx context.Context, tenant string, before time.Duration, parts int) ([]tasks.FailureCount, error)
	Failures(ctx context.Context, f tasks.FailureFilter) (found []tasks.Failure, cursor string, err error)
}

// Fleet is the register of instances.
type Fleet interface {
	Registered(ctx context.Context, instances []string) (map[string]tasks.Instance, error)
	FleetChanges
	// Size is how many instances are registered.
	Size(ctx context.Context) (int, error)
	// Search returns registered instances by ID, and the cursor of those after them. There may be fewer than limit
	// before the end.
	Search(ctx context.Context, f tasks.FleetFilter, cursor string, limit int) (found []tasks.Instance, next string, err error)
}

// window is a time before now, in parts for a chart.
type window struct {
	Name, Text string
	span       time.Duration
	parts      int
}

var windows = []window{
	{"1h", "last hour", time.Hour, 12},
	{"24h", "last 24 hours", 24 * time.Hour, 24},
	{"7d", "last 7 days", 7 * 24 * time.Hour, 28},
	{"31d", "last 31 days", 31 * 24 * time.Hour, 31},
}

// windowOf is the window that a request names, or a day.
func windowOf(c echo.Context) window {
	for _, w := range windows {
		if w.Name == c.QueryParam("window") {
			return w
		}
	}
	return windows[1]
}

// failuresPage has the failures by kind.
type failuresPage struct {
	page
	Tenant  string // filter, as it was typed
	Chips   []chip
	Exports exports
	Windows []window
	Window  window
	Kinds   []failedKind
	Total   int64
	More    bool // there are more than were looked at
}

// WindowQuery is the query of the page for another time.
func (p failuresPage) WindowQuery(name string) query {
	q := url.Values{"window": {name}}
	if p.Tenant != "" {
		q.Set("tenant", p.Tenant)
	}
	return queryOf(q)
}

// failedKind is a kind of failures with what the last one of it said.
type failedKind struct {
	tasks.FailureCount
	Message string
}

// kindsWithMessage is for how many kinds, the most frequent ones, the page says what the last failure said.
const kindsWithMessage = 30

func (s *site) failures(c echo.Context) (err error) {
	p := failuresPage{
		page: s.page(c, "Failures"), Windows: windows, Window: windowOf(c), Tenant: strings.TrimSpace(c.QueryParam("tenant")),
		Chips: chipsOf(c, tenantFilter...), Exports: exportsOf(c),
	}
	ctx := c.Request().Context()
	var kinds []tasks.FailureCount
	if p.Tenant == "" {
		kinds, err = s.Store.FailureKinds(ctx, p.Window.span, p.Window.parts)
	} else {
		kinds, err = s.Store.FailureKindsOf(ctx, p.Tenant, p.Window.span, p.Window.parts)
	}
	if err != nil {
		return err
	}
	for n, k := range kinds {
		p.Total += k.Total()
		p.More = p.More || k.More
		kind := failedKind{FailureCount: k}
		if n < kindsWithMessage && k.Total() > 0 {
			if kind.Message, err = s.lastSaid(ctx, k.FailureKind, p.Tenant); err != nil {
				return err
			}
		}
		p.Kinds = append(p.Kinds, kind)
	}
	if wantsFile(c) {
		return s.exportKinds(c, p.Kinds)
	}
	p.Count = number(int(p.Total))
	return s.show(c, http.StatusOK, "failures", p)
}

// lastSaid is what the last failure of a kind said.
func (s *site) lastSaid(ctx context.Context, kind tasks.FailureKind, tenant string) (string, error) {
	f := tasks.FailureFilter{FailureKind: kind, Tenant: tenant, Limit: 1}
	if tenant != "" {
		f.Limit = rowsOnPage // most are others'
	}
	last, _, err := s.Store.Failures(ctx, f)
	if err != nil || len(last) == 0 {
		return "", err
	}
	return last[0].Item.Message, nil
}

// exportKinds writes the kinds of failures. The last column says that there may be more of a kind than were looked at.
func (s *site) exportKinds(c echo.Context, rows []failedKind) error {
	type record struct {
		Code    tasks.Code `json:"error_code"`
		Driver  string     `json:"driver"`
		Total   int64      `json:"instances"`
		Over    []int64    `json:"over_time"`
		Last    tasks.Time `json:"last_at,omitzero"`
		Message string     `json:"last_error_msg,omitempty"`
		More    bool       `json:"more"`
	}
	return export(s, c, list[failedKind]{
		name:  "failure-kinds",
		heads: []string{"error_code", "driver", "instances", "last_at", "last_error_msg", "more"},
		cells: func(k failedKind) []string {
			return []string{string(k.Code), k.Driver, strconv.FormatInt(k.Total(), 10), cellOf(k.Last), k.Message, strconv.FormatBool(k.More)}
		},
		record: func(k failedKind) any {
			return record{k.Code, k.Driver, k.Total(), k.Over, k.Last, k.Message, k.More}
		},
		next: whole(rows),
	})
}

// failedItemsPage has the items that failed in one way.
type failedItemsPage struct {
	page
	Tenant, Run string // filters, as they were typed
	Chips       []chip
	Kind        tasks.FailureKind
	Window      window
	Exports     exports
	Failures    []tasks.Failure
	Older       query // of the next page, or empty
}

// exportFailures writes what failed in one way, newest first.
func (s *site) exportFailures(c echo.Context, f tasks.FailureFilter) error {
	return export(s, c, list[tasks.Failure]{
		name:  "failures",
		heads: append([]string{"failed_at", "tenant", "job_id", "run_id"}, itemHeads...),
		cells: func(f tasks.Failure) []string {
			return append([]string{cellOf(f.At), f.Job.Tenant, f.Job.ID, f.Job.RunID}, itemCells(f.Item)...)
		},
		record: func(f tasks.Failure) any {
			return struct {
				FailedAt tasks.Time `json:"failed_at"`
				Tenant   string     `json:"tenant"`
				JobID    string     `json:"job_id"`
				RunID    string     `json:"run_id,omitempty"`
				tasks.Item
			}{f.At, f.Job.Tenant, f.Job.ID, f.Job.RunID, f.Item}
		},
		next: func(cursor string) ([]tasks.Failure, string, error) {
			f.Cursor = cursor
			return s.Store.Failures(c.Request().Context(), f)
		},
	})
}

func (s *site) failedItems(c echo.Context) error {
	kind := tasks.FailureKind{Driver: c.QueryParam("driver"), Code: tasks.Code(c.QueryParam("code"))}
	p := failedItemsPage{
		page: s.page(c, "Failures"), Exports: exportsOf(c), Kind: kind, Window: windowOf(c),
		Tenant: strings.TrimSpace(c.QueryParam("tenant")), Run: strings.TrimSpace(c.QueryParam("run")),
		Chips: chipsOf(c, filterName{"tenant", "Tenant"}, filterName{"run", "Run"}),
	}
	f := tasks.FailureFilter{FailureKind: kind, Tenant: p.Tenant, Run: p.Run, Since: s.Store.Now().Add(-p.Window.span), Limit: rowsOnPage, Cursor: c.QueryParam("cursor")}
	if wantsFile(c) {
		return s.exportFailures(c, f)
	}
	var cursor string
	var err error
	p.Failures, cursor, err = s.Store.Failures(c.Request().Context(), f)
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return s.refuse(c, http.StatusBadRequest, e.Message)
	}
	if err != nil {
		return err
	}
	p.Older = olderQuery(c, cursor)
	return s.show(c, http.StatusOK, "faileditems", p)
}

// instancePage has what happened to an instance.
type instancePage struct {
	page
	ID     string
	Entry  tasks.Instance
	Listed bool   // in the fleet
	Now    string // the item that is resetting it
	NowJob string
	// ToCome are runs that have it in their list, and in no job yet; Whole says that all lists were looked at.
	ToCome  []tasks.Run
	Whole   bool
	Resets  []reset
	Decided []tasks.AuditEntry
	// MoreDecided is the cursor of what was decided before that, or empty.
	MoreDecided string
}

// reset is an item with its job.
type reset struct {
	Job  tasks.Job
	Item tasks.Item
	Held *holding // what holds it now; may be nil
	// AskedBy is who wanted it; empty if the record does not say.
	AskedBy string
}

func (s *site) instance(c echo.Context) (err error) {
	ctx, id := c.Request().Context(), c.Param("instance")
	p := instancePage{page: s.page(c, "Instance "+id), ID: id}
	if err := tasks.CheckInstanceID(id); err != nil {
		return s.refuse(c, http.StatusNotFound, "The instance "+err.Error()+".")
	}
	fleet, err := s.Store.Registered(ctx, []string{id})
	if err != nil {
		return err
	}
	p.Entry, p.Listed = fleet[id]
	if p.Now, err = s.Store.Lock(ctx, id); err != nil {
		return err
	}
	p.NowJob, _, _ = strings.Cut(p.Now, "-")
	if p.ToCome, p.Whole, err = s.Store.Runs.ToCome(ctx, id); err != nil {
		return err
	}
	jobs, err := s.Store.InstanceJobs(ctx, id)
	if err != nil {
		return err
	}
	asked, err := s.askers(ctx, jobs)
	if err != nil {
		return err
	}
	for _, job := range jobs {
		for _, it := range job.Items {
			if it.InstanceID == id {
				held, err := s.heldItem(ctx, p.page, job, it)
				if err != nil {
					return err
				}
				p.Resets = append(p.Resets, reset{job, it, held, asked[job.ID]})
			}
		}
	}
	if p.Decided, p.MoreDecided, err = s.Store.Recent(ctx, tasks.AuditFilter{InstanceID: id}, "", rowsOnPage); err != nil {
		return err
	}
	return s.show(c, http.StatusOK, "instance", p)
}

// askers are who asked for jobs, by their IDs: for a part of a run, who asked for that; for a token with an owner, who has it.
func (s *site) askers(ctx context.Context, jobs []tasks.Job) (map[string]string, error) {
	asked := make(map[string]string, len(jobs))
	if len(jobs) == 0 {
		return asked, nil
	}
	callers, err := s.Store.Credentials.List(ctx)
	if err != nil {
		return nil, err
	}
	owners := map[string]string{}
	for _, t := range callers {
		owners[t.By()] = t.Owner
	}
	runs := map[string]string{}
	for _, job := range jobs {
		by := job.By
		if job.RunID != "" {
			var known bool
			if by, known = runs[job.RunID]; !known {
				run, err := s.Store.Runs.Run(ctx, job.RunID)
				if err != nil && !errors.Is(err, tasks.RunGone) {
					return nil, err
				}
				by = cmp.Or(run.By, run.Principal)
				runs[job.RunID] = by
			}
		}
		if owner := owners[by]; owner != "" {
			by += " (" + owner + ")"
		}
		asked[job.ID] = by
	}
	return asked, nil
}
