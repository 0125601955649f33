package worker

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// senderFunc is a sender in one function.
type senderFunc func(ctx context.Context, e tasks.Endpoint, eventID string, body []byte) Reply

func (f senderFunc) Send(ctx context.Context, e tasks.Endpoint, eventID string, body []byte) Reply {
	return f(ctx, e, eventID, body)
}

func (senderFunc) Close() {}

func answers(status int) senderFunc {
	return func(context.Context, tasks.Endpoint, string, []byte) Reply { return Reply{Status: status} }
}

// tellBench is a teller that is not started, with one endpoint.
type tellBench struct {
	*Teller
	db *redisdb.DB
	e  tasks.Endpoint
}

func newTellBench(t *testing.T, sender Sender) tellBench {
	t.Helper()
	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: "redis://" + miniredis.RunT(t).Addr(), Embedded: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	e, err := db.AddEndpoint(t.Context(), tasks.Endpoint{
		ID: "ep_1", Tenant: "acme", URL: "https://acme.example", Topics: tasks.Topics, Secret: "whsec_1",
	}, tasks.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	return tellBench{NewTeller(redisdb.WebhookQueue, db, sender, db.NewServer, nil, log), db, e}
}

func (b tellBench) notice() tasks.Notice {
	return tasks.Notice{
		EventID: tasks.NewJobID() + "-finished-1", Topic: tasks.TopicJobFinished, Tenant: "acme", EndpointID: b.e.ID, Body: []byte(`{"a":1}`),
	}
}

func (b tellBench) deliver(t *testing.T, n tasks.Notice) error {
	t.Helper()
	return b.process(t.Context(), asynq.NewTask(tasks.TypeNotice, n.Encode()))
}

func (b tellBench) endpoint(t *testing.T) tasks.Endpoint {
	t.Helper()
	e, err := b.db.Endpoint(t.Context(), "acme", b.e.ID)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// count is what Prometheus would read of an outcome.
func (b tellBench) count(t *testing.T, v verdict) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(b)
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "batchreset_webhook_deliveries_total" {
		t.Fatalf("metrics %v, %v", families, err)
	}
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == string(v) {
			return m.GetCounter().GetValue()
		}
	}
	t.Fatalf("the outcome %s is not there", v)
	return 0
}

func TestANoticeIsSentAndReported(t *testing.T) {
	var got []string
	b := newTellBench(t, senderFunc(func(_ context.Context, e tasks.Endpoint, eventID string, body []byte) Reply {
		got = []string{e.URL, e.Secret, eventID, string(body)}
		return Reply{Status: http.StatusNoContent}
	}))
	n := b.notice()
	if err := b.deliver(t, n); err != nil {
		t.Fatal(err)
	}
	if want := "https://acme.example whsec_1 " + n.EventID + ` {"a":1}`; strings.Join(got, " ") != want {
		t.Errorf("sent %q, want %q", got, want)
	}
	if last := b.endpoint(t).Last; last == nil || last.EventID != n.EventID || last.Status != 204 || last.Error != "" {
		t.Errorf("reported %+v", last)
	}
	if b.count(t, delivered) != 1 {
		t.Error("not counted")
	}
}

func TestWhatBecomesOfANotice(t *testing.T) {
	t.Run("one that is not taken is sent again", func(t *testing.T) {
		b := newTellBench(t, answers(http.StatusInternalServerError))
		if a := wantAgain(t, b.deliver(t, b.notice())); !a.failure || a.delay < 5*time.Second || a.reason != "status 500" {
			t.Errorf("%+v", a)
		}
		if e := b.endpoint(t); e.FailingSince.IsZero() || e.Last.Status != 500 || b.count(t, failed) != 1 {
			t.Errorf("reported %+v", e)
		}
	})
	t.Run("410 disables the endpoint, which is sent nothing any more", func(t *testing.T) {
		calls := 0
		b := newTellBench(t, senderFunc(func(context.Context, tasks.Endpoint, string, []byte) Reply {
			calls++
			return Reply{Status: http.StatusGone}
		}))
		wantArchived(t, b.deliver(t, b.notice()))
		if e := b.endpoint(t); e.DisabledAt.IsZero() || b.count(t, gone) != 1 {
			t.Errorf("endpoint %+v", e)
		}
		wantArchived(t, b.deliver(t, b.notice()))
		if calls != 1 {
			t.Errorf("%d calls", calls)
		}
	})
	t.Run("one for a removed endpoint is dropped", func(t *testing.T) {
		b := newTellBench(t, answers(http.StatusOK))
		if err := b.db.RemoveEndpoint(t.Context(), b.e, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		if err := b.deliver(t, b.notice()); err != nil || b.count(t, delivered) != 0 {
			t.Errorf("%v, %f sent", err, b.count(t, delivered))
		}
		if len(b.gates.endpoints) != 0 {
			t.Error("its gate stays")
		}
	})
	t.Run("a task that is no notice is archived", func(t *testing.T) {
		b := newTellBench(t, answers(http.StatusOK))
		wantArchived(t, b.process(t.Context(), asynq.NewTask(tasks.TypeNotice, []byte("{}"))))
		wantArchived(t, b.process(t.Context(), asynq.NewTask("other", b.notice().Encode())))
	})
}

// run starts the teller until the test ends.
func (b tellBench) run(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// finished ends a job of the endpoint's tenant and has it told.
func (b tellBench) finished(t *testing.T, tenant string) tasks.Job {
	t.Helper()
	job, err := b.db.Submit(t.Context(), tasks.Submission{Tenant: tenant, InstanceIDs: []string{"phone-1"}, AllowUnregistered: true})
	if err == nil {
		err = b.db.Cancel(t.Context(), job.ID, tasks.Actor{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func TestAnEndpointThatHangsDoesNotHoldUpTheOthers(t *testing.T) {
	hung, sent := make(chan struct{}, 1000), make(chan string, 1000)
	b := newTellBench(t, senderFunc(func(ctx context.Context, e tasks.Endpoint, eventID string, _ []byte) Reply {
		if e.Tenant == "acme" {
			hung <- struct{}{}
			<-ctx.Done()
			return Reply{Err: ctx.Err()}
		}
		sent <- eventID
		return Reply{Status: http.StatusOK}
	}))
	if _, err := b.db.AddEndpoint(t.Context(), tasks.Endpoint{
		ID: "ep_2", Tenant: "other", URL: "https://other.example", Topics: tasks.Topics, Secret: "whsec_2",
	}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	for range tellAtOnce + 10 {
		b.finished(t, "acme")
	}
	last := b.finished(t, "other")
	stop := b.run(t)
	select {
	case got := <-sent:
		if got != last.ID+"-finished-1" {
			t.Errorf("sent %s", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing is sent to the other endpoint")
	}
	if n := len(hung); n > endpointShare {
		t.Errorf("%d at a time to one endpoint", n)
	}
	b.interrupt() // what the end of tellGrace does
	stop()
	// What was interrupted is not lost, and no try was used up.
	left, err := b.db.NewInspector().GetQueueInfo(redisdb.WebhookQueue)
	if err != nil || left.Pending+left.Retry+left.Scheduled != tellAtOnce+10 {
		t.Errorf("left %+v, %v", left, err)
	}
	list, err := b.db.NewInspector().ListRetryTasks(redisdb.WebhookQueue)
	for _, task := range list {
		if task.Retried != 0 {
			t.Errorf("task %s was retried %d times: %s", task.ID, task.Retried, task.LastErr)
		}
	}
	if err != nil || len(list) == 0 {
		t.Errorf("%d put back, %v", len(list), err)
	}
}

func TestATryThatFailsUsesUpAStepOfTheSchedule(t *testing.T) {
	tried := make(chan struct{}, 100)
	b := newTellBench(t, senderFunc(func(context.Context, tasks.Endpoint, string, []byte) Reply {
		tried <- struct{}{}
		return Reply{Err: errors.New("connection refused")}
	}))
	job := b.finished(t, "acme")
	b.run(t)
	inspector, id := b.db.NewInspector(), job.ID+"-finished-1-ep_1"
	state := func(want asynq.TaskState) (info *asynq.TaskInfo) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); info == nil || info.State != want; time.Sleep(5 * time.Millisecond) {
			info, _ = inspector.GetTaskInfo(redisdb.WebhookQueue, id)
			if time.Now().After(deadline) {
				t.Fatalf("the task is not %s: %+v", want, info)
			}
		}
		return info
	}
	for n, delay := range tellSchedule {
		<-tried
		info := state(asynq.TaskStateRetry)
		if d := time.Until(info.NextProcessAt); info.Retried != n+1 || d < delay-2*time.Second || d > delay+delay/tellJitter+2*time.Second {
			t.Errorf("after %d tries the next is in %s, want %s", n+1, d, delay)
		}
		_ = inspector.RunTask(redisdb.WebhookQueue, id) // as the dashboard does, unless its time has just come
	}
	<-tried
	if info := state(asynq.TaskStateArchived); info.LastErr != "connection refused" || b.count(t, givenUp) != 1 || b.count(t, failed) != 9 {
		t.Errorf("in the end %+v", info)
	}
}

func TestWorkersTellOfWhatEndsWithThem(t *testing.T) {
	fail := driverFunc(func(context.Context, Attempt) error { return &DriverError{Verdict: Permanent, Message: "no"} })
	for _, row := range []struct {
		name  string
		opts  redisdb.Options
		items []string
		want  []string // behind the job's ID
	}{
		{"an item that fails while its job goes on", redisdb.Options{}, []string{"phone-1", "phone-2"}, []string{"-0-failed-1-ep_1"}},
		{"a job, and the item that failed with it", redisdb.Options{}, []string{"phone-1"}, []string{"-0-failed-1-ep_1", "-finished-1-ep_1"}},
		{
			"a job that ends without an attempt",
			redisdb.Options{GiveUpAfter: time.Nanosecond},
			[]string{"phone-1"},
			[]string{"-0-failed-1-ep_1", "-finished-1-ep_1"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.opts.URL, row.opts.Embedded = "redis://"+miniredis.RunT(t).Addr(), true
			b := newBenchOn(t, row.opts, fail)
			if _, err := b.db.AddEndpoint(t.Context(), tasks.Endpoint{
				ID: "ep_1", Tenant: "acme", URL: "https://acme.example", Topics: tasks.Topics, Secret: "whsec_1",
			}, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
			job := b.submit(t, row.items...)
			wantArchived(t, b.deliver(t, job))
			list, err := b.db.NewInspector().ListPendingTasks(redisdb.WebhookQueue)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, task := range list {
				got = append(got, strings.TrimPrefix(task.ID, job.ID))
			}
			slices.Sort(got)
			if !slices.Equal(got, row.want) {
				t.Errorf("told %q, want %q", got, row.want)
			}
		})
	}
}
