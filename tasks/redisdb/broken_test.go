package redisdb_test

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// A record that cannot be read is left out of lists, and said so in the log; everything else
// is listed.
func TestListsGoOnWithoutWhatCannotBeRead(t *testing.T) {
	for name, spoil := range map[string][][]any{
		"no hash":               {{"DEL", "KEY"}, {"SET", "KEY", "x"}},
		"no number in the head": {{"HSET", "KEY", "created", "yesterday"}},
		"an item of nonsense":   {{"HSET", "KEY", "0", "?"}},
		"a total below zero":    {{"HSET", "KEY", "total", "-1"}},
		"a state that is none":  {{"HSET", "KEY", "0", "z 1 0 5 phone-1"}},
		"a later version":       {{"HSET", "KEY", "v", "99"}},
		"labels that are none":  {{"HSET", "KEY", "labels", "{"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			w := open(t, redisdb.Options{URL: redistest.Start(t, "appendfsync no").URL(), Log: slog.New(slog.NewJSONHandler(&log, nil))})
			var jobs []tasks.Job
			for range 3 {
				job := w.submit(t, "phone-1")
				if _, err := w.db.Attempts.Abandon(t.Context(), job.Deliveries()[0], tasks.BusyTooLong, "busy", 0); err != nil {
					t.Fatal(err)
				}
				jobs = append(jobs, job)
			}
			good, bad := []string{jobs[0].ID, jobs[2].ID}, jobs[1].ID
			slices.Sort(good)
			for _, command := range spoil {
				for i := range command {
					if command[i] == "KEY" {
						command[i] = "reset:{" + bad + "}"
					}
				}
				if err := w.rdb.Do(t.Context(), command...).Err(); err != nil {
					t.Fatal(err)
				}
			}
			check := func(list string, found []tasks.Job, err error) {
				t.Helper()
				ids := make([]string, len(found))
				for i, job := range found {
					ids[i] = job.ID
				}
				slices.Sort(ids)
				if err != nil || !slices.Equal(ids, good) {
					t.Errorf("%s: %q, %v, want %q", list, ids, err, good)
				}
			}
			filter := tasks.JobFilter{Limit: 10}
			found, _, err := w.db.Jobs.Jobs(t.Context(), "acme", filter)
			check("of the tenant", found, err)
			found, _, err = w.db.Jobs.SearchJobs(t.Context(), tasks.JobSearch{JobFilter: filter})
			check("of all tenants", found, err)
			filter.State = tasks.JobFailed
			found, _, err = w.db.Jobs.Jobs(t.Context(), "acme", filter)
			check("by state", found, err)
			found, err = w.db.Jobs.JobsByID(t.Context(), []string{jobs[0].ID, bad, jobs[2].ID})
			check("by ID", found, err)
			found, err = w.db.Jobs.InstanceJobs(t.Context(), "phone-1")
			check("of an instance", found, err)
			found, _, err = w.db.Jobs.SearchJobs(t.Context(), tasks.JobSearch{Code: tasks.BusyTooLong, JobFilter: tasks.JobFilter{Limit: 10}})
			check("by error code", found, err)
			for range 2 { // what is left out stays in the index: it may be repaired
				failures, _, err := w.db.Failures.Failures(t.Context(), tasks.FailureFilter{FailureKind: tasks.FailureKind{Driver: tasks.DefaultDriver, Code: tasks.BusyTooLong}, Limit: 10})
				if err != nil || len(failures) != 2 {
					t.Errorf("%d failures, %v", len(failures), err)
				}
			}
			kinds, err := w.db.Failures.FailureKinds(t.Context(), time.Hour, 1)
			if err != nil || len(kinds) != 1 || kinds[0].Total() != 3 {
				t.Errorf("kinds of failures %+v, %v", kinds, err)
			}
			tags, err := w.db.HeldJobs.Tags(t.Context(), append(good, bad))
			if err != nil || tags[good[0]] == "" || tags[good[1]] == "" {
				t.Errorf("tags %v, %v", tags, err)
			}
			if n := strings.Count(log.String(), `"what":"`+bad); n != 1 {
				t.Errorf("the log names it %d times: %s", n, log.String())
			}
		})
	}
}

func TestTheOverviewGoesOnWithoutAQueueThatCannotBeRead(t *testing.T) {
	t.Parallel()
	w := open(t, redisdb.Options{URL: redistest.Start(t, "appendfsync no").URL(), Queues: 3})
	w.submit(t, "phone-1")
	w.rdb.SAdd(t.Context(), "asynq:queues", "reset-0", "reset-1", "reset-2")
	w.rdb.Set(t.Context(), "asynq:{reset-1}:retry", "no set", 0)
	o, err := w.db.Overview.Overview(t.Context())
	var names []string
	for _, q := range o.Queues {
		names = append(names, q.Name)
	}
	if err != nil || !slices.Equal(names, []string{"reset-0", "reset-2"}) {
		t.Errorf("the overview has the queues %q, %v", names, err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w.db.Queues.QueueMetrics())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	measured := map[string]bool{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if label.GetName() == "queue" {
					measured[label.GetValue()] = true
				}
			}
		}
	}
	if !measured["reset-0"] || !measured["reset-2"] || measured["reset-1"] {
		t.Errorf("a scrape has the queues %v", measured)
	}
}

// What one entry of a register is spoiled by stops neither the list nor the others.
func TestRegistersGoOnWithoutWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	var log bytes.Buffer
	w := open(t, redisdb.Options{URL: redistest.Start(t, "appendfsync no").URL(), Log: slog.New(slog.NewJSONHandler(&log, nil))})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	actor := tasks.Actor{By: "test"}
	must(w.db.Fleet.Register(ctx, []tasks.Instance{{ID: "phone-1", Tenant: "acme"}, {ID: "phone-2", Tenant: "acme"}, {ID: "phone-3", Tenant: "acme"}}, actor))
	var hooks []tasks.Endpoint
	for _, secret := range []string{"one", "two", "three"} {
		_, err := w.db.Tokens.Add(ctx, secret, tasks.Token{Tenant: "tenant-" + secret, Scopes: tasks.DefaultScopes}, 0, actor)
		must(err)
		_, err = w.db.Operators.Add(ctx, tasks.Operator{Name: secret, Role: tasks.RoleViewer, PasswordHash: "x"}, actor)
		must(err)
		hook, err := w.db.Endpoints.Add(ctx, tasks.Endpoint{ID: "wh_" + secret, Tenant: "acme", Secret: "s", URL: "https://hooks.example/" + secret, Topics: []tasks.Topic{tasks.TopicJobFinished}}, actor)
		must(err)
		hooks = append(hooks, hook)
	}
	must(w.rdb.Set(ctx, "reset:fleet:{phone-2}", "x", 0).Err())
	must(w.rdb.HSet(ctx, "reset:operators", "two", "{").Err())
	var tokens []string
	must(w.rdb.ZRange(ctx, "reset:tokens", 0, -1).ScanSlice(&tokens))
	must(w.rdb.Set(ctx, "reset:token:{"+tokens[1]+"}", "x", 0).Err())
	must(w.rdb.Set(ctx, "reset:webhook:{acme}:"+hooks[1].ID, "x", 0).Err())

	var fleet []string
	must(w.db.Fleet.All(ctx, func(in tasks.Instance) error {
		fleet = append(fleet, in.ID)
		return nil
	}))
	if !slices.Equal(fleet, []string{"phone-1", "phone-3"}) {
		t.Errorf("the fleet has %q", fleet)
	}
	if _, err := w.db.Fleet.Registered(ctx, []string{"phone-1", "phone-2"}); err == nil {
		t.Error("who asks whose a phone is got an answer without it")
	}
	listed, err := w.db.Tokens.List(ctx)
	must(err)
	tenants, err := w.db.Tokens.Tenants(ctx)
	must(err)
	if len(listed) != 2 || len(tenants) != 2 {
		t.Errorf("%d tokens, of %q", len(listed), tenants)
	}
	if found, err := w.db.Tokens.TokensByHash(ctx, tokens); err != nil || len(found) != 2 {
		t.Errorf("%d tokens by their hash, %v", len(found), err)
	}
	operators, err := w.db.Operators.List(ctx)
	must(err)
	if len(operators) != 2 {
		t.Errorf("%d operators", len(operators))
	}
	endpoints, err := w.db.Endpoints.List(ctx)
	must(err)
	if len(endpoints) != 2 {
		t.Errorf("%d endpoints", len(endpoints))
	}
	job := w.submit(t, "phone-1")
	if _, err := w.db.Attempts.Abandon(ctx, job.Deliveries()[0], tasks.BusyTooLong, "busy", 0); err != nil {
		t.Fatal(err)
	}
	job, err = w.db.Jobs.Job(ctx, job.ID)
	must(err)
	if err := w.db.Notices.EnqueueNotices(ctx, job); err != nil { // the other two
		t.Errorf("an endpoint that cannot be read keeps the others from being told: %v", err)
	}
	for _, what := range []string{"instance phone-2", "token " + tokens[1][:16], "operator two", "endpoint " + hooks[1].ID} {
		if n := strings.Count(log.String(), what+`"`); n != 1 {
			t.Errorf("the log names %s %d times: %s", what, n, log.String())
		}
	}
}

// A policy that cannot be read is its tenant's trouble: nobody knows whether there is a halt
// in it, so nothing of that tenant begins. All others go on, and everybody can be halted.
func TestAPolicyThatCannotBeReadIsItsTenantsTrouble(t *testing.T) {
	for field, tenant := range map[string]string{
		"acme halt": "acme", "acme own_halt": "acme", "acme open_instances": "acme", "* halt": "", "* requests_per_second": "",
	} {
		t.Run(field, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			w := open(t, redisdb.Options{URL: redistest.Start(t, "appendfsync no").URL()})
			if err := w.rdb.HSet(ctx, "reset:policies", field, "?").Err(); err != nil {
				t.Fatal(err)
			}
			_, err := w.db.Policies.Policy(ctx, "acme")
			if err == nil {
				t.Error("the policy that cannot be read was read")
			}
			_, err = w.db.Policies.Policy(ctx, "other")
			if (err == nil) != (tenant == "acme") {
				t.Errorf("another tenant: %v", err)
			}
			if _, err := w.db.Policies.List(ctx); err != nil {
				t.Errorf("list: %v", err)
			}
			for _, whom := range []string{"acme", "other", ""} {
				if err := w.db.Policies.Halt(ctx, whom, tasks.HaltedByOperator, tasks.Actor{By: "test"}); err != nil {
					t.Errorf("halt %q: %v", whom, err)
				}
			}
			if p, err := w.db.Policies.Policy(ctx, "other"); field != "* requests_per_second" && (err != nil || p.Halt() == nil) {
				t.Errorf("halted, and another tenant's policy is %+v, %v", p, err)
			}
			for _, whom := range []string{"acme", "other", ""} {
				if err := w.db.Policies.Resume(ctx, whom, tasks.HaltedByOperator, tasks.Actor{By: "test"}); err != nil {
					t.Errorf("resume %q: %v", whom, err)
				}
			}
			if p, err := w.db.Policies.Policy(ctx, "acme"); strings.HasSuffix(field, " halt") && (err != nil || p.Halt() != nil) {
				t.Errorf("a new halt and its end leave the policy %+v, %v", p, err)
			}
		})
	}
}
