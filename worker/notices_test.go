package worker_test

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// told are the tasks that tell of a job.
func (s *scene) told(t *testing.T) []string {
	t.Helper()
	list, err := s.inspector.ListPendingTasks(redisdb.WebhookQueue)
	if err != nil && !errors.Is(err, asynq.ErrQueueNotFound) {
		t.Fatal(err)
	}
	var ids []string
	for _, task := range list {
		ids = append(ids, task.ID)
	}
	return ids
}

func (s *scene) addEndpoint(t *testing.T, topics ...tasks.Topic) {
	t.Helper()
	if _, err := s.db.Endpoints.Add(t.Context(), tasks.Endpoint{
		ID: "ep_1", Tenant: "acme", URL: "https://acme.example", Topics: topics, Secret: "whsec_1",
	}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
}

// swept makes the sweeper look at a job that is listed as open, and says whether it is
// still listed then.
func (s *scene) swept(t *testing.T, job tasks.Job) (listed bool) {
	t.Helper()
	if err := s.rdb.ZAddXX(t.Context(), "reset:open", redis.Z{Member: job.ID, Score: 1}).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.sweeper.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s.rdb.ZScore(t.Context(), "reset:open", job.ID).Err() == nil
}

func TestAFinishIsToldByItsWorker(t *testing.T) {
	t.Parallel()
	s := newScene(t, newPlane(t, false), true, redisdb.Options{URL: redistest.Start(t).URL()})
	s.addEndpoint(t, tasks.TopicJobFinished)
	s.startHealthy(t)
	job := s.submit(t, "phone-1", "phone-2")
	want := []string{job.ID + "-finished-2-ep_1"}
	harness.Eventually(t, patience, "the end is told", func() bool { return slices.Equal(s.told(t), want) })
	harness.Eventually(t, patience, "and marked", func() bool { return len(s.job(t, job.ID).UntoldEvents()) == 0 })
	// It was sent, and asynq has forgotten it.
	if err := s.inspector.DeleteTask(redisdb.WebhookQueue, want[0]); err != nil {
		t.Fatal(err)
	}
	if s.swept(t, job) || s.told(t) != nil {
		t.Errorf("the sweeper tells again: %q", s.told(t))
	}
}

func TestAFinishWhoseWorkerDiedBeforeItCouldTellIsToldByTheSweeper(t *testing.T) {
	t.Parallel()
	s := newScene(t, newPlane(t, false), true, redisdb.Options{URL: redistest.Start(t).URL()})
	s.addEndpoint(t, tasks.TopicJobFinished)
	job := s.submit(t, "phone-1")
	s.startChild(t, syscall.SIGKILL, afterFinish, "").waitKilled(t)
	if !s.job(t, job.ID).State.Final() || s.told(t) != nil {
		t.Fatalf("told %q before the test begins", s.told(t))
	}
	if s.swept(t, job) {
		t.Error("still listed as open")
	}
	if got := s.told(t); !slices.Equal(got, []string{job.ID + "-finished-1-ep_1"}) {
		t.Errorf("told %q", got)
	}
}

func TestAJobThatCannotBeToldStaysListed(t *testing.T) {
	t.Parallel()
	s := newScene(t, newPlane(t, false), true, redisdb.Options{URL: redistest.Start(t).URL()})
	job := s.submit(t, "phone-1")
	if err := s.db.Records.Cancel(t.Context(), job.ID, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if err := s.rdb.Set(t.Context(), "reset:webhook:{acme}", "damaged", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	if !s.swept(t, job) {
		t.Error("it left the index untold")
	}
	if err := s.rdb.Del(t.Context(), "reset:webhook:{acme}").Err(); err != nil {
		t.Fatal(err)
	}
	if s.swept(t, job) {
		t.Error("it is listed for ever")
	}
}
