package redisdb_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// many submits n items of as many instances.
func (w world) many(t *testing.T, n int) []tasks.Delivery {
	t.Helper()
	var all []tasks.Delivery
	for len(all) < n {
		instances := make([]string, min(32, n-len(all)))
		for i := range instances {
			instances[i] = fmt.Sprintf("phone-%d", len(all)+i)
		}
		all = append(all, w.submit(t, instances...).Deliveries()...)
	}
	return all
}

// atOnce begins an attempt at every item from as many goroutines.
func (w world) atOnce(ctx context.Context, all []tasks.Delivery) []error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, d := range all {
		wg.Go(func() {
			begun, err := w.db.Attempts.Begin(ctx, d, "t-"+d.InstanceID, "k", time.Minute)
			if err == nil && begun.Number != 1 {
				err = fmt.Errorf("begun %+v", begun)
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return errs
}

func inGroups(t *testing.T) world {
	t.Helper()
	return open(t, redisdb.Options{URL: redistest.Start(t).URL()})
}

func TestManyAttemptsShareScripts(t *testing.T) {
	w := inGroups(t)
	all := w.many(t, 500)
	if err := w.rdb.ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.atOnce(t.Context(), all)...); err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if got, want := w.rdb.Get(t.Context(), "reset:lock:{"+d.InstanceID+"}").Val(), d.ItemID+" t-"+d.InstanceID; got != want {
			t.Fatalf("%s is locked by %q, want %q", d.InstanceID, got, want)
		}
	}
	var scripts int
	for line := range strings.Lines(w.rdb.Info(t.Context(), "commandstats").Val()) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
			if _, err := fmt.Sscanf(rest, "%d", &scripts); err != nil {
				t.Fatal(err)
			}
		}
	}
	// How many come together is for the scheduler to say; one by one they do not.
	if scripts == 0 || scripts > len(all)/2 {
		t.Errorf("%d scripts for %d attempts", scripts, len(all))
	}
}

func TestABadRecordHurtsNobodyElse(t *testing.T) {
	w := inGroups(t)
	all := w.many(t, 64)
	bad := w.submit(t, "phone-bad")
	if err := errors.Join(
		w.rdb.Del(t.Context(), "reset:{"+bad.ID+"}").Err(),
		w.rdb.Set(t.Context(), "reset:{"+bad.ID+"}", "not a hash", 0).Err(),
	); err != nil {
		t.Fatal(err)
	}
	errs := w.atOnce(t.Context(), append(all, bad.Deliveries()...))
	if err := errors.Join(errs[:len(all)]...); err != nil {
		t.Errorf("neighbours: %v", err)
	}
	if err := errs[len(all)]; err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
		t.Errorf("the bad one: %v", err)
	}
	// Alone, its error is that of the command, which go-redis may act upon.
	_, err := w.db.Attempts.Begin(t.Context(), bad.Deliveries()[0], "t", "k", time.Minute)
	if !redis.HasErrorPrefix(errors.Unwrap(err), "WRONGTYPE") {
		t.Errorf("alone: %v", err)
	}
}

func TestGroupsLoadTheirScripts(t *testing.T) {
	w := inGroups(t)
	all := w.many(t, 64)
	if err := w.rdb.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.atOnce(t.Context(), all)...); err != nil {
		t.Error(err)
	}
}

func TestACallInAGroupEndsWithItsContext(t *testing.T) {
	t.Parallel()
	w := inGroups(t)
	all := w.many(t, 64)
	if err := w.rdb.Do(t.Context(), "CLIENT", "PAUSE", 1000, "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	ended := 0
	for _, err := range w.atOnce(cancelled(t), all) {
		if errors.Is(err, context.Canceled) {
			ended++
		}
	}
	// Those that send the groups cannot leave them.
	if ended < len(all)/2 {
		t.Errorf("%d of %d calls ended", ended, len(all))
	}
}

func cancelled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
