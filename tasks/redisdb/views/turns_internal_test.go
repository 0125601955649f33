package views

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/registry"
	"batchreset/tasks/redisdb/wire"
)

// longList is a Redis whose tenant acme has so many open jobs.
type longList struct {
	*Jobs
	rdb      *wire.Client
	policies *registry.Policies
	quotas   *registry.Quotas
}

func newLongList(t *testing.T, jobs int) longList {
	t.Helper()
	server := miniredis.RunT(t)
	now := time.Now()
	server.SetTime(now)
	client, err := wire.Open(wire.Options{URL: "redis://" + server.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	pipe := client.Pipeline()
	for n := range jobs {
		id := fmt.Sprintf("%032x", n)
		pipe.ZAdd(t.Context(), codec.JobsKey("acme"), redis.Z{Score: float64(now.UnixMilli() - int64(n)), Member: id})
		pipe.HSet(t.Context(), codec.JobKey(id), "v", codec.Version, "left", 1, "stop", "")
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	leftOut := codec.NewLeftOut(slog.New(slog.DiscardHandler))
	policies := registry.NewPolicies(client, registry.NewAudit(client, 0, nil, 0), leftOut)
	quotas := registry.NewQuotas(client, policies)
	return longList{NewJobs(client, time.Hour, quotas.Charge, leftOut), client, policies, quotas}
}

var nothing = tasks.JobFilter{State: tasks.JobFailed, Limit: 10}

func TestAListCostsWhatItLooksAt(t *testing.T) {
	for _, row := range []struct{ jobs, requests, cost int }{{900, 30, 0}, {3400, 30, 3}, {12_000, 30, 10}, {3400, 2, 3}} {
		db := newLongList(t, row.jobs)
		if err := db.policies.SetLimits(t.Context(), "acme", tasks.Limits{RequestsPerSecond: new(row.requests)}, false, tasks.Actor{By: "test"}); err != nil {
			t.Fatal(err)
		}
		if jobs, _, err := db.Jobs.Jobs(t.Context(), "acme", nothing); err != nil || len(jobs) != 0 {
			t.Fatalf("%d jobs, %v", len(jobs), err)
		}
		left := 0
		var refused *tasks.Error
		for left <= row.requests {
			err := db.quotas.Pace(t.Context(), "acme")
			if errors.As(err, &refused) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			left++
		}
		if want := max(0, row.requests-row.cost); left != want {
			t.Errorf("%d jobs were looked at: %d of %d requests are left, want %d", row.jobs, left, row.requests, want)
		}
		if refused == nil || refused.RetryAfter <= 0 {
			t.Errorf("refused: %+v", refused)
		} else if row.requests == 2 && refused.RetryAfter != time.Second { // three were worth 1.5 s
			t.Errorf("after more than a second's worth: %s", refused.RetryAfter)
		}
		// What operators look for is not the tenant's.
		before := db.rdb.Get(t.Context(), "reset:pace:{acme}").Val()
		if _, _, err := db.SearchJobs(t.Context(), tasks.JobSearch{JobFilter: nothing, Tenant: "acme"}); err != nil {
			t.Fatal(err)
		}
		if after := db.rdb.Get(t.Context(), "reset:pace:{acme}").Val(); after != before {
			t.Error("a search of operators was counted against the tenant")
		}
	}
}

func TestOneLongListOfATenantAtATime(t *testing.T) {
	db := newLongList(t, 1200)
	end, err := db.lists.take(t.Context(), "acme", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = db.Jobs.Jobs(t.Context(), "acme", nothing)
	if e, ok := errors.AsType[*tasks.Error](err); !ok || e.Code != tasks.TooManyRequests || e.RetryAfter <= 0 {
		t.Errorf("beside another list: %v", err)
	}
	if _, _, err := db.SearchJobs(t.Context(), tasks.JobSearch{JobFilter: nothing, Tenant: "acme"}); err != nil {
		t.Errorf("operators wait for a tenant: %v", err)
	}
	other, err := db.lists.take(t.Context(), "other", time.Second)
	if err != nil {
		t.Fatalf("another tenant: %v", err)
	}
	other()
	listed := make(chan error)
	go func() {
		_, _, err := db.Jobs.Jobs(context.WithoutCancel(t.Context()), "acme", nothing)
		listed <- err
	}()
	end()
	if err := <-listed; err != nil {
		t.Errorf("after the other list: %v", err)
	}
	if len(db.lists.taken) != 0 {
		t.Errorf("turns are left: %v", db.lists.taken)
	}
}
