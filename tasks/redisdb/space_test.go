package redisdb_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/tasks/redisdb/views"
)

// space looks at what fills the only server.
func (w world) space(t *testing.T, bounds views.SpaceBounds) tasks.Space {
	t.Helper()
	all, err := w.db.Space.Look(t.Context(), bounds)
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	return all[0]
}

func familyIn(s tasks.Space, name string) tasks.KeyFamily {
	i := slices.IndexFunc(s.Families, func(f tasks.KeyFamily) bool { return f.Name == name })
	if i < 0 {
		return tasks.KeyFamily{}
	}
	return s.Families[i]
}

func TestWhatFillsRedis(t *testing.T) {
	t.Parallel()
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	const jobs = 400
	for n := range jobs {
		w.submit(t, fmt.Sprintf("phone-%d", n))
	}
	w.rdb.Set(t.Context(), "somebody else's", string(make([]byte, 1<<20)), 0)
	whole := w.space(t, views.DefaultSpaceBounds)
	records := familyIn(whole, "job records")
	if whole.Looked != whole.Keys || records.Keys != jobs || records.Bytes < jobs*100 || whole.Memory == 0 || whole.LastingCount != 0 || whole.Refused != 0 {
		t.Errorf("all of it: %+v", whole)
	}
	if whole.Largest[0].Key != "somebody else's" || whole.Largest[0].Family != "other keys" || whole.Families[0].Name != "other keys" {
		t.Errorf("the largest are %+v", whole.Largest)
	}
	sum := int64(0)
	for _, f := range whole.Families {
		sum += f.Keys
	}
	if sum != whole.Keys {
		t.Errorf("%d keys in families, %d in all", sum, whole.Keys)
	}
	if f := familyIn(whole, "tasks of asynq"); f.Keys != jobs {
		t.Errorf("tasks: %+v", f)
	}

	some := w.space(t, views.SpaceBounds{Keys: 200, Time: time.Minute, Page: 20})
	if some.Looked >= some.Keys || some.Looked < 200 || some.Looked > 400 {
		t.Errorf("%d of %d were looked at", some.Looked, some.Keys)
	}
	if f := familyIn(some, "job records"); f.Keys < jobs/2 || f.Keys > 2*jobs || f.Bytes < records.Bytes/2 || f.Bytes > 2*records.Bytes {
		t.Errorf("estimated %+v, want about %+v", f, records)
	}
	if f := familyIn(some, "queues of asynq"); f.Keys == 0 { // there is one of a kind
		t.Errorf("families %+v", some.Families)
	}
	if at := w.space(t, views.SpaceBounds{Keys: 1e6, Time: 0, Page: 10}); at.Looked >= at.Keys {
		t.Error("time does not bound it")
	}
}

func TestKeysThatShouldExpireAreMet(t *testing.T) {
	t.Parallel()
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	w.submit(t, "open")
	job := w.submit(t, "phone-1")
	d, _ := w.begin(t, job, 0, "t1")
	w.finish(t, d, "t1", tasks.Outcome{Transition: tasks.Succeed})
	if s := w.space(t, views.DefaultSpaceBounds); s.LastingCount != 0 {
		t.Errorf("%+v", s.Lasting)
	}
	w.rdb.Persist(t.Context(), "reset:{"+job.ID+"}")
	w.rdb.Set(t.Context(), "reset:lock:{phone-9}", "x", 0)
	s := w.space(t, views.DefaultSpaceBounds)
	slices.Sort(s.Lasting)
	if want := []string{"reset:lock:{phone-9}", "reset:{" + job.ID + "}"}; s.LastingCount != 2 || !slices.Equal(s.Lasting, want) {
		t.Errorf("%d: %v", s.LastingCount, s.Lasting)
	}
	w.rdb.HSet(t.Context(), "reset:{"+job.ID+"}", "run", "r") // it expires with its run
	if s := w.space(t, views.DefaultSpaceBounds); s.LastingCount != 1 {
		t.Errorf("%v", s.Lasting)
	}
}

func TestWhatFillsEachServerOfACluster(t *testing.T) {
	t.Parallel()
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: redistest.StartCluster(t).URL()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	const jobs = 30
	for n := range jobs {
		if _, err := db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{fmt.Sprintf("phone-%d", n)}, AllowUnregistered: true}); err != nil {
			t.Fatal(err)
		}
	}
	all, err := db.Space.Look(t.Context(), views.DefaultSpaceBounds)
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	records := int64(0)
	for _, s := range all {
		records += familyIn(s, "job records").Keys
		if s.Address == "" || s.Looked != s.Keys {
			t.Errorf("%+v", s)
		}
	}
	if records != jobs {
		t.Errorf("%d job records", records)
	}
}

func TestEachKeyHasAFamily(t *testing.T) {
	for key, want := range map[string]string{
		"reset:{0123}": "job records", "reset:run:{1}": "runs", "reset:run:{1}:failed": "runs", "reset:run:{1}:list": "lists of runs", "reset:runs:{acme}": "indexes of jobs and runs",
		"reset:jobs": "indexes of jobs and runs", "reset:instances:7": "index of instances", "reset:lock:{a}": "locks", "reset:fleet:{a}": "fleet", "reset:address:default:x": "fleet",
		"reset:webhook:{a}:b": "webhooks", "reset:failures:{default}": "failures", "reset:activity:calls": "activity", "reset:audit": "audit trail",
		"asynq:{reset-0}:t:1": "tasks of asynq", "asynq:{reset-0}:pending": "queues of asynq", "asynq:queues": "queues of asynq", "reset:newer": "others of this service", "x": "other keys",
	} {
		if got := views.FamilyOf(key); got != want {
			t.Errorf("%s is of the family %q, want %q", key, got, want)
		}
	}
}
