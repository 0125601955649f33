package ops_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynqmon"

	"batchreset/api/ops"
	"batchreset/cmd/harness"
	"batchreset/tasks"
)

func TestAHaltSaysWhatItStops(t *testing.T) {
	t.Parallel()
	r := newGuarded(t, nil).withRunner()
	r.serve(t, "reset-99", 7)
	job, err := r.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "globex", InstanceIDs: []string{"g1", "g2"}, AllowUnregistered: true})
	must(t, err)
	_, err = r.db.Attempts.Begin(t.Context(), job.Deliveries()[0], "t", "k", time.Minute)
	must(t, err)
	const (
		one  = "It stops 1 instance that waits . 1 instance that is being reset now goes on to its end"
		all  = "It stops 3 instances that wait . 1 instance that is being reset now goes on to its end"
		none = "It stops 2 instances that wait . No instance is being reset now. Counted at "
	)
	r.reads(t, "/tenants/halt?tenant=globex", one)
	r.reads(t, "/tenants/halt?all=true", all)
	r.reads(t, "/tenants/halt?tenant=acme", none)
	r.reads(t, "/tenants/halt?tenant=nobody", "It stops 0 instances that wait . No instance is being reset now.")
	must(t, r.db.Policies.Halt(t.Context(), "acme", tasks.HaltedByOperator, tasks.Actor{}))
	r.reads(t, "/tenants/resume?tenant=acme", "2 instances are held by this halt . Counted at ")
	r.reads(t, "/tenants/halt?all=true", "It stops 1 instance that waits . 1 instance that is being reset now goes on to its end: a halt does not cut it off. 2 more are held already.")
}

// reads waits until a page says something: numbers are some seconds old.
func (g guarded) reads(t *testing.T, path, want string) {
	t.Helper()
	last := ""
	defer func() {
		if t.Failed() {
			t.Log(last)
		}
	}()
	harness.Eventually(t, 20*time.Second, path+" says "+want, func() bool {
		last = g.ask(t, http.MethodGet, path, nil, nil).text()
		return strings.Contains(last, want)
	})
}

// uncounted is a store that cannot count.
type uncounted struct{ ops.Summary }

func (uncounted) Census(context.Context) (tasks.Census, error) {
	return tasks.Census{}, errors.New("away")
}

func TestAHaltIsAskedForWithoutNumbers(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, nil)
	store := storeOf(g.db)
	store.Summary = uncounted{store.Summary}
	cfg := ops.Config{OpenHere: true, Store: store, Redis: asynqmon.Options{RedisConnOpt: g.db.Redis}, Log: slog.New(slog.DiscardHandler)}
	g.Server = httptest.NewServer(ops.New(cfg))
	t.Cleanup(g.Close)
	a := g.ask(t, http.MethodGet, "/tenants/halt?all=true", nil, nil)
	a.says(t, "could not be counted now", "go on to their end: a halt does not cut them off")
	if a := g.ask(t, http.MethodPost, "/tenants/halt", nil, a.hidden()); a.status != http.StatusSeeOther {
		t.Errorf("%d %s", a.status, a.body)
	}
}
