package redisdb_test

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func TestWaitingForABusyInstance(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		job := w.submit(t, "phone-1")
		d := job.Deliveries()[0]
		if waited, err := w.db.Attempts.Wait(t.Context(), d); err != nil || waited != 0 {
			t.Fatalf("first wait: %s, %v", waited, err)
		}
		var waited time.Duration
		for waited == 0 {
			var err error
			if waited, err = w.db.Attempts.Wait(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = w.begin(t, job, 0, "t1")
		ended, err := w.db.Attempts.Finish(t.Context(), d, "t1", tasks.Outcome{Transition: tasks.Retry, Busy: true}, true)
		if err != nil || ended.BusyFor < waited {
			t.Errorf("busy for %s, %v; it was %s before", ended.BusyFor, err, waited)
		}
		_, _ = w.begin(t, job, 0, "t2")
		if ended, err = w.db.Attempts.Finish(t.Context(), d, "t2", tasks.Outcome{Transition: tasks.Retry}, true); err != nil || ended.BusyFor != 0 {
			t.Errorf("still busy for %s after an attempt that was not, %v", ended.BusyFor, err)
		}
	})
}

func TestOneItemAtATimeHasAnInstance(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) { oneItemAtATime(t, w.db, w.rdb) })
}

// oneItemAtATime takes the lock of an instance through the hands of two items.
func oneItemAtATime(t *testing.T, db *redisdb.DB, rdb redis.UniversalClient) {
	t.Helper()
	ctx := t.Context()
	item := func() tasks.Delivery {
		job, err := db.Records.Submit(ctx, tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true})
		if err != nil {
			t.Fatal(err)
		}
		return job.Deliveries()[0]
	}
	a, b := item(), item()
	const lock = "reset:lock:{phone-1}"
	holds := func(want string) {
		t.Helper()
		if got := rdb.Get(ctx, lock).Val(); got != want {
			t.Fatalf("the lock is held by %q, want %q", got, want)
		}
	}
	begins := func(d tasks.Delivery, token string, number int) {
		t.Helper()
		begun, err := db.Attempts.Begin(ctx, d, token, "k", time.Minute)
		if err != nil || begun.Number != number {
			t.Fatalf("begun %+v, %v; want attempt %d", begun, err, number)
		}
		holds(d.ItemID + " " + token)
		if ttl := rdb.PTTL(ctx, lock).Val(); ttl <= 0 || ttl > time.Minute {
			t.Errorf("the lock lapses in %s", ttl)
		}
	}
	refused := func(d tasks.Delivery, token string, want error) {
		t.Helper()
		before := rdb.Get(ctx, lock).Val()
		if _, err := db.Attempts.Begin(ctx, d, token, "k", time.Minute); !errors.Is(err, want) {
			t.Fatalf("begin: %v, want %v", err, want)
		}
		holds(before)
	}
	finishes := func(d tasks.Delivery, token string, want error) {
		t.Helper()
		if _, err := db.Attempts.Finish(ctx, d, token, tasks.Outcome{Transition: tasks.Retry}, true); !errors.Is(err, want) {
			t.Fatalf("finish: %v, want %v", err, want)
		}
	}
	old := a
	old.Number = 7

	refused(old, "a0", tasks.OldDelivery) // and leaves no lock
	begins(a, "a1", 1)
	begins(a, "a1", 1) // the same command, sent twice
	refused(b, "b1", tasks.InstanceBusy)
	refused(old, "a2", tasks.OldDelivery)

	// The successor of an attempt whose worker is lost takes over, and the one that
	// was lost cannot release the lock any more.
	begins(a, "a2", 2)
	finishes(a, "a1", tasks.WrongToken)
	holds(a.ItemID + " a2")
	refused(b, "b1", tasks.InstanceBusy)
	finishes(a, "a2", nil)
	holds("")

	// A worker that died between lock and record, where these are two steps.
	if err := rdb.Set(ctx, lock, b.ItemID+" b0", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	refused(a, "a3", tasks.InstanceBusy)
	begins(b, "b1", 1)
	finishes(b, "b1", nil)
	holds("")
}

func TestBeginAsksWhoseTheInstanceIs(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		for _, row := range []struct {
			name  string
			fleet []tasks.Instance
			open  bool
			want  error
		}{
			{"allows an unregistered instance if the fleet was open", nil, true, nil},
			{"refuses an unregistered instance otherwise", nil, false, tasks.NotAllowed},
			{"allows the tenant's own", []tasks.Instance{{ID: "phone-1", Tenant: "acme"}}, false, nil},
			{"refuses another tenant's", []tasks.Instance{{ID: "phone-1", Tenant: "other"}}, false, tasks.NotAllowed},
			{"refuses another tenant's in an open fleet too", []tasks.Instance{{ID: "phone-1", Tenant: "other"}}, true, tasks.NotAllowed},
			{"refuses a protected one", []tasks.Instance{{ID: "phone-1", Tenant: "acme", Protected: true}}, true, tasks.NotAllowed},
		} {
			t.Run(row.name, func(t *testing.T) {
				if _, err := w.db.Fleet.Unregister(t.Context(), []string{"phone-1"}, tasks.Actor{}); err != nil {
					t.Fatal(err)
				}
				if row.fleet != nil {
					if err := w.db.Fleet.Register(t.Context(), row.fleet, tasks.Actor{}); err != nil {
						t.Fatal(err)
					}
				}
				d := w.submit(t, "phone-1").Deliveries()[0]
				d.AllowUnregistered = row.open
				if _, err := w.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); !errors.Is(err, row.want) {
					t.Errorf("begin: %v, want %v", err, row.want)
				}
				w.rdb.Del(t.Context(), "reset:lock:{phone-1}")
			})
		}
	})
}

func TestProtectionHoldsForJobsThatAreAccepted(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		if err := w.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "phone-1", Tenant: "acme"}}, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		d := w.submit(t, "phone-1").Deliveries()[0]
		protect := func(id string, protected, want bool) {
			t.Helper()
			missing, err := w.db.Fleet.Unprotect(t.Context(), []string{id}, tasks.Actor{})
			if protected {
				missing, _, err = w.db.Fleet.Protect(t.Context(), []string{id}, tasks.Time{}, tasks.Actor{})
			}
			if err != nil || missing == nil != want {
				t.Errorf("missing %v, %v", missing, err)
			}
		}
		protect("phone-2", true, false)
		if n := w.rdb.Exists(t.Context(), "reset:fleet:{phone-2}").Val(); n != 0 {
			t.Error("an instance that is not registered has an entry")
		}
		protect("phone-1", true, true)
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); !errors.Is(err, tasks.NotAllowed) {
			t.Errorf("begin of a protected one: %v", err)
		}
		protect("phone-1", false, true)
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); err != nil {
			t.Error(err)
		}
	})
}
