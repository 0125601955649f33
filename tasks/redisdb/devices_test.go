package redisdb_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// at is a change that gives an instance an address.
func at(id, address string) tasks.FleetChange {
	return tasks.FleetChange{ID: id, Tenant: "acme", Driver: new("lab"), Address: &address}
}

// One phone under two IDs could be reset twice at a time, and under one ID while it is protected
// under the other.
func TestOneDeviceHasOneID(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		imports := func(name, want string, shared bool, changes ...tasks.FleetChange) {
			t.Helper()
			before := w.fleet(t)
			_, err := w.db.Fleet.Import(t.Context(), changes, shared, importer)
			refused, _ := errors.AsType[*tasks.EntryError](err)
			switch {
			case want == "" && err != nil:
				t.Errorf("%s: %v", name, err)
			case want != "" && (refused == nil || !strings.Contains(err.Error(), want)):
				t.Errorf("%s: %v, want %s", name, err, want)
			case want != "" && w.fleet(t) != before:
				t.Errorf("%s: the fleet is %s", name, w.fleet(t))
			}
		}
		imports("two of one import", "instance b would be the same device as instance a: address 10.0.0.1 of the driver lab", false, at("a", "10.0.0.1"), at("b", "10.0.0.1"))
		imports("the first", "", false, at("a", "10.0.0.1"))
		imports("the same again", "", false, at("a", "10.0.0.1"))
		imports("another one", "instance b would be the same device as instance a", false, at("c", "10.0.0.3"), at("b", "10.0.0.1"))
		imports("one of another driver", "", false, tasks.FleetChange{ID: "b", Tenant: "acme", Address: new("10.0.0.1")})
		imports("which gets this driver", "instance b would be the same device as instance a", false, tasks.FleetChange{ID: "b", Driver: new("lab")})
		imports("with leave", "", true, at("d", "10.0.0.1"))
		imports("the same without", "", false, at("d", "10.0.0.1"))
		imports("an address that is an ID", "instance phone-1 would be the same device as instance x", false, at("x", "phone-1"), at("phone-1", ""))
		imports("an ID", "", false, at("phone-1", ""))
		imports("and then the address", "instance x would be the same device as instance phone-1", false, at("x", "phone-1"))
		imports("an address", "", false, at("y", "phone-2"))
		imports("and then the ID", "instance phone-2 would be the same device as instance y", false, at("phone-2", ""))
		imports("an ID that is found elsewhere", "", false, at("phone-2", "10.0.0.9"))
		imports("two that change places", "", false, at("a", "10.0.0.7"), at("d", "10.0.0.8"))
		imports("two that change places", "", false, at("a", "10.0.0.8"), at("d", "10.0.0.7"))
		if _, err := w.db.Fleet.Unregister(t.Context(), []string{"a"}, importer); err != nil {
			t.Fatal(err)
		}
		// It was registered just now, and might be still on its way.
		imports("one that was removed", "is just getting it; try again in a minute", false, at("e", "10.0.0.8"))
		for _, id := range []string{"a", "d"} {
			w.rdb.ZAdd(t.Context(), "reset:address:lab:10.0.0.8", redis.Z{Member: id, Score: float64(time.Now().Add(-time.Hour).UnixMilli())})
		}
		w.rdb.Set(t.Context(), "reset:lock:{a}", "item token", time.Minute)
		imports("one that is being reset there", "instance a may be in the middle of a reset there", false, at("e", "10.0.0.8"))
		w.rdb.Del(t.Context(), "reset:lock:{a}")
		imports("one that was", "", false, at("e", "10.0.0.8"))
	})
}

// However many imports at the same time give one device to several instances, one instance has it
// in the end at most.
func TestImportsAtOnceShareNoDevice(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		for n := range 20 {
			address := "10.0.0." + string(rune('a'+n))
			var all sync.WaitGroup
			for _, id := range []string{"a", "b", "c"} {
				all.Go(func() {
					_, err := w.db.Fleet.Import(t.Context(), []tasks.FleetChange{at(id, address)}, false, importer)
					if _, refused := errors.AsType[*tasks.EntryError](err); err != nil && !refused {
						t.Error(err)
					}
				})
			}
			all.Wait()
			fleet, err := w.db.Fleet.Registered(t.Context(), []string{"a", "b", "c"})
			if err != nil {
				t.Fatal(err)
			}
			have := 0
			for _, in := range fleet {
				if in.Address == address {
					have++
				}
			}
			if have > 1 {
				t.Fatalf("round %d: %+v", n, fleet)
			}
		}
	})
}

func TestAProtectionHasAnEnd(t *testing.T) {
	eitherLock(t, func(t *testing.T, w world) {
		if err := w.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "phone-1", Tenant: "acme"}}, importer); err != nil {
			t.Fatal(err)
		}
		d := w.submit(t, "phone-1").Deliveries()[0]
		entry := func() tasks.Instance {
			t.Helper()
			fleet, err := w.db.Fleet.Registered(t.Context(), []string{"phone-1"})
			if err != nil {
				t.Fatal(err)
			}
			return fleet["phone-1"]
		}
		protect := func(until time.Time, unchanged bool) {
			t.Helper()
			missing, kept, err := w.db.Fleet.Protect(t.Context(), []string{"phone-1"}, tasks.Time{Time: until}, tasks.Actor{By: "user a", Reason: "hold"})
			if err != nil || missing != nil || kept != nil != unchanged {
				t.Errorf("missing %v, kept %v, %v", missing, kept, err)
			}
		}
		soon := time.Now().Add(500 * time.Millisecond).Truncate(time.Millisecond).UTC()
		protect(soon, false)
		if in := entry(); !in.Protected || in.By != "user a" || in.Reason != "hold" || in.Since.IsZero() || !in.Until.Equal(soon) {
			t.Errorf("entry %+v", in)
		}
		if _, err := w.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); !errors.Is(err, tasks.NotAllowed) {
			t.Errorf("begin of a protected one: %v", err)
		}
		eventually(t, "the end of the protection", func(context.Context) error {
			if entry().Protected {
				return errors.New("it holds")
			}
			return nil
		})
		if in := entry(); in.Reason != "" || !in.Until.IsZero() {
			t.Errorf("it has ended, and is %+v", in)
		}
		eventually(t, "a beginning", func(ctx context.Context) error {
			_, err := w.db.Attempts.Begin(ctx, d, "t", "k", time.Minute)
			return err
		})
		protect(time.Now().Add(time.Hour), false)
		if err := w.db.Attempts.Send(t.Context(), d, "t", ""); !errors.Is(err, tasks.NotAllowed) {
			t.Errorf("may send to a protected one: %v", err)
		}
		protect(time.Time{}, false)
		protect(time.Now().Add(time.Minute), true)
		if in := entry(); !in.Protected || !in.Until.IsZero() {
			t.Errorf("a shorter protection has changed it: %+v", in)
		}
	})
}

// A reset that is meant for the user before does not begin.
func TestAResetIsForOneGeneration(t *testing.T) {
	eitherLock(t, func(t *testing.T, w world) {
		if err := w.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "phone-1", Tenant: "acme"}, {ID: "phone-2", Tenant: "acme"}}, importer); err != nil {
			t.Fatal(err)
		}
		reassign := func() {
			t.Helper()
			if _, err := w.db.Fleet.Import(t.Context(), []tasks.FleetChange{{ID: "phone-1", Reassigned: true}}, false, importer); err != nil {
				t.Fatal(err)
			}
		}
		submit := func(generations map[string]int) tasks.Delivery {
			t.Helper()
			job, err := w.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}, Generations: generations})
			if err != nil {
				t.Fatal(err)
			}
			read := w.read(t, job.ID) // what the sweeper delivers again is what the record has
			if d := read.Deliveries()[0]; d != job.Deliveries()[0] {
				t.Errorf("the record has %+v, want %+v", d, job.Deliveries()[0])
			}
			return read.Deliveries()[0]
		}
		first, second, either := submit(map[string]int{"phone-1": 1}), submit(map[string]int{"phone-1": 2}), submit(nil)
		if _, err := w.db.Attempts.Begin(t.Context(), second, "t2", "k", time.Minute); !errors.Is(err, tasks.Reassigned) {
			t.Errorf("one that is still to come: %v", err)
		}
		if _, err := w.db.Attempts.Begin(t.Context(), first, "t1", "k", time.Minute); err != nil {
			t.Fatal(err)
		}
		reassign()
		if err := w.db.Attempts.Send(t.Context(), first, "t1", ""); !errors.Is(err, tasks.Reassigned) {
			t.Errorf("may send: %v", err)
		}
		if _, err := w.db.Attempts.Finish(t.Context(), first, "t1", tasks.Outcome{Transition: tasks.Retry, Code: tasks.ResetFailed}, true); err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Attempts.Begin(t.Context(), first, "t3", "k", time.Minute); !errors.Is(err, tasks.Reassigned) {
			t.Errorf("begin: %v", err)
		}
		for _, d := range []tasks.Delivery{second, either} {
			_, err := w.db.Attempts.Begin(t.Context(), d, "t"+d.ItemID[:1]+"x", "k", time.Minute)
			if err != nil {
				t.Errorf("begin of the present generation: %v", err)
			}
			if _, err := w.db.Attempts.Finish(t.Context(), d, "t"+d.ItemID[:1]+"x", tasks.Outcome{Transition: tasks.Succeed}, true); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestTheGenerationNeverGoesBack(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		generation := func(want int, c tasks.FleetChange) {
			t.Helper()
			c.ID = "phone-1"
			_, err := w.db.Fleet.Import(t.Context(), []tasks.FleetChange{c}, false, importer)
			fleet, _ := w.db.Fleet.Registered(t.Context(), []string{c.ID})
			if got := fleet[c.ID].Generation; err != nil || got != want {
				t.Errorf("%+v gives %d, %v; want %d", c, got, err, want)
			}
		}
		generation(1, tasks.FleetChange{Tenant: "acme"})
		generation(1, tasks.FleetChange{Tenant: "acme"})
		generation(2, tasks.FleetChange{Tenant: "globex"})
		generation(3, tasks.FleetChange{Reassigned: true})
		generation(3, tasks.FleetChange{Generation: 3})
		generation(9, tasks.FleetChange{Generation: 9})
		_, err := w.db.Fleet.Import(t.Context(), []tasks.FleetChange{{ID: "phone-1", Generation: 8}}, false, importer)
		if err == nil || !strings.Contains(err.Error(), "instance phone-1 has the generation 9, which does not go back to 8") {
			t.Error(err)
		}
	})
}
