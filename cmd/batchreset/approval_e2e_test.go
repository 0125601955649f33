package main

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/harness"
)

// person is somebody with a token of their own.
func (s campaign) person(t *testing.T, owner string, scopes string) *client.Client {
	t.Helper()
	token := strings.TrimSpace(command(t, s.environment, "token", "add", "--tenant", "acme", "--owner", owner, "--scope", scopes).OK(t).Out)
	c, err := client.New(s.environment["BATCHRESET_SERVER"], token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func wantCode(t *testing.T, err error, status int, code, says string) {
	t.Helper()
	e, ok := errors.AsType[*client.Error](err)
	if !ok || e.HTTPStatus != status || e.Code != code || !strings.Contains(e.Message, says) {
		t.Errorf("error %v, want %d %s with %q", err, status, code, says)
	}
}

// approvals is a campaign whose tenant lets two people approve what is larger than 40 instances.
func approvals(t *testing.T) (s campaign, plane *wiper) {
	t.Helper()
	plane, url := newWiper(t)
	s = newCampaign(t, url)
	command(t, s.environment, "tenant", "limit", "--tenant", "acme", "--approve-above", "40", "--approvers", "2").OK(t)
	harness.Pause(t.Context(), time.Second) // from then on it holds
	return s, plane
}

func (w *wiper) total() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.wiped)
}

const everyScope = "submit,read,cancel,approve"

func TestTwoPeopleApproveARun(t *testing.T) {
	t.Parallel()
	s, plane := approvals(t)
	alice, alicesOther := s.person(t, "alice", everyScope), s.person(t, "alice", "approve,read")
	bob, bobsOther, carol := s.person(t, "bob", "approve,read"), s.person(t, "bob", "approve,read"), s.person(t, "carol", "approve,read")
	worker := s.worker()

	small, err := alice.Runs().Submit(t.Context(), client.RunRequest{InstanceIDs: phonesList(40)})
	if err != nil || small.State != "running" || small.Approval.Approvers != 0 {
		t.Errorf("a run as large as the policy allows: %+v, %v", small, err)
	}
	if last := watchCounts(t.Context(), t, alice, small.ID); last.State != "succeeded" {
		t.Errorf("it ended as %s", last.State)
	}
	began := plane.total()
	list := phonesList(141)[40:]
	run, err := alice.Runs().Submit(t.Context(), client.RunRequest{InstanceIDs: list, Canary: 3})
	if err != nil || run.State != "waiting" || run.Stage != "approval" || run.Approval.Approvers != 2 || run.Principal != "alice" {
		t.Fatalf("run %+v, %v", run, err)
	}
	runs := alice.Runs()
	_, err = runs.Approve(t.Context(), run.ID, run.ListSHA256, "mine")
	wantCode(t, err, 403, "RESET.0005", "alice has asked for this run")
	_, err = alicesOther.Runs().Approve(t.Context(), run.ID, run.ListSHA256, "mine, by another token")
	wantCode(t, err, 403, "RESET.0005", "alice has asked for this run")
	_, err = bob.Runs().Approve(t.Context(), run.ID, small.ListSHA256, "another list")
	wantCode(t, err, 409, "RESET.0003", "list_sha256 is not the hash")
	once, err := bob.Runs().Approve(t.Context(), run.ID, run.ListSHA256, "looked at it")
	if err != nil || once.State != "waiting" {
		t.Fatalf("run %+v, %v", once, err)
	}
	_, err = bobsOther.Runs().Approve(t.Context(), run.ID, run.ListSHA256, "twice")
	wantCode(t, err, 409, "RESET.0003", "bob has decided")
	for row, err := range runs.Results(t.Context(), run.ID) {
		t.Errorf("a run that waits has the result %+v, %v", row, err)
	}
	// Those who run things are killed between the decision and the start.
	_ = worker.Signal(syscall.SIGKILL)
	if _, err := carol.Runs().Approve(t.Context(), run.ID, run.ListSHA256, "looked at it, too"); err != nil {
		t.Fatal(err)
	}
	if n := plane.total(); n != began {
		t.Errorf("%d instances were reset before the run was approved", n-began)
	}
	for range 2 {
		worker = s.worker()
		harness.Pause(t.Context(), 500*time.Millisecond) // long enough to begin
		_ = worker.Signal(syscall.SIGKILL)
	}
	worker = s.worker()
	last := watchCounts(t.Context(), t, alice, run.ID)
	if last.State != "succeeded" || plane.total() != began+len(list) {
		t.Errorf("run %s, %d were reset", last.State, plane.total()-began)
	}
	var who []string
	for _, d := range last.Approval.Decisions {
		who = append(who, d.Principal+" "+d.Decision+" "+d.Comment)
	}
	if want := []string{"bob approved looked at it", "carol approved looked at it, too"}; !slices.Equal(who, want) {
		t.Errorf("decisions %q", who)
	}
	trail := command(t, s.environment, "audit", "--action", "run-approve").OK(t).Out
	if !strings.Contains(trail, "bob") || !strings.Contains(trail, "looked at it, too") {
		t.Errorf("the trail:\n%s", trail)
	}
	worker.stop()
}

func TestARunIsRejectedOrExpires(t *testing.T) {
	t.Parallel()
	s, plane := approvals(t)
	alice, bob := s.person(t, "alice", everyScope), s.person(t, "bob", "approve,read")
	worker := s.worker()
	run, err := alice.Runs().Submit(t.Context(), client.RunRequest{InstanceIDs: phonesList(100)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bob.Runs().Reject(t.Context(), run.ID, "these phones are in use"); err != nil {
		t.Fatal(err)
	}
	_, err = bob.Runs().Approve(t.Context(), run.ID, run.ListSHA256, "after all")
	wantCode(t, err, 409, "RESET.0003", "it is rejected")
	_, err = alice.Runs().Retry(t.Context(), run.ID, "cancelled")
	wantCode(t, err, 409, "RESET.0003", "never approved")
	last := watchCounts(t.Context(), t, alice, run.ID)
	if d := last.Approval.Decisions; last.State != "rejected" || last.Counts.Cancelled != 100 || len(d) != 1 || d[0].Comment != "these phones are in use" {
		t.Errorf("run %+v", last)
	}
	// Nobody decides about the next one, which its caller wants to have approved although it is small.
	hasty := start(t, "api", "--redis", s.environment["BATCHRESET_REDIS"], "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open", "--approval-expiry", "1s")
	s.environment["BATCHRESET_SERVER"], _ = hasty.logged("api started")["api"].(string)
	run, err = s.person(t, "alice", everyScope).Runs().Submit(t.Context(), client.RunRequest{InstanceIDs: phonesList(3), Approval: true})
	if err != nil || run.Stage != "approval" || run.Approval.Approvers != 2 || run.Approval.ExpiresAt.Sub(run.CreatedAt) != time.Second {
		t.Fatalf("run %+v, %v", run, err)
	}
	if last := watchCounts(t.Context(), t, alice, run.ID); last.State != "expired" {
		t.Errorf("run %s", last.State)
	}
	if n := plane.total(); n > 0 {
		t.Errorf("%d instances were reset", n)
	}
	worker.stop()
}

// What failed is retried as another round, through a canary again, and needs no new approval.
func TestARunIsRetried(t *testing.T) {
	t.Parallel()
	s, plane := approvals(t)
	alice, bob, carol := s.person(t, "alice", everyScope), s.person(t, "bob", "approve,read"), s.person(t, "carol", "approve,read")
	plane.mu.Lock()
	plane.fails = func(instance string) bool { return strings.HasSuffix(instance, "7") }
	plane.mu.Unlock()
	worker := s.worker()
	run, err := alice.Runs().Submit(t.Context(), client.RunRequest{InstanceIDs: phonesList(100), Canary: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []*client.Client{bob, carol} {
		if _, err := who.Runs().Approve(t.Context(), run.ID, run.ListSHA256, "looked at it"); err != nil {
			t.Fatal(err)
		}
	}
	_, err = alice.Runs().Retry(t.Context(), run.ID)
	wantCode(t, err, 409, "RESET.0003", "cannot be retried")
	if last := watchCounts(t.Context(), t, alice, run.ID); last.State != "partial" || last.Counts.Failed != 10 {
		t.Fatalf("run %s, %+v", last.State, last.Counts)
	}
	plane.mu.Lock()
	plane.fails = nil
	plane.mu.Unlock()
	if again, err := alice.Runs().Retry(t.Context(), run.ID); err != nil || again.Round != 2 || again.Counts.Pending != 10 || again.Counts.Succeeded != 90 {
		t.Fatalf("retried: %+v, %v", again, err)
	}
	last := watchCounts(t.Context(), t, alice, run.ID)
	if last.State != "succeeded" || last.Counts.Succeeded != 100 {
		t.Errorf("run %s, %+v", last.State, last.Counts)
	}
	plane.mu.Lock()
	for instance, n := range plane.wiped {
		if n != 1 {
			t.Errorf("%s was reset %d times", instance, n)
		}
	}
	plane.mu.Unlock()
	rows := 0
	for row, err := range alice.Runs().Results(t.Context(), run.ID) {
		if rows++; err != nil || row.State != "succeeded" {
			t.Errorf("row %+v, %v", row, err)
		}
	}
	if rows != 100 {
		t.Errorf("%d rows", rows)
	}
	worker.stop()
}
