package redisdb_test

import (
	"slices"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func TestJobsOfAllTenantsAreSearched(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		submit := func(tenant string, labels map[string]string, instances ...string) tasks.Job {
			job, err := w.db.Records.Submit(t.Context(), tasks.Submission{Tenant: tenant, InstanceIDs: instances, AllowUnregistered: true, Labels: labels})
			if err != nil {
				t.Fatal(err)
			}
			w.after(t, job, 2) // the lists are by time, to the millisecond
			return job
		}
		first := submit("acme", nil, "a", "b", "x")
		second := submit("globex", map[string]string{"site": "berlin"}, "b", "c")
		third := submit("acme", map[string]string{"site": "berlin"}, "c")
		w.fail(t, first, 0, "CPS.0005", tasks.Fail)
		w.fail(t, second, 1, "CPS.0005", tasks.Fail)
		if err := w.db.Records.Cancel(t.Context(), first.ID, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		berlin := []string{"site=berlin"}
		for _, row := range []struct {
			name   string
			search tasks.JobSearch
			want   []tasks.Job
		}{
			{"everything", tasks.JobSearch{}, []tasks.Job{third, second, first}},
			{"a tenant's", tasks.JobSearch{Tenant: "acme"}, []tasks.Job{third, first}},
			{"by label", tasks.JobSearch{JobFilter: tasks.JobFilter{Labels: berlin}}, []tasks.Job{third, second}},
			{"by state", tasks.JobSearch{JobFilter: tasks.JobFilter{State: tasks.JobFailed}}, []tasks.Job{first}},
			{"that run", tasks.JobSearch{JobFilter: tasks.JobFilter{State: tasks.JobRunning}}, []tasks.Job{second}},
			{"by instance", tasks.JobSearch{JobFilter: tasks.JobFilter{InstanceID: "b"}}, []tasks.Job{second, first}},
			{"by instance and tenant", tasks.JobSearch{Tenant: "acme", JobFilter: tasks.JobFilter{InstanceID: "b"}}, []tasks.Job{first}},
			{"by instance and time", tasks.JobSearch{JobFilter: tasks.JobFilter{InstanceID: "b", Since: second.CreatedAt.Time}}, []tasks.Job{second}},
			{"by code", tasks.JobSearch{Code: "CPS.0005"}, []tasks.Job{second, first}},
			{"by code until a time", tasks.JobSearch{Code: "CPS.0005", JobFilter: tasks.JobFilter{Until: second.CreatedAt.Time}}, []tasks.Job{first}},
			{"by code and label", tasks.JobSearch{Code: "CPS.0005", JobFilter: tasks.JobFilter{Labels: berlin}}, []tasks.Job{second}},
			{"by a code that is none", tasks.JobSearch{Code: "CPS"}, nil},
			{"of an instance that nobody knows", tasks.JobSearch{JobFilter: tasks.JobFilter{InstanceID: "z"}}, nil},
		} {
			t.Run(row.name, func(t *testing.T) {
				row.search.Limit = 10
				jobs, cursor, err := w.db.Jobs.SearchJobs(t.Context(), row.search)
				same := slices.EqualFunc(jobs, row.want, func(a, b tasks.Job) bool { return a.ID == b.ID })
				if err != nil || cursor != "" || !same {
					t.Errorf("%d jobs, cursor %q, %v: %+v", len(jobs), cursor, err, jobs)
				}
			})
		}
		jobs, cursor, err := w.db.Jobs.SearchJobs(t.Context(), tasks.JobSearch{JobFilter: tasks.JobFilter{Limit: 2}})
		if err != nil || len(jobs) != 2 {
			t.Fatalf("%+v, %v", jobs, err)
		}
		if jobs, _, err = w.db.Jobs.SearchJobs(t.Context(), tasks.JobSearch{JobFilter: tasks.JobFilter{Limit: 2, Cursor: cursor}}); err != nil || len(jobs) != 1 || jobs[0].ID != first.ID {
			t.Errorf("second page %+v, %v", jobs, err)
		}

		// An entry whose record is gone is no job, nor is one that was cut off.
		w.rdb.Del(t.Context(), "reset:{"+second.ID+"}")
		for _, key := range w.rdb.Keys(t.Context(), "reset:instances:*").Val() {
			if ttl := w.rdb.TTL(t.Context(), key).Val(); ttl < 7*24*time.Hour {
				t.Errorf("%s is kept for %s", key, ttl)
			}
			w.rdb.Append(t.Context(), key, "cut off")
		}
		if jobs, err := w.db.Jobs.InstanceJobs(t.Context(), "b"); err != nil || len(jobs) != 1 || jobs[0].ID != first.ID {
			t.Errorf("jobs of b: %+v, %v", jobs, err)
		}
		if item, err := w.db.Jobs.Lock(t.Context(), "b"); err != nil || item != "" {
			t.Errorf("lock %q, %v", item, err)
		}
		_, _ = w.begin(t, third, 0, "t9")
		if item, err := w.db.Jobs.Lock(t.Context(), "c"); err != nil || item != tasks.ItemID(third.ID, 0) {
			t.Errorf("lock %q, %v", item, err)
		}
	})
}

// operatorsSee fails an item, and looks for it everywhere, on whatever kind of Redis.
func operatorsSee(t *testing.T, db *redisdb.DB) {
	t.Helper()
	ctx := t.Context()
	job, err := submit(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Attempts.Abandon(ctx, job.Deliveries()[0], tasks.BusyTooLong, "busy", 0); err != nil {
		t.Fatal(err)
	}
	if job, err = db.Jobs.Job(ctx, job.ID); err != nil {
		t.Fatal(err)
	}
	if err := db.Failures.IndexFailures(ctx, job); err != nil {
		t.Error(err)
	}
	for _, search := range []tasks.JobSearch{
		{}, {Tenant: "acme"}, {Code: tasks.BusyTooLong}, {JobFilter: tasks.JobFilter{InstanceID: "phone-1"}}, {JobFilter: tasks.JobFilter{State: tasks.JobRunning}},
	} {
		search.Limit = 100
		found, _, err := db.Jobs.SearchJobs(ctx, search)
		if err != nil || !slices.ContainsFunc(found, func(j tasks.Job) bool { return j.ID == job.ID }) {
			t.Errorf("%+v: %d jobs, %v", search, len(found), err)
		}
	}
	kind := tasks.FailureKind{Driver: tasks.DefaultDriver, Code: tasks.BusyTooLong}
	kinds, err := db.Failures.FailureKinds(ctx, time.Hour, 2)
	if err != nil || !slices.ContainsFunc(kinds, func(c tasks.FailureCount) bool { return c.FailureKind == kind }) {
		t.Errorf("kinds %+v, %v", kinds, err)
	}
	failures, _, err := db.Failures.Failures(ctx, tasks.FailureFilter{FailureKind: kind, Limit: 100})
	if err != nil || !slices.ContainsFunc(failures, func(f tasks.Failure) bool { return f.Item.ID == job.Items[0].ID }) {
		t.Errorf("failures %+v, %v", failures, err)
	}
	if _, err := db.Jobs.Lock(ctx, "phone-1"); err != nil {
		t.Error(err)
	}
	if entries, _, err := db.Audit.Recent(ctx, tasks.AuditFilter{Job: job.ID}, "", 10); err != nil || len(entries) != 1 {
		t.Errorf("trail %+v, %v", entries, err)
	}
	if names, err := db.Tokens.Tenants(ctx); err != nil || !slices.Contains(names, "acme") {
		t.Errorf("tenants %v, %v", names, err)
	}
	if o, err := db.Overview.Overview(ctx); err != nil || len(o.Redis) == 0 || o.Redis[0].Version == "" || len(o.Queues) == 0 {
		t.Errorf("overview %+v %+v, %v", o.Redis, o.Queues, err)
	}
}

func TestOpenJobsOfNoRunAreSearched(t *testing.T) {
	both(t, redisdb.Options{}, func(t *testing.T, w world) {
		submit := func(tenant string, labels map[string]string, instances ...string) tasks.Job {
			job, err := w.db.Records.Submit(t.Context(), tasks.Submission{Tenant: tenant, InstanceIDs: instances, AllowUnregistered: true, Labels: labels})
			if err != nil {
				t.Fatal(err)
			}
			w.after(t, job, 2)
			return job
		}
		berlin := map[string]string{"site": "berlin"}
		first, second, third := submit("acme", berlin, "a"), submit("globex", nil, "b"), submit("acme", nil, "c", "d")
		ended, ofRun, gone := submit("acme", nil, "e"), submit("acme", nil, "f"), submit("acme", nil, "g")
		w.fail(t, ended, 0, "CPS.0005", tasks.Fail)
		w.rdb.HSet(t.Context(), "reset:{"+ofRun.ID+"}", "run", "0123456789abcdef0123456789abcdef")
		w.rdb.Del(t.Context(), "reset:{"+gone.ID+"}")
		for _, row := range []struct {
			name   string
			search tasks.JobSearch
			limit  int
			want   []tasks.Job
			more   int
		}{
			{"everything", tasks.JobSearch{}, 10, []tasks.Job{third, second, first}, 0},
			{"the newest", tasks.JobSearch{}, 1, []tasks.Job{third}, 2},
			{"a tenant's", tasks.JobSearch{Tenant: "acme"}, 10, []tasks.Job{third, first}, 0},
			{"by label", tasks.JobSearch{JobFilter: tasks.JobFilter{Labels: []string{"site=berlin"}}}, 10, []tasks.Job{first}, 0},
			{"from a time on", tasks.JobSearch{JobFilter: tasks.JobFilter{Since: second.CreatedAt.Time}}, 10, []tasks.Job{third, second}, 0},
			{"until a time", tasks.JobSearch{JobFilter: tasks.JobFilter{Until: second.CreatedAt.Time}}, 10, []tasks.Job{first}, 0},
			{"a tenant that has none", tasks.JobSearch{Tenant: "initech"}, 10, nil, 0},
		} {
			t.Run(row.name, func(t *testing.T) {
				row.search.Limit = row.limit
				jobs, more, err := w.db.Jobs.SearchOpen(t.Context(), row.search)
				same := slices.EqualFunc(jobs, row.want, func(a, b tasks.Job) bool { return a.ID == b.ID })
				if err != nil || more != row.more || !same {
					t.Errorf("%d jobs, %d more, %v: %+v", len(jobs), more, err, jobs)
				}
			})
		}
	})
}
