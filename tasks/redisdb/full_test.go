package redisdb_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// told is who hears of entries of the audit trail.
type told struct {
	mu             sync.Mutex
	in, out, never []tasks.AuditEntry // the trail, not yet, never
}

func (l *told) hear(e tasks.AuditEntry, missing error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case missing == nil:
		l.in = append(l.in, e)
	case strings.Contains(missing.Error(), "OOM"):
		l.out = append(l.out, e)
	default:
		l.never = append(l.never, e)
	}
}

// openBounded opens a DB on a Redis with a bound.
func openBounded(t *testing.T, opts redisdb.Options) (world, *told) {
	t.Helper()
	heard := &told{}
	opts.URL = redistest.Start(t, "maxmemory 16mb").URL()
	opts.Audited = heard.hear
	return open(t, opts), heard
}

// fill takes all the room that there is.
func fill(t *testing.T, w world) {
	t.Helper()
	for size := 1 << 20; size >= 16; size /= 4 {
		for n := 0; ; n++ {
			if err := w.rdb.Set(t.Context(), fmt.Sprintf("junk:%d:%d", size, n), strings.Repeat("x", size), 0).Err(); err != nil {
				if !redis.IsOOMError(err) {
					t.Fatal(err)
				}
				break
			}
		}
	}
	// The last commands free some buffers: not a byte is left.
	if err := w.rdb.ConfigSet(t.Context(), "maxmemory", "2mb").Err(); err != nil {
		t.Fatal(err)
	}
	if err := w.rdb.Set(t.Context(), "junk", "x", 0).Err(); !redis.IsOOMError(err) {
		t.Fatalf("Redis is not full: %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheBrakeWorksWhileRedisIsFull(t *testing.T) {
	t.Parallel()
	w, heard := openBounded(t, redisdb.Options{LateEntries: 100})
	ctx := t.Context()
	by := tasks.Actor{By: "user x@y", Reason: "flood"}
	waits := w.submit(t, "phone-1", "phone-2")
	half := w.submit(t, "phone-3", "phone-4")
	paused, err := w.db.Runs.Create(ctx, ofRun(50, "paused"))
	must(t, err)
	cancelled, err := w.db.Runs.Create(ctx, ofRun(50, "cancelled"))
	must(t, err)
	d := half.Deliveries()[0]
	_, err = w.db.Attempts.Begin(ctx, d, "t", "k", time.Minute)
	must(t, err)
	token, err := w.db.Tokens.Add(ctx, "secret", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, 0, by)
	must(t, err)
	must(t, w.db.Fleet.Register(ctx, []tasks.Instance{{ID: "p1", Tenant: "acme"}, {ID: "p2", Tenant: "acme"}}, by))
	o := tasks.Operator{Name: "alice", Role: tasks.RoleOperator, PasswordHash: "x"}
	_, err = w.db.Operators.Add(ctx, o, by)
	must(t, err)
	e, err := w.db.Endpoints.Add(ctx, tasks.Endpoint{ID: "ep_1", Tenant: "acme", URL: "https://x.example", Secret: "whsec_1", Topics: tasks.Topics}, by)
	must(t, err)
	before := len(w.trail(t, tasks.AuditFilter{}))
	fill(t, w)

	must(t, w.db.Operators.AddSession(ctx, "session", o, tasks.Visit{From: "127.0.0.1"})) // the way to the brake
	if who, found, err := w.db.Operators.Session(ctx, "session"); err != nil || !found || who.Name != "alice" {
		t.Errorf("session of %+v, %t, %v", who, found, err)
	}
	for _, row := range []struct {
		action tasks.Action
		do     func() error
		done   func() bool
	}{
		{tasks.ActionCancel, func() error { return w.db.Records.Cancel(ctx, waits.ID, by) }, func() bool {
			job, err := w.db.Jobs.Job(ctx, waits.ID)
			return err == nil && job.State == tasks.JobCancelled
		}},
		{tasks.ActionCancel, func() error { return w.db.Records.Cancel(ctx, half.ID, by) }, func() bool {
			job, err := w.db.Jobs.Job(ctx, half.ID)
			return err == nil && job.Counts == tasks.Counts{Running: 1, Cancelled: 1}
		}},
		{tasks.ActionPauseRun, func() error { return w.db.RunDecisions.Pause(ctx, paused.ID, by) }, func() bool {
			run, err := w.db.Runs.Run(ctx, paused.ID)
			halt, unread := w.db.Policies.RunHalt(ctx, paused.ID)
			return err == nil && run.State == tasks.RunPaused && len(run.Untold) == 1 && unread == nil && halt != nil
		}},
		{tasks.ActionCancelRun, func() error { return w.db.RunDecisions.Cancel(ctx, cancelled.ID, by) }, func() bool {
			run, err := w.db.Runs.Run(ctx, cancelled.ID)
			return err == nil && run.Counts.Cancelled == 50
		}},
		{tasks.ActionHalt, func() error { return w.db.Policies.Halt(ctx, "acme", tasks.HaltedByTenant, by) }, func() bool {
			p, err := w.db.Policies.Policy(ctx, "acme")
			return err == nil && p.OwnHalt != nil && p.OwnHalt.Reason == "flood"
		}},
		{tasks.ActionHalt, func() error { return w.db.Policies.Halt(ctx, "", tasks.HaltedByOperator, by) }, func() bool {
			p, err := w.db.Policies.Policy(ctx, "somebody")
			return err == nil && p.Halt() != nil
		}},
		{tasks.ActionRevokeToken, func() error { _, err := w.db.Tokens.Revoke(ctx, token.ID, by); return err }, func() bool {
			_, err := w.db.Tokens.Token(ctx, "secret")
			return tasks.CodeOf(err) == tasks.TokenExpired
		}},
		{tasks.ActionProtect, func() error { _, _, err := w.db.Fleet.Protect(ctx, []string{"p1"}, tasks.Time{}, by); return err }, func() bool {
			fleet, err := w.db.Fleet.Registered(ctx, []string{"p1"})
			return err == nil && fleet["p1"].Protected
		}},
		{tasks.ActionUnregister, func() error { _, err := w.db.Fleet.Unregister(ctx, []string{"p2"}, by); return err }, func() bool {
			fleet, err := w.db.Fleet.Registered(ctx, []string{"p2"})
			return err == nil && len(fleet) == 0
		}},
		{tasks.ActionRemoveWebhook, func() error { return w.db.Endpoints.Remove(ctx, e, by) }, func() bool {
			_, err := w.db.Endpoints.EndpointByID(ctx, e.ID)
			return errors.Is(err, tasks.ErrNoEndpoint)
		}},
		{tasks.ActionRemoveOperator, func() error { _, err := w.db.Operators.Remove(ctx, "alice", by); return err }, func() bool {
			_, found, err := w.db.Operators.Session(ctx, "session")
			return err == nil && !found
		}},
	} {
		if err := row.do(); err != nil || !row.done() {
			t.Errorf("%s: %v, done %t", row.action, err, row.done())
		}
		if n := len(heard.out); n == 0 || heard.out[n-1].Action != row.action || heard.out[n-1].By != by.By || heard.out[n-1].DecidedAt.IsZero() {
			t.Errorf("%s: told %+v", row.action, heard.out)
		}
	}
	must(t, w.db.Operators.EndSession(ctx, "session", "127.0.0.1"))
	// What runs can be noted, or its outcome would be lost.
	must(t, w.db.Attempts.Checkpoint(ctx, d, "t", "https://plane.example/jobs/7"))
	if ended, err := w.db.Attempts.Finish(ctx, d, "t", tasks.Outcome{Transition: tasks.LoseTrack, Code: tasks.TimedOut, InDoubt: true}, false); err != nil || ended.State != tasks.ItemUnknown {
		t.Errorf("finish: %+v, %v", ended, err)
	}
	// New work is refused, and leaves nothing.
	accepts(t, w, false)
	_, err = w.db.Records.Submit(ctx, tasks.Submission{Tenant: "acme", InstanceIDs: []string{"q"}, AllowUnregistered: true})
	refused, _ := errors.AsType[*tasks.Error](err)
	if tasks.CodeOf(err) != tasks.StorageFull || refused.RetryAfter < time.Second {
		t.Errorf("submit: %v", err)
	}
	if err := w.db.Records.Retry(ctx, waits.ID, []tasks.ItemState{tasks.ItemCancelled}, by); tasks.CodeOf(err) != tasks.StorageFull {
		t.Errorf("retry: %v", err)
	}
	if err := w.db.Fleet.Register(ctx, []tasks.Instance{{ID: "p3", Tenant: "acme"}}, by); tasks.CodeOf(err) != tasks.StorageFull {
		t.Errorf("register: %v", err)
	}
	if got := w.trail(t, tasks.AuditFilter{}); len(got) != before {
		t.Errorf("%d entries were written while there was no room", len(got)-before)
	}

	// With room, the entries come into the trail with the time at which they were decided.
	stop := make(chan error, 1)
	writing, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { stop <- w.db.Audit.WriteTrail(writing) }()
	must(t, w.rdb.ConfigSet(ctx, "maxmemory", "0").Err())
	var late []tasks.AuditEntry
	for deadline := time.Now().Add(20 * time.Second); len(late) < len(heard.out) && time.Now().Before(deadline); {
		late = w.trail(t, tasks.AuditFilter{})[before:]
	}
	cancel()
	must(t, <-stop)
	for i, e := range late {
		want := heard.out[i]
		want.At = e.At
		if fmt.Sprint(e) != fmt.Sprint(want) || e.DecidedAt.After(e.At.Time) {
			t.Errorf("entry %d: %+v, want %+v", i, e, want)
		}
	}
	if len(late) != 12 || len(heard.never) != 0 {
		t.Errorf("%d entries came later, %d never", len(late), len(heard.never))
	}
}

// The entries that wait are bounded: whoever floods a full Redis with halts must not fill
// this process.
func TestTooManyLateEntriesAreTold(t *testing.T) {
	for bound, want := range map[int]string{2: "out 4, never 2", 0: "out 4, never 0"} {
		w, heard := openBounded(t, redisdb.Options{LateEntries: bound})
		fill(t, w)
		for n := range 4 {
			must(t, w.db.Policies.Halt(t.Context(), fmt.Sprint("t", n), tasks.HaltedByOperator, tasks.Actor{}))
		}
		if got := fmt.Sprintf("out %d, never %d", len(heard.out), len(heard.never)); got != want {
			t.Errorf("%d may wait: %s, want %s", bound, got, want)
		}
		// Close tries once more.
		must(t, w.rdb.ConfigSet(t.Context(), "maxmemory", "0").Err())
		must(t, w.db.Close())
		if n := len(heard.in); n != bound {
			t.Errorf("%d of %d came into the trail in the end", n, bound)
		}
	}
}

func TestNewWorkIsRefusedBeforeRedisIsFull(t *testing.T) {
	t.Parallel()
	w, _ := openBounded(t, redisdb.Options{FullAt: 60})
	ctx := t.Context()
	info := w.rdb.InfoMap(ctx, "memory").Val()["Memory"]
	var used int
	if _, err := fmt.Sscan(info["used_memory"], &used); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		bound     int
		accepting bool
	}{{0, true}, {used * 100 / 70, false}, {used * 100 / 40, true}, {used * 100 / 70, false}, {used * 100, true}} {
		must(t, w.rdb.ConfigSet(ctx, "maxmemory", fmt.Sprint(row.bound)).Err())
		accepts(t, w, row.accepting)
		_, err := w.db.Records.Submit(ctx, tasks.Submission{Tenant: "acme", InstanceIDs: []string{"q"}, AllowUnregistered: true})
		if want := map[bool]tasks.Code{true: tasks.OK, false: tasks.StorageFull}[row.accepting]; tasks.CodeOf(err) != want {
			t.Errorf("submit: %v, want %s", err, want)
		}
		must(t, w.db.Policies.Halt(ctx, "acme", tasks.HaltedByOperator, tasks.Actor{})) // there is room for its entry
	}
}

// Room can be gone within the second that a look at the memory is good for.
func TestARedisThatIsFullAllOfASuddenRefusesAJobWhole(t *testing.T) {
	w, _ := openBounded(t, redisdb.Options{})
	ctx := t.Context()
	job := w.submit(t, "a") // a look
	must(t, w.db.Records.Cancel(ctx, job.ID, tasks.Actor{}))
	before := w.trail(t, tasks.AuditFilter{})
	must(t, w.rdb.ConfigSet(ctx, "maxmemory", "1").Err())
	_, err := w.db.Records.Submit(ctx, tasks.Submission{Tenant: "acme", InstanceIDs: []string{"q"}, AllowUnregistered: true})
	if tasks.CodeOf(err) != tasks.StorageFull {
		t.Errorf("submit: %v", err)
	}
	if err := w.db.Records.Retry(ctx, job.ID, []tasks.ItemState{tasks.ItemCancelled}, tasks.Actor{}); tasks.CodeOf(err) != tasks.StorageFull {
		t.Errorf("retry: %v", err)
	}
	if after := w.trail(t, tasks.AuditFilter{}); !slices.EqualFunc(before, after, func(a, b tasks.AuditEntry) bool { return a.At == b.At }) {
		t.Errorf("trail %+v, before %+v", after, before)
	}
}

// accepts waits until the DB knows whether there is room for new work.
func accepts(t *testing.T, w world, want bool) {
	t.Helper()
	eventually(t, "it is known whether there is room", func(ctx context.Context) error {
		if got := w.db.Storage.Accepting(ctx); got != want {
			return fmt.Errorf("accepting is %t", got)
		}
		return nil
	})
}
