package redisdb_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func (w world) endpoint(t *testing.T, id string, topics ...tasks.Topic) tasks.Endpoint {
	t.Helper()
	e, err := w.db.Endpoints.Add(t.Context(), tasks.Endpoint{
		ID: id, Tenant: "acme", URL: "https://acme.example/" + id, Topics: topics, Secret: "whsec_" + id,
	}, tasks.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// again reads an endpoint anew.
func (w world) again(t *testing.T, e tasks.Endpoint) tasks.Endpoint {
	t.Helper()
	e, err := w.db.Endpoints.EndpointByID(t.Context(), e.ID)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEndpointsFromAddToRemove(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		e := w.endpoint(t, "ep_1", tasks.Topics...)
		if got := w.again(t, e); got.URL != "https://acme.example/ep_1" || got.Secret != "whsec_ep_1" || got.Tenant != "acme" ||
			!slices.Equal(got.Topics, tasks.Topics) || got.CreatedAt.IsZero() || got.Last != nil {
			t.Fatalf("got %+v", got)
		}
		if _, err := w.db.Endpoints.EndpointByID(ctx, "ep_2"); !errors.Is(err, tasks.ErrNoEndpoint) {
			t.Errorf("an endpoint that never was: %v", err)
		}

		if err := w.db.Endpoints.RotateSecret(ctx, e, "whsec_new", time.Hour, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if got := w.again(t, e).Secrets(time.Now()); !slices.Equal(got, []string{"whsec_new", "whsec_ep_1"}) {
			t.Errorf("after a rotation %q sign", got)
		}
		if err := w.db.Endpoints.RotateSecret(ctx, e, "whsec_newer", 0, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if got := w.again(t, e).Secrets(time.Now().Add(time.Second)); !slices.Equal(got, []string{"whsec_newer"}) {
			t.Errorf("after a rotation without overlap %q sign", got)
		}

		if err := w.db.Endpoints.Remove(ctx, e, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.db.Endpoints.Endpoint(ctx, "acme", e.ID); !errors.Is(err, tasks.ErrNoEndpoint) {
			t.Errorf("a removed endpoint: %v", err)
		}
		if err := w.db.Endpoints.RotateSecret(ctx, e, "whsec_late", time.Hour, tasks.Actor{}); !errors.Is(err, tasks.ErrNoEndpoint) {
			t.Errorf("the secret of a removed endpoint is rotated: %v", err)
		}
		if disabled, err := w.db.Endpoints.Report(ctx, e, tasks.Report{EventID: "late", Error: "no", Gone: true}); disabled || err != nil {
			t.Errorf("a report of a removed endpoint: %t, %v", disabled, err)
		}
		if keys := w.rdb.Keys(ctx, "reset:webhook*").Val(); len(keys) != 0 {
			t.Errorf("left behind: %q", keys)
		}
	})
}

func TestATenantHasSoManyEndpoints(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		for n := range tasks.MaxEndpoints {
			w.endpoint(t, fmt.Sprintf("ep_%d", n), tasks.TopicJobFinished)
		}
		one := tasks.Endpoint{ID: "ep_more", Tenant: "acme", URL: "https://acme.example", Secret: "whsec_more"}
		if _, err := w.db.Endpoints.Add(t.Context(), one, tasks.Actor{}); tasks.CodeOf(err) != tasks.TooManyRequests || !strings.Contains(err.Error(), "acme has 10") {
			t.Errorf("one more: %v", err)
		}
		one.Tenant = "other"
		if _, err := w.db.Endpoints.Add(t.Context(), one, tasks.Actor{}); err != nil {
			t.Errorf("another tenant's: %v", err)
		}
		list, err := w.db.Endpoints.List(t.Context())
		if err != nil || len(list) != tasks.MaxEndpoints+1 || list[0].Tenant != "acme" || list[tasks.MaxEndpoints].ID != "ep_more" {
			t.Errorf("list %+v, %v", list, err)
		}
	})
}

func TestWhatReportsDoToAnEndpoint(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		ctx := t.Context()
		e := w.endpoint(t, "ep_1", tasks.TopicJobFinished)
		report := func(r tasks.Report, wantDisabled bool) tasks.Endpoint {
			t.Helper()
			r.EventID, r.Topic = "event", tasks.TopicJobFinished
			if disabled, err := w.db.Endpoints.Report(ctx, e, r); err != nil || disabled != wantDisabled {
				t.Fatalf("disabled %t, %v", disabled, err)
			}
			return w.again(t, e)
		}
		got := report(tasks.Report{Status: 500, Error: "status 500"}, false)
		if got.FailingSince.IsZero() || got.Last == nil || got.Last.Status != 500 || got.Last.Error != "status 500" || got.Last.Topic != tasks.TopicJobFinished {
			t.Errorf("after a failure %+v, %+v", got, got.Last)
		}
		since := got.FailingSince
		if got = report(tasks.Report{Error: "no answer"}, false); got.FailingSince != since || got.Last.Status != 0 {
			t.Errorf("after another %+v, %+v", got, got.Last)
		}
		if got = report(tasks.Report{Status: 204}, false); !got.FailingSince.IsZero() || got.Last.Error != "" {
			t.Errorf("after a success %+v, %+v", got, got.Last)
		}

		if got = report(tasks.Report{Status: 410, Error: "status 410", Gone: true}, true); got.DisabledReason != "the endpoint answered 410 Gone" {
			t.Errorf("after 410 %+v", got)
		}
		report(tasks.Report{Status: 410, Error: "status 410", Gone: true}, false) // it is already
		if err := w.db.Endpoints.Enable(ctx, e, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if got = w.again(t, e); !got.DisabledAt.IsZero() || got.DisabledReason != "" || !got.FailingSince.IsZero() {
			t.Errorf("enabled %+v", got)
		}

		report(tasks.Report{Status: 500, Error: "status 500"}, false)
		fiveDaysAgo := time.Now().Add(-5*24*time.Hour - time.Minute).UnixMilli()
		if err := w.rdb.HSet(ctx, "reset:webhook:{acme}:ep_1", "failing", fiveDaysAgo).Err(); err != nil {
			t.Fatal(err)
		}
		if got = report(tasks.Report{Status: 500, Error: "status 500"}, true); got.DisabledReason != "nothing but failures for 5 days" {
			t.Errorf("after five days %+v", got)
		}
	})
}
