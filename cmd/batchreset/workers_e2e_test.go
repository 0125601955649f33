package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
	"batchreset/tasks/redisdb/redistest"
)

// theWorker waits until there is one worker process that is as wanted.
func theWorker(t *testing.T, db *redisdb.DB, what string, is func(tasks.WorkerView) bool) (view tasks.WorkerView) {
	t.Helper()
	harness.Eventually(t, patience, what, func() bool {
		all, err := db.Workers.Workers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != 1 || !all[0].Reports || !is(all[0]) {
			return false
		}
		view = all[0]
		return true
	})
	return view
}

func TestAWorkerProcessDoesWhatItIsOrdered(t *testing.T) {
	t.Parallel()
	plane := &hanging{calls: map[string][]string{}, entered: make(chan struct{}, 1), release: make(chan struct{})}
	phones := httptest.NewServer(plane)
	defer phones.Close()
	redis := redistest.Start(t).URL()
	db, _ := dbtest.Open(t, redisdb.Options{URL: redis})
	worker := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "http", "--driver-url", phones.URL+"/{instance_id}", "--driver-rate", "7")
	site, _ := worker.logged("worker starting")["ops"].(string)
	job, err := db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}, AllowUnregistered: true})
	if err != nil {
		t.Fatal(err)
	}
	<-plane.entered
	w := theWorker(t, db, "it reports", func(w tasks.WorkerView) bool { return w.UnderWay() == 1 })
	if w.Whole || w.Version == "" || w.Drivers[0].Rate != 7 || w.ShutdownTimeout == 0 || w.Items[0].InstanceID != "phone-1" {
		t.Errorf("%+v", w)
	}
	if err := db.Workers.Order(t.Context(), w.ID, tasks.OrderQuiet, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	theWorker(t, db, "it is quiet", func(w tasks.WorkerView) bool { return w.State == tasks.WorkerQuiet })
	if status, body := get(t, site+"/readyz"); status != http.StatusOK || !strings.Contains(body, `"quiet":true`) {
		t.Errorf("readyz: %d %s", status, body)
	}
	if _, body := get(t, site+"/metrics"); !strings.Contains(body, "batchreset_worker_quiet 1") {
		t.Error("metrics do not say that it is quiet")
	}
	if err := db.Workers.Order(t.Context(), w.ID, tasks.OrderStop, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	theWorker(t, db, "it drains", func(w tasks.WorkerView) bool { return w.State == tasks.WorkerDrains && w.UnderWay() == 1 })
	if status, _ := get(t, site+"/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("readyz: %d", status)
	}
	close(plane.release)
	if err := <-worker.done; err != nil {
		t.Error(err)
	}
	if got, err := db.Jobs.Job(t.Context(), job.ID); err != nil || got.State != tasks.JobSucceeded {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAWorkerThatIsKilledIsNotHeardOf(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t).URL()
	db, _ := dbtest.Open(t, redisdb.Options{URL: redis})
	worker := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "simulator")
	w := theWorker(t, db, "it reports", tasks.WorkerView.Takes)
	if err := worker.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-worker.done; err == nil {
		t.Error("a killed worker ended well")
	}
	gone := theWorker(t, db, "it is silent", func(w tasks.WorkerView) bool { return !w.Heard() })
	if gone.ID != w.ID || gone.Takes() || gone.Silent < tasks.NotHeardAfter {
		t.Errorf("%+v", gone)
	}
}

func TestTheProcessOfDevIsNotStoppedFromItsOwnSite(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t).URL()
	db, _ := dbtest.Open(t, redisdb.Options{URL: redis})
	dev := start(t, "dev", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	w := theWorker(t, db, "it reports", tasks.WorkerView.Takes)
	err := db.Workers.Order(t.Context(), w.ID, tasks.OrderStop, tasks.Actor{})
	if refused, ok := errors.AsType[*tasks.Error](err); !ok || !strings.Contains(refused.Message, "stop it where it runs") {
		t.Errorf("a stop: %v", err)
	}
	for _, order := range []tasks.WorkerOrder{tasks.OrderQuiet, tasks.OrderTake} {
		if err := db.Workers.Order(t.Context(), w.ID, order, tasks.Actor{}); err != nil {
			t.Error(err)
		}
		theWorker(t, db, string(order), func(w tasks.WorkerView) bool { return w.Takes() == (order == tasks.OrderTake) })
	}
	dev.stop()
}
