package redisdb_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// What was refused, or changed nothing, was not decided: not even when two race.
func TestWhatIsRefusedIsNotInTheTrail(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		by := tasks.Actor{By: "user x@y"}
		job, other := w.submit(t, "a", "b"), w.submit(t, "c")
		token, err := w.db.Tokens.Add(ctx, "secret", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, 0, by)
		must(t, err)
		atOnce := func(do func(n int) error) {
			var all sync.WaitGroup
			for n := range 8 {
				all.Go(func() {
					if err := do(n); err != nil && tasks.CodeOf(err) == tasks.Internal {
						t.Error(err)
					}
				})
			}
			all.Wait()
		}
		atOnce(func(int) error { return w.db.Records.Cancel(ctx, job.ID, by) })
		atOnce(func(int) error { return w.db.Records.Retry(ctx, job.ID, []tasks.ItemState{tasks.ItemCancelled}, by) })
		atOnce(func(int) error { return w.db.Records.Retry(ctx, other.ID, []tasks.ItemState{tasks.ItemFailed}, by) })
		atOnce(func(int) error { _, err := w.db.Tokens.Revoke(ctx, token.ID, by); return err })
		atOnce(func(int) error { _, err := w.db.Tokens.Revoke(ctx, "0000000000000000", by); return err })
		atOnce(func(int) error {
			_, _, err := w.db.Fleet.Protect(ctx, []string{"nowhere"}, tasks.Time{}, by)
			return err
		})
		atOnce(func(int) error { _, err := w.db.Fleet.Unregister(ctx, []string{"nowhere"}, by); return err })
		atOnce(func(int) error { _, err := w.db.Operators.Remove(ctx, "nobody", by); return err })
		atOnce(func(int) error { return w.db.Policies.Halt(ctx, "acme", tasks.HaltedByTenant, by) })
		atOnce(func(int) error { return w.db.Policies.Resume(ctx, "acme", tasks.HaltedByTenant, by) })
		atOnce(func(int) error { return w.db.Policies.Resume(ctx, "acme", tasks.HaltedByOperator, by) })
		// One key, eight different requests: one of them is accepted.
		atOnce(func(n int) error {
			_, err := w.db.Records.Submit(ctx, tasks.Submission{Tenant: "acme", InstanceIDs: []string{fmt.Sprint("k", n)}, AllowUnregistered: true, IdempotencyKey: "k"})
			return err
		})
		var got []string
		for _, e := range w.trail(t, tasks.AuditFilter{}) {
			got = append(got, string(e.Action))
		}
		if want := "submit submit token-add cancel retry token-revoke halt resume submit"; strings.Join(got, " ") != want {
			t.Errorf("trail %v, want %s", got, want)
		}
	})
}

// Workers of before know only the operators' field, and hold all the same; a halt that a
// version before wrote is the operators'.
func TestATenantsOwnHaltHoldsOldWorkersToo(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		want := func(old, operator, own bool) {
			t.Helper()
			policies, err := w.db.Policies.List(ctx)
			must(t, err)
			var p tasks.Policy
			for _, p = range policies {
				if p.Tenant == "acme" {
					break
				}
			}
			field := w.rdb.HExists(ctx, "reset:policies", "acme halt").Val()
			if field != old || (p.OperatorHalt != nil) != operator || (p.OwnHalt != nil) != own {
				t.Errorf("old workers hold: %t, policy %+v", field, p)
			}
		}
		set := func(change func(whose tasks.Halter) error, whose tasks.Halter) {
			t.Helper()
			must(t, change(whose))
		}
		halt := func(whose tasks.Halter) error {
			return w.db.Policies.Halt(ctx, "acme", whose, tasks.Actor{Reason: `{"own":true,`})
		}
		resume := func(whose tasks.Halter) error { return w.db.Policies.Resume(ctx, "acme", whose, tasks.Actor{}) }
		set(halt, tasks.HaltedByTenant)
		want(true, false, true)
		set(halt, tasks.HaltedByOperator)
		want(true, true, true)
		set(resume, tasks.HaltedByOperator)
		want(true, false, true)
		set(resume, tasks.HaltedByTenant)
		want(false, false, false)
		w.rdb.HSet(ctx, "reset:policies", "acme halt", `{"since":"2026-01-02T15:04:05.000Z","reason":"old"}`)
		want(true, true, false)
		set(resume, tasks.HaltedByTenant)
		want(true, true, false)
		set(resume, tasks.HaltedByOperator)
		want(false, false, false)
	})
}
