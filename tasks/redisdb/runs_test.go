package redisdb_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/runs"
)

func ofRun(n int, key string) tasks.RunSubmission {
	s := tasks.RunSubmission{Tenant: "acme", IdempotencyKey: key, AllowUnregistered: true, Options: tasks.RunOptions{MaxParallel: 64}, Labels: map[string]string{"site": "lab"}}
	for i := range n {
		s.InstanceIDs = append(s.InstanceIDs, fmt.Sprintf("phone-%d", i))
	}
	return s
}

func TestARunIsMadeOnce(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		s := ofRun(1000, "k")
		s.By, s.From, s.Reason = "token 7", "192.0.2.1", "recall"
		ids := make([]string, 8)
		var all sync.WaitGroup
		for i := range ids {
			all.Go(func() {
				run, err := w.db.Runs.Create(t.Context(), s)
				if err != nil {
					t.Error(err)
				}
				ids[i] = run.ID
			})
		}
		all.Wait()
		if slices.Sort(ids); ids[0] != ids[len(ids)-1] || ids[0] != s.RunID() {
			t.Errorf("runs %v", ids)
		}
		run, err := w.db.Runs.Run(t.Context(), ids[0])
		if err != nil || run.Total != 1000 || run.Counts.Pending != 1000 || run.Parts != 32 || run.State != tasks.RunRunning || run.By != "token 7" || run.From != "192.0.2.1" {
			t.Errorf("run %+v, %v", run, err)
		}
		if keys := w.rdb.Keys(t.Context(), "reset:run:*").Val(); len(keys) != 2 {
			t.Errorf("keys %v", keys)
		}
		var listed []string
		if err := w.db.Runs.Instances(t.Context(), run, func(in tasks.RunInstance) error {
			listed = append(listed, in.Item.InstanceID)
			return nil
		}); err != nil || !slices.Equal(listed, s.InstanceIDs) {
			t.Errorf("%d instances, %v", len(listed), err)
		}
		trail := w.trail(t, tasks.AuditFilter{Action: tasks.ActionRun})
		for _, e := range trail {
			if e.Run != run.ID || e.List != tasks.ListHash(s.InstanceIDs) || e.Detail != "1000 instances" || e.Reason != "recall" {
				t.Errorf("entry %+v", e)
			}
		}
		if len(trail) == 0 {
			t.Error("no entry")
		}
		s.InstanceIDs = s.InstanceIDs[1:]
		if _, err := w.db.Runs.Create(t.Context(), s); tasks.CodeOf(err) != tasks.KeyReused {
			t.Errorf("another list under the same key: %v", err)
		}
		if _, err := w.db.Runs.Run(t.Context(), tasks.NewJobID()); !errors.Is(err, tasks.RunGone) {
			t.Errorf("no run: %v", err)
		}
	})
}

func TestRunsAreListedNewestFirst(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		var made []string
		for n := range 7 {
			s := ofRun(1, "")
			if n%2 == 1 {
				s.Labels = nil
			}
			run, err := w.db.Runs.Create(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			// Their times differ, whatever the resolution of a clock.
			w.rdb.ZIncrBy(t.Context(), "reset:runs:{acme}", float64(n), run.ID)
			made = append([]string{run.ID}, made...)
		}
		other := ofRun(1, "")
		other.Tenant = "globex"
		if _, err := w.db.Runs.Create(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		list := func(f tasks.RunFilter) (ids []string) {
			t.Helper()
			for {
				found, cursor, err := w.db.Runs.List(t.Context(), "acme", f)
				if err != nil || len(found) > f.Limit {
					t.Fatalf("%d found, %v", len(found), err)
				}
				for _, run := range found {
					ids = append(ids, run.ID)
				}
				if f.Cursor = cursor; cursor == "" {
					return ids
				}
			}
		}
		for _, limit := range []int{1, 3, 100} {
			if got := list(tasks.RunFilter{Limit: limit}); !slices.Equal(got, made) {
				t.Errorf("by %d: %v, want %v", limit, got, made)
			}
		}
		if got := list(tasks.RunFilter{Limit: 2, Labels: []string{"site=lab"}}); len(got) != 4 {
			t.Errorf("with the label: %v", got)
		}
		if got := list(tasks.RunFilter{Limit: 2, State: tasks.RunPaused}); len(got) != 0 {
			t.Errorf("paused: %v", got)
		}
		if _, _, err := w.db.Runs.List(t.Context(), "acme", tasks.RunFilter{Limit: 1, Cursor: "?"}); tasks.CodeOf(err) != tasks.BadRequest {
			t.Errorf("a cursor of nobody: %v", err)
		}
	})
}

// Who goes through a list while runs are made sees each of those that were there once.
func TestARunMadeBetweenTwoPagesMovesNoOther(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		submit := func(n int) string {
			t.Helper()
			run, err := w.db.Runs.Create(t.Context(), ofRun(1, ""))
			if err != nil {
				t.Fatal(err)
			}
			// By twos they have the same time.
			w.rdb.ZAdd(t.Context(), "reset:runs:{acme}", redis.Z{Score: float64(1_800_000_000_000 + n/2), Member: run.ID})
			return run.ID
		}
		want := map[string]int{}
		for n := range 6 {
			want[submit(n)] = 1
		}
		got := map[string]int{}
		f := tasks.RunFilter{Limit: 1}
		for page := 0; ; page++ {
			found, cursor, err := w.db.Runs.List(t.Context(), "acme", f)
			if err != nil {
				t.Fatal(err)
			}
			for _, run := range found {
				got[run.ID]++
			}
			if f.Cursor = cursor; cursor == "" {
				break
			}
			if page < 3 {
				submit(20)
			}
		}
		if !maps.Equal(got, want) {
			t.Errorf("listed %v, want %v", got, want)
		}
	})
}

// Without that every run that there ever was would stay listed.
func TestRunsThatHaveExpiredAreForgotten(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		lists := []string{"reset:runs:{acme}", "reset:runs:all"}
		submit := func(key string, age time.Duration) string {
			t.Helper()
			run, err := w.db.Runs.Create(t.Context(), ofRun(1, key))
			if err != nil {
				t.Fatal(err)
			}
			for _, list := range lists {
				w.rdb.ZIncrBy(t.Context(), list, -float64(age.Milliseconds()), run.ID)
			}
			return run.ID
		}
		lasts, expired, beingMade := submit("", 48*time.Hour), submit("", 24*time.Hour), submit("", time.Second)
		again := submit("k", 36*time.Hour)
		for _, id := range []string{expired, beingMade, again} {
			w.rdb.Del(t.Context(), "reset:run:{"+id+"}", "reset:run:{"+id+"}:list")
		}
		if id := submit("k", 0); id != again {
			t.Fatalf("the same key has become %s and %s", again, id)
		}
		for _, list := range lists {
			if got, want := w.rdb.ZRange(t.Context(), list, 0, -1).Val(), []string{lasts, beingMade, again}; !slices.Equal(got, want) {
				t.Errorf("%s has %v, want %v", list, got, want)
			}
		}
	})
}

func TestRunsOfAllTenantsAreFound(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ids := map[string]string{} // the run, by its name
		for n, tenant := range []string{"acme", "globex", "acme", "globex", "acme"} {
			s := ofRun(1, "")
			s.Name, s.Tenant = fmt.Sprint(n), tenant
			run, err := w.db.Runs.Create(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			ids[s.Name] = run.ID
			// Their times differ, whatever the resolution of a clock.
			w.rdb.HIncrBy(t.Context(), "reset:run:{"+run.ID+"}", "created", int64(n*1000))
			for _, key := range []string{"reset:runs:all", "reset:runs:{" + tenant + "}"} {
				w.rdb.ZIncrBy(t.Context(), key, float64(n*1000), run.ID)
			}
		}
		for name, state := range map[string]string{"1": "rejected", "2": "cancelled"} {
			w.rdb.HSet(t.Context(), "reset:run:{"+ids[name]+"}", "state", state)
		}
		w.rdb.HSet(t.Context(), "reset:run:{"+ids["3"]+"}", "state", "paused")
		w.rdb.ZAdd(t.Context(), "reset:runs", redis.Z{Member: tasks.NewJobID()}) // is about to be made
		names := func(found []tasks.Run, err error) (text string) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			for _, run := range found {
				text += run.Name
			}
			return text
		}
		third, err := w.db.Runs.Run(t.Context(), ids["3"])
		if err != nil {
			t.Fatal(err)
		}
		all := tasks.RunFilter{Limit: 10}
		for _, row := range []struct {
			s          tasks.RunSearch
			want, open string
			more       int
		}{
			{tasks.RunSearch{RunFilter: all}, "43210", "430", 0},
			{tasks.RunSearch{RunFilter: all, Ended: true}, "21", "", 0},
			{tasks.RunSearch{RunFilter: all, Tenant: "globex"}, "31", "3", 0},
			{tasks.RunSearch{RunFilter: all, Tenant: "globex", Ended: true}, "1", "", 0},
			{tasks.RunSearch{RunFilter: all, Tenant: "nobody"}, "", "", 0},
			{tasks.RunSearch{RunFilter: tasks.RunFilter{Limit: 10, State: tasks.RunPaused}}, "3", "3", 0},
			{tasks.RunSearch{RunFilter: tasks.RunFilter{Limit: 10, Since: third.CreatedAt.Time}}, "43", "43", 0},
			{tasks.RunSearch{RunFilter: tasks.RunFilter{Limit: 10, Until: third.CreatedAt.Time}}, "210", "0", 0},
			{tasks.RunSearch{RunFilter: tasks.RunFilter{Limit: 10, Labels: []string{"site=nowhere"}}}, "", "", 0},
			{tasks.RunSearch{RunFilter: tasks.RunFilter{Limit: 1}}, "4", "4", 2},
		} {
			found, _, err := w.db.Runs.Search(t.Context(), row.s)
			if got := names(found, err); got != row.want {
				t.Errorf("%+v: %q, want %q", row.s, got, row.want)
			}
			found, more, err := w.db.Runs.SearchOpen(t.Context(), row.s)
			if got := names(found, err); got != row.open || more != row.more {
				t.Errorf("open ones of %+v: %q and %d more, want %q", row.s, got, more, row.open)
			}
		}
		found, cursor, err := w.db.Runs.Search(t.Context(), tasks.RunSearch{RunFilter: tasks.RunFilter{Limit: 3}})
		first := names(found, err)
		found, last, err := w.db.Runs.Search(t.Context(), tasks.RunSearch{RunFilter: tasks.RunFilter{Limit: 3, Cursor: cursor}})
		if got := first + " " + names(found, err); got != "432 10" || last != "" {
			t.Errorf("by pages: %s, then %q", got, last)
		}
	})
}

// What a record cannot be is told as such, and stops no other run.
func TestARunThatCannotBeRead(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		run, err := w.db.Runs.Create(t.Context(), ofRun(40, ""))
		if err != nil {
			t.Fatal(err)
		}
		other, err := w.db.Runs.Create(t.Context(), ofRun(3, ""))
		if err != nil {
			t.Fatal(err)
		}
		key := "reset:run:{" + run.ID + "}"
		for field, value := range map[string]string{"v": "9", "total": "x", "growth": "", "max_failures": "a lot", "labels": "{", "o:x": "1", "e:x": "{}", "e:9": "{"} {
			before := w.rdb.HGet(t.Context(), key, field).Val()
			w.rdb.HSet(t.Context(), key, field, value)
			if _, err := w.db.Runs.Run(t.Context(), run.ID); err == nil {
				t.Errorf("%s=%q is read", field, value)
			}
			if found, _, err := w.db.Runs.List(t.Context(), "acme", tasks.RunFilter{Limit: 10}); err != nil || len(found) != 1 || found[0].ID != other.ID {
				t.Errorf("with %s=%q: %d listed, %v", field, value, len(found), err)
			}
			if before == "" && field[1] == ':' {
				w.rdb.HDel(t.Context(), key, field)
			} else {
				w.rdb.HSet(t.Context(), key, field, before)
			}
		}
		if _, err := w.db.Runs.Run(t.Context(), run.ID); err != nil {
			t.Error(err)
		}
	})
}

// Who waits for the end of a run hears of it.
func TestTheEndOfARunIsAnnounced(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		run, err := w.db.Runs.Create(t.Context(), ofRun(1, ""))
		if err != nil {
			t.Fatal(err)
		}
		heard, done := make(chan string, 100), make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() { done <- w.db.Runs.Announced(ctx, func(run string) { heard <- run }) }()
		eventually(t, "the subscription is there", func(ctx context.Context) error {
			if w.rdb.PubSubNumSub(ctx, runs.Channel).Val()[runs.Channel] != 1 {
				return errors.New("not yet")
			}
			return nil
		})
		if ended, err := w.db.RunProgress.Finish(t.Context(), run); err != nil || !ended {
			t.Fatalf("ended %t, %v", ended, err)
		}
		select {
		case id := <-heard:
			if id != run.ID {
				t.Errorf("heard %s, want %s", id, run.ID)
			}
		case <-time.After(30 * time.Second):
			t.Error("nothing was heard")
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// decider is an audit trail that lets something happen just before a decision is carried out.
type decider func()

func (d decider) Decide(ctx context.Context, _ tasks.AuditEntry, act func(context.Context) error) error {
	d()
	return act(ctx)
}

// A run that has no record in time is taken off the list of open ones. What is made after that, no runner would
// ever look at.
func TestARunIsNotMadeOnceItIsOffTheList(t *testing.T) {
	const open = "reset:runs"
	w, server := skewed(t, 0)
	s := ofRun(10, "k")
	var meanwhile func()
	db := runs.New(w.db.Redis, w.db.Jobs, decider(func() { meanwhile() }), runs.Options{Refuse: func(context.Context) error { return nil }, Retention: time.Hour})
	progress := w.db.RunProgress

	meanwhile = func() { w.set(t, server, time.Now().Add(time.Minute)) } // this sending hangs
	if run, err := db.Create(t.Context(), s); err == nil {
		t.Errorf("run %+v", run)
	}
	if _, err := db.Run(t.Context(), s.RunID()); !errors.Is(err, tasks.RunGone) {
		t.Errorf("there is a run: %v", err)
	}

	meanwhile = func() { // the next one finds itself listed, and a runner comes by
		claims, err := progress.Due(t.Context(), 10, "runner", time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range claims {
			if err := progress.Put(t.Context(), c, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := db.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := w.rdb.ZScore(t.Context(), open, s.RunID()).Result(); err != nil {
		t.Errorf("no runner will look at the run: %v", err)
	}
}

// A control plane may have a code for each instance: then the record, which every look reads, stays small, and a retry
// does not hand its script more than it can take.
func TestErrorCodesOfARunAreBounded(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		run, err := w.db.Runs.Create(t.Context(), ofRun(1280, ""))
		if err != nil {
			t.Fatal(err)
		}
		for part := range run.Parts {
			if run, err = w.db.Runs.Stored(t.Context(), run.ID); err != nil {
				t.Fatal(err)
			}
			parts, err := w.db.Runs.Parts(t.Context(), run.ID, part, 1)
			if err != nil {
				t.Fatal(err)
			}
			if taken, err := w.db.RunProgress.Take(t.Context(), run, parts); err != nil || !taken {
				t.Fatalf("taken %t, %v", taken, err)
			}
			job := tasks.Job{Counts: tasks.Counts{Failed: len(parts[0].InstanceIDs)}}
			for _, instance := range parts[0].InstanceIDs {
				job.Items = append(job.Items, tasks.Item{State: tasks.ItemFailed, Code: tasks.Code("of " + instance)})
			}
			job.Items[31].Code = "of phone-0"
			if err := w.db.RunProgress.Close(t.Context(), run.ID, part, job); err != nil {
				t.Fatal(err)
			}
		}
		if run, err = w.db.Runs.Stored(t.Context(), run.ID); err != nil || len(run.Codes) != 1000 || run.Codes["of phone-0"] != 41 || run.Closed.Failed != 1280 {
			t.Errorf("%d codes, the first one %d times, of %d failures, %v", len(run.Codes), run.Codes["of phone-0"], run.Closed.Failed, err)
		}
	})
}
