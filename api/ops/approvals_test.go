package ops_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
)

func TestWhatWaitsForApproval(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff()).withRunner()
	first := g.make(t, 12, tasks.RunSubmission{Name: "Older", Reason: "leased <phones>", Approval: tasks.ApprovalRule{Approvers: 2, Expiry: 24 * time.Hour}})
	second := g.make(t, 3, tasks.RunSubmission{Name: "Newer", Principal: "paul", Approval: tasks.ApprovalRule{Approvers: 1, Expiry: 24 * time.Hour}})
	g.make(t, 2, tasks.RunSubmission{Name: "Free"})
	g.make(t, 2, tasks.RunSubmission{Name: "Later", Options: tasks.RunOptions{}, NotBefore: tasks.Time{Time: time.Now().Add(time.Hour)}})
	must(t, g.db.RunDecisions.Approve(t.Context(), first, g.get(t, first).ListSHA256, tasks.Actor{By: "token 9", Principal: "carol", Reason: "ok"}))
	a := g.ask(t, http.MethodGet, "/approvals", g.login(t, "paul"), nil)
	a.says(t, "Older acme bob", "12 1 of 2", "leased <phones>", "Newer acme paul (you)", "3 0 of 1", "runs/"+first, "runs/"+second)
	if strings.Index(a.body, "Older") > strings.Index(a.body, "Newer") || strings.Contains(a.body, "Free") || strings.Contains(a.body, "Later") {
		t.Errorf("page %s", a.text())
	}
	g.ask(t, http.MethodGet, "/runs", g.login(t, "vera"), nil).says(t, "waiting for approval", "waiting for its time")
	// Those that wait for their time take nobody's place on the overview, and who has acted sees it there at once.
	for range 3 {
		g.make(t, 2, tasks.RunSubmission{Name: "Later", NotBefore: tasks.Time{Time: time.Now().Add(time.Hour)}})
	}
	g.ask(t, http.MethodGet, "/", g.login(t, "vera"), nil).says(t, "Waiting for approval: Newer (3 instances), Older (12 instances). Approvals")
	running := g.make(t, 2, tasks.RunSubmission{Name: "Running"})
	g.ask(t, http.MethodPost, "/runs/"+running+"/pause", g.login(t, "olga"), url.Values{"reason": {"lunch"}})
	g.ask(t, http.MethodGet, "/", g.login(t, "vera"), nil).says(t, "Paused: Running (paused by hand: lunch). Paused runs")
	must(t, g.db.RunDecisions.Reject(t.Context(), second, g.get(t, second).ListSHA256, tasks.Actor{By: "token 9", Principal: "carol", Reason: "no"}))
	if a := g.ask(t, http.MethodGet, "/approvals", g.login(t, "vera"), nil); strings.Contains(a.body, "Newer") {
		t.Errorf("page %s", a.text())
	}
}
