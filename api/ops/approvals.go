package ops

import (
	"cmp"
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// approvalRoutes is the page of what waits for people. They decide on the page of the run.
func (s *site) approvalRoutes(e *echo.Echo) {
	e.GET("/approvals", s.approvals, s.door.Require(tasks.RightLook))
}

// approvalsOnPage is how many runs it lists.
const approvalsOnPage = 200

// approvalsPage lists the runs that wait for approval, oldest first.
type approvalsPage struct {
	page
	Runs    []runPage
	More    int
	Exports exports
}

func (s *site) approvals(c echo.Context) error {
	open, _, err := s.Store.Runs.SearchOpen(c.Request().Context(), tasks.RunSearch{RunFilter: tasks.RunFilter{State: tasks.RunWaiting, Limit: math.MaxInt32}})
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return s.refuse(c, http.StatusBadRequest, e.Message)
	}
	if err != nil {
		return err
	}
	p := approvalsPage{page: s.page(c, "Approvals"), Exports: exportsOf(c)}
	slices.Reverse(open) // they come newest first
	for _, run := range open {
		if row := (runPage{page: p.page, Run: run}); row.Judged() {
			p.Runs = append(p.Runs, row)
		}
	}
	if wantsFile(c) {
		return s.exportApprovals(c, p.Runs)
	}
	p.More = max(0, len(p.Runs)-approvalsOnPage)
	p.Runs = p.Runs[:len(p.Runs)-p.More]
	p.Count = number(len(p.Runs)+p.More) + " waiting"
	return s.show(c, http.StatusOK, "approvals", p)
}

func (s *site) exportApprovals(c echo.Context, rows []runPage) error {
	return export(s, c, list[runPage]{
		name:  "approvals",
		heads: []string{"run_id", "name", "tenant", "asked_by", "created_at", "total", "approvals", "approvers", "expires_at", "reason"},
		cells: func(p runPage) []string {
			r := p.Run
			return []string{
				r.ID, r.Name, r.Tenant, cmp.Or(r.Principal, r.By), cellOf(r.CreatedAt), strconv.Itoa(r.Total), strconv.Itoa(p.Approvals()),
				strconv.Itoa(r.Approval.Approvers), cellOf(r.Approval.ExpiresAt), r.Reason,
			}
		},
		record: func(p runPage) any { return runRecord(p.Run) },
		next:   whole(rows),
	})
}
