package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/dbtest"
	"batchreset/worker/requeue"
)

// transportFunc is a transport in one function.
type transportFunc func(ctx context.Context, e tasks.Endpoint, eventID string, body []byte) Reply

func (f transportFunc) Send(ctx context.Context, e tasks.Endpoint, eventID string, body []byte) Reply {
	return f(ctx, e, eventID, body)
}

func (transportFunc) Close() {}

func answers(status int) transportFunc {
	return func(context.Context, tasks.Endpoint, string, []byte) Reply { return Reply{Status: status} }
}

// bench is a dispatcher that is not started, with one endpoint.
type bench struct {
	*Dispatcher
	db *redisdb.DB
	e  tasks.Endpoint
}

func newBench(t *testing.T, transport transport) bench {
	t.Helper()
	db, _ := dbtest.Open(t, redisdb.Options{URL: "redis://" + miniredis.RunT(t).Addr(), Embedded: true})
	e, err := db.Endpoints.Add(t.Context(), tasks.Endpoint{
		ID: "ep_1", Tenant: "acme", URL: "https://acme.example", Topics: tasks.Topics, Secret: "whsec_1",
	}, tasks.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	return bench{NewDispatcher(redisdb.WebhookQueue, db.Endpoints, transport, db.Redis.NewServer, nil, log), db, e}
}

func (b bench) notice() tasks.Notice {
	return tasks.Notice{
		EventID: tasks.NewJobID() + "-finished-1", Topic: tasks.TopicJobFinished, Tenant: "acme", EndpointID: b.e.ID, Body: []byte(`{"a":1}`),
	}
}

func (b bench) deliver(t *testing.T, n tasks.Notice) error {
	t.Helper()
	return b.process(t.Context(), asynq.NewTask(tasks.TypeNotice, n.Encode()))
}

func (b bench) endpoint(t *testing.T) tasks.Endpoint {
	t.Helper()
	e, err := b.db.Endpoints.Endpoint(t.Context(), "acme", b.e.ID)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// disabledCount is how many endpoints were disabled, as Prometheus would read it.
func (b bench) disabledCount(t *testing.T) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(b)
	families, err := registry.Gather()
	if err != nil || len(families) != 2 || families[1].GetName() != "batchreset_webhooks_disabled_total" {
		t.Fatalf("metrics %v, %v", families, err)
	}
	return families[1].GetMetric()[0].GetCounter().GetValue()
}

// count is what Prometheus would read of an outcome.
func (b bench) count(t *testing.T, v verdict) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(b)
	families, err := registry.Gather()
	if err != nil || len(families) != 2 || families[0].GetName() != "batchreset_webhook_deliveries_total" {
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

// wantLater is the task's handing back, to be run later.
func wantLater(t *testing.T, err error) *requeue.Later {
	t.Helper()
	later, ok := errors.AsType[*requeue.Later](err)
	if !ok {
		t.Fatalf("the task ends with %v, want it put back", err)
	}
	return later
}

func wantArchived(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, asynq.SkipRetry) {
		t.Fatalf("the task ends with %v, want it archived", err)
	}
}

func TestANoticeIsSentAndReported(t *testing.T) {
	var got []string
	b := newBench(t, transportFunc(func(_ context.Context, e tasks.Endpoint, eventID string, body []byte) Reply {
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
		b := newBench(t, answers(http.StatusInternalServerError))
		if a := wantLater(t, b.deliver(t, b.notice())); !a.Failure || a.Delay < 5*time.Second || a.Reason != "status 500" {
			t.Errorf("%+v", a)
		}
		if e := b.endpoint(t); e.FailingSince.IsZero() || e.Last.Status != 500 || b.count(t, failed) != 1 {
			t.Errorf("reported %+v", e)
		}
	})
	t.Run("410 disables the endpoint, which is sent nothing any more", func(t *testing.T) {
		calls := 0
		b := newBench(t, transportFunc(func(context.Context, tasks.Endpoint, string, []byte) Reply {
			calls++
			return Reply{Status: http.StatusGone}
		}))
		wantArchived(t, b.deliver(t, b.notice()))
		if e := b.endpoint(t); e.DisabledAt.IsZero() || b.count(t, gone) != 1 {
			t.Errorf("endpoint %+v", e)
		}
		if n := b.disabledCount(t); n != 1 {
			t.Errorf("%v endpoints were disabled", n)
		}
		wantArchived(t, b.deliver(t, b.notice()))
		if calls != 1 {
			t.Errorf("%d calls", calls)
		}
	})
	t.Run("one for a removed endpoint is dropped", func(t *testing.T) {
		b := newBench(t, answers(http.StatusOK))
		if err := b.db.Endpoints.Remove(t.Context(), b.e, tasks.Actor{}); err != nil {
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
		b := newBench(t, answers(http.StatusOK))
		wantArchived(t, b.process(t.Context(), asynq.NewTask(tasks.TypeNotice, []byte("{}"))))
		wantArchived(t, b.process(t.Context(), asynq.NewTask("other", b.notice().Encode())))
	})
}

// run starts the dispatcher until the test ends.
func (b bench) run(t *testing.T) (stop func()) {
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
func (b bench) finished(t *testing.T, tenant string) tasks.Job {
	t.Helper()
	job, err := b.db.Records.Submit(t.Context(), tasks.Submission{Tenant: tenant, InstanceIDs: []string{"phone-1"}, AllowUnregistered: true})
	if err == nil {
		err = b.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func TestAnEndpointThatHangsDoesNotHoldUpTheOthers(t *testing.T) {
	hung, sent := make(chan struct{}, 1000), make(chan string, 1000)
	b := newBench(t, transportFunc(func(ctx context.Context, e tasks.Endpoint, eventID string, _ []byte) Reply {
		if e.Tenant == "acme" {
			hung <- struct{}{}
			<-ctx.Done()
			return Reply{Err: ctx.Err()}
		}
		sent <- eventID
		return Reply{Status: http.StatusOK}
	}))
	if _, err := b.db.Endpoints.Add(t.Context(), tasks.Endpoint{
		ID: "ep_2", Tenant: "other", URL: "https://other.example", Topics: tasks.Topics, Secret: "whsec_2",
	}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	for range concurrency + 10 {
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
	b.interrupt() // what the end of shutdownGrace does
	stop()
	// What was interrupted is not lost, and no try was used up.
	left, err := b.db.Redis.NewInspector().GetQueueInfo(redisdb.WebhookQueue)
	if err != nil || left.Pending+left.Retry+left.Scheduled != concurrency+10 {
		t.Errorf("left %+v, %v", left, err)
	}
	list, err := b.db.Redis.NewInspector().ListRetryTasks(redisdb.WebhookQueue)
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
	b := newBench(t, transportFunc(func(context.Context, tasks.Endpoint, string, []byte) Reply {
		tried <- struct{}{}
		return Reply{Err: errors.New("connection refused")}
	}))
	job := b.finished(t, "acme")
	b.run(t)
	inspector, id := b.db.Redis.NewInspector(), job.ID+"-finished-1-ep_1"
	state := func(want asynq.TaskState) (info *asynq.TaskInfo) {
		t.Helper()
		if err := harness.Until(t.Context(), 30*time.Second, func(context.Context) (err error) {
			if info, err = inspector.GetTaskInfo(redisdb.WebhookQueue, id); err == nil && info.State != want {
				err = fmt.Errorf("the task is not %s: %+v", want, info)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return info
	}
	for n, delay := range schedule {
		<-tried
		info := state(asynq.TaskStateRetry)
		if d := time.Until(info.NextProcessAt); info.Retried != n+1 || d < delay-2*time.Second || d > delay+delay/jitterPart+2*time.Second {
			t.Errorf("after %d tries the next is in %s, want %s", n+1, d, delay)
		}
		_ = inspector.RunTask(redisdb.WebhookQueue, id) // as the dashboard does, unless its time has just come
	}
	<-tried
	if info := state(asynq.TaskStateArchived); info.LastErr != "connection refused" || b.count(t, givenUp) != 1 || b.count(t, failed) != 9 {
		t.Errorf("in the end %+v", info)
	}
}
