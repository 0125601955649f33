package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
	"batchreset/tasks/redisdb/runs"
)

// toldOf is the data of a notice about a run.
type toldOf struct {
	State     tasks.RunState
	Stage     string
	Principal string
	Total     int
	Counts    tasks.Counts
	List      string `json:"list_sha256"`
	Held      tasks.Held
	Approval  *tasks.Approval
	Failures  []tasks.RunFailure
	Round     int
}

func (c *course) addEndpoint(topics ...tasks.Topic) {
	c.Helper()
	if _, err := c.db.Endpoints.Add(c.Context(), tasks.Endpoint{
		ID: "ep_1", Tenant: "acme", URL: "https://acme.example", Topics: topics, Secret: "whsec_1",
	}, tasks.Actor{}); err != nil {
		c.Fatal(err)
	}
}

// notices are those that wait to be sent, in order.
func (c *course) notices() (all []tasks.Notice) {
	c.Helper()
	list, err := c.db.Redis.NewInspector().ListPendingTasks(redisdb.WebhookQueue)
	if err != nil && !errors.Is(err, asynq.ErrQueueNotFound) {
		c.Fatal(err)
	}
	for _, task := range list {
		n, err := tasks.DecodeNotice(task.Payload)
		if err != nil || task.ID != n.TaskID() {
			c.Errorf("task %s %+v, %v", task.ID, n, err)
		}
		if kind, id := n.About(); kind != "run" || id != c.id || n.Tenant != "acme" {
			c.Errorf("notice %+v is about %s %s", n, kind, id)
		}
		all = append(all, n)
	}
	return all
}

// topics are those of the notices that wait to be sent, in order. Each event is there once.
func (c *course) topics() (topics []string) {
	c.Helper()
	ids := map[string]bool{}
	for _, n := range c.notices() {
		topics, ids[n.EventID] = append(topics, strings.TrimPrefix(string(n.Topic), "run.")), true
	}
	if len(ids) != len(topics) {
		c.Errorf("%q are %d events", topics, len(ids))
	}
	return topics
}

func (c *course) wantTold(want ...string) {
	c.Helper()
	if got := c.topics(); !slices.Equal(got, want) {
		c.Errorf("told %q, want %q", got, want)
	}
}

// data is what the nth notice says.
func (c *course) data(n int) toldOf {
	c.Helper()
	var body struct{ Data toldOf }
	if err := json.Unmarshal(c.notices()[n].Body, &body); err != nil {
		c.Fatal(err)
	}
	return body.Data
}

// decided is what the nth notice says, which is of a decision.
func (c *course) decided(n int) (d struct {
	Run      toldOf
	Decision tasks.RunDecision
},
) {
	c.Helper()
	body := struct{ Data any }{&d}
	if err := json.Unmarshal(c.notices()[n].Body, &body); err != nil {
		c.Fatal(err)
	}
	return d
}

// forget is what asynq does with tasks that are done with.
func (c *course) forget() {
	c.Helper()
	if _, err := c.db.Redis.NewInspector().DeleteAllPendingTasks(redisdb.WebhookQueue); err != nil {
		c.Fatal(err)
	}
}

func (c *course) listed() bool {
	return c.db.Redis.ZScore(c.Context(), "reset:runs", c.id).Err() == nil
}

func (c *course) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func TestEachChangeOfARunIsTold(t *testing.T) {
	for name, opts := range map[string]redisdb.Options{"embedded": embedded(t), "redis": {URL: redistest.Start(t).URL()}} {
		t.Run(name, func(t *testing.T) {
			c := judged(t, opts, 100, 2, time.Hour)
			c.addEndpoint(tasks.Topics[2:]...)
			c.rounds()
			c.wantTold("waiting_approval")
			if d := c.data(0); d.State != tasks.RunWaiting || d.Stage != "approval" || d.Total != 100 || d.Counts.Pending != 100 || d.List != c.run().ListSHA256 ||
				d.Principal != "alice" || d.Approval.Approvers != 2 || d.Round != 1 {
				t.Errorf("waiting: %+v", d)
			}
			c.must(c.approve("bob"))
			c.must(c.approve("carol"))
			c.rounds()
			c.wantTold("waiting_approval", "decided", "decided")
			if d := c.decided(2); d.Decision.Principal != "carol" || d.Decision.Decision != tasks.Approved || d.Decision.Comment != "looked at it" || d.Run.State != tasks.RunWaiting {
				t.Errorf("decided: %+v", d)
			}
			c.must(c.db.RunDecisions.Pause(t.Context(), c.id, tasks.Actor{Reason: "a smell of smoke"}))
			c.end(nil)
			c.rounds()
			c.wantTold("waiting_approval", "decided", "decided", "paused")
			if d := c.data(3); d.State != tasks.RunPaused || d.Stage != "wave 1" || d.Held.Reason != "paused by hand: a smell of smoke" || d.Held.Since.IsZero() || d.Counts.Total() != 100 {
				t.Errorf("paused: %+v", d)
			}
			c.must(c.db.RunDecisions.Resume(t.Context(), c.id, nil, tasks.Actor{}))
			for range 2 {
				c.rounds()
				c.end(nil)
			}
			c.rounds()
			all := c.topics()
			if want := []string{"waiting_approval", "decided", "decided", "paused", "finished"}; !slices.Equal(all, want) {
				t.Fatalf("told %q", all)
			}
			if d := c.data(4); d.State != tasks.RunSucceeded || d.Counts.Succeeded != 100 || d.Stage != "" {
				t.Errorf("finished: %+v", d)
			}
			if c.listed() || c.run().Untold != nil {
				t.Errorf("told and listed %t: %+v", c.listed(), c.run().Untold)
			}
			// Whoever looks again, and what asynq has forgotten, too, is not told again.
			c.forget()
			if _, err := c.runner.step(t.Context(), c.id); err != nil {
				t.Fatal(err)
			}
			c.wantTold()
		})
	}
}

func TestARejectionAndAnExpiryAreToldAsEnds(t *testing.T) {
	t.Run("rejected", func(t *testing.T) {
		c := judged(t, embedded(t), 10, 1, time.Hour)
		c.addEndpoint(tasks.TopicRunDecided, tasks.TopicRunFinished)
		c.must(c.db.RunDecisions.Reject(t.Context(), c.id, "", by("bob")))
		c.rounds()
		c.wantTold("decided", "finished")
		if d := c.decided(0); d.Run.State != tasks.RunRejected || d.Decision.Decision != tasks.Rejected {
			t.Errorf("decided: %+v", d)
		}
		if d := c.data(1); d.State != tasks.RunRejected || d.Counts.Cancelled != 10 {
			t.Errorf("finished: %+v", d)
		}
	})
	t.Run("expired", func(t *testing.T) {
		c := judged(t, embedded(t), 10, 1, time.Nanosecond)
		c.addEndpoint(tasks.TopicRunFinished)
		c.rounds()
		c.wantTold("finished")
		if d := c.data(0); d.State != tasks.RunExpired || d.Counts.Cancelled != 10 {
			t.Errorf("finished: %+v", d)
		}
	})
}

func TestARunThatPausesItselfTellsWhy(t *testing.T) {
	c := newCourse(t, embedded(t), 100, tasks.RunOptions{Canary: 2})
	c.addEndpoint(tasks.TopicRunPaused)
	c.rounds()
	c.end(func(instance string) bool { return instance == "phone-1" })
	c.rounds()
	c.wantTold("paused")
	if d := c.data(0); d.Stage != "canary" || !strings.HasPrefix(d.Held.Reason, "the canary failed: ") || d.Counts.Failed != 1 {
		t.Errorf("paused: %+v", d)
	}
	if got := c.paused(); !maps.Equal(got, map[string]float64{runs.ByCanary: 1, runs.ByFailures: 0, runs.ByHand: 0}) {
		t.Errorf("counted %v", got)
	}
	budget, err := tasks.ParseBudget("1")
	c.must(err)
	c.must(c.db.RunDecisions.Resume(t.Context(), c.id, &budget, tasks.Actor{}))
	c.rounds()
	c.must(c.db.RunDecisions.Pause(t.Context(), c.id, tasks.Actor{}))
	c.must(c.db.RunDecisions.Resume(t.Context(), c.id, nil, tasks.Actor{}))
	c.end(func(string) bool { return true })
	c.rounds()
	c.wantTold("paused", "paused", "paused")
	if got := c.paused(); !maps.Equal(got, map[string]float64{runs.ByCanary: 1, runs.ByFailures: 1, runs.ByHand: 1}) {
		t.Errorf("counted %v", got)
	}
}

// paused is how many runs were paused, by what.
func (c *course) paused() map[string]float64 {
	c.Helper()
	counted := map[string]float64{}
	for _, m := range gathered(c.T, c.db)["batchreset_runs_paused_total"] {
		counted[m.label] = m.value
	}
	return counted
}

// series is one of a metric, with its only label.
type series struct {
	label string
	value float64 // of a histogram: how much was observed
}

func gathered(t *testing.T, collector prometheus.Collector) map[string][]series {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]series{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			s := series{value: m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())}
			for _, l := range m.GetLabel() {
				s.label = l.GetValue()
			}
			all[family.GetName()] = append(all[family.GetName()], s)
		}
	}
	return all
}

func TestWavesAreMeasuredWhenTheyHaveEnded(t *testing.T) {
	c := newCourse(t, embedded(t), 20, tasks.RunOptions{Canary: 2, Growth: 3, Soak: tasks.Duration(time.Hour)})
	waves := func(want float64) {
		t.Helper()
		if got := gathered(t, c.runner)["batchreset_run_wave_duration_seconds"][0].value; got != want {
			t.Errorf("%v waves have ended, want %v", got, want)
		}
	}
	c.rounds()
	c.end(nil)
	c.rounds()
	waves(0) // the soak is no part of it, and is not over
	c.db.Redis.HSet(t.Context(), "reset:run:{"+c.id+"}", "soak_until", time.Now().Add(-time.Second).UnixMilli())
	c.rounds()
	waves(1)
	c.end(nil) // 6
	c.rounds()
	waves(2)
	c.must(c.db.RunDecisions.Cancel(t.Context(), c.id, tasks.Actor{}))
	c.rounds() // which cancels its job
	if run := c.rounds(); !run.State.Final() {
		t.Fatalf("run %s", run.State)
	}
	waves(2) // what was cancelled has not ended by itself
	c.must(c.db.RunDecisions.Retry(t.Context(), c.id, retryOf(tasks.ItemCancelled), tasks.Actor{}))
	c.rounds()
	c.end(nil)
	c.rounds()
	waves(2) // a canary that waits again
	c.db.Redis.HSet(t.Context(), "reset:run:{"+c.id+"}", "soak_until", time.Now().Add(-time.Second).UnixMilli())
	c.rounds()
	waves(3)
}

// teller is what tells of runs, until it is killed.
type teller struct {
	RunNotices
	before, after func(run tasks.Run) error
}

func (d *teller) EnqueueRunNotices(ctx context.Context, run tasks.Run) error {
	if err := d.before(run); err != nil {
		return err
	}
	return errors.Join(d.RunNotices.EnqueueRunNotices(ctx, run), d.after(run))
}

// Whenever the runner dies that tells of an event, another one does, and the event has the same ID.
func TestARunnerThatDiesWhileItTells(t *testing.T) {
	for _, event := range []string{"waiting_approval", "decided", "paused", "finished"} {
		for _, at := range []string{"before it told", "before it took the event out of the record", "afterwards"} {
			t.Run(event+", "+at, func(t *testing.T) {
				c := judged(t, embedded(t), 10, 1, time.Hour)
				c.addEndpoint(tasks.Topics...)
				store := storeOfRunner(c.db)
				var died []string
				store.RunNotices = &teller{
					RunNotices: c.db.Notices,
					before:     func(run tasks.Run) error { return c.diesAt(at == "before it told", event, run, &died) },
					after: func(run tasks.Run) error {
						c.putBack(at, run)
						return c.diesAt(at != "before it told", event, run, &died)
					},
				}
				mortal, immortal := newRunnerOf(t, store), c.runner
				steps := []func(){
					func() {},
					func() { c.must(c.approve("bob")) },
					func() { c.must(c.db.RunDecisions.Pause(t.Context(), c.id, tasks.Actor{})) },
					func() {
						c.must(c.db.RunDecisions.Resume(t.Context(), c.id, nil, tasks.Actor{}))
						c.runner = immortal
						c.rounds()
						c.end(nil)
						c.runner = mortal
					},
				}
				for _, do := range steps {
					c.runner = mortal
					do()
					c.rounds()
					c.runner = immortal
					c.rounds()
				}
				if c.run().State != tasks.RunSucceeded {
					t.Fatalf("run %s", c.run().State)
				}
				if died == nil {
					t.Error("nobody died")
				}
				c.wantTold("waiting_approval", "decided", "paused", "finished")
				if c.listed() {
					t.Error("still listed as open")
				}
			})
		}
	}
}

// diesAt is an error for a runner that dies now, if the run has an untold event of a kind.
func (c *course) diesAt(now bool, event string, run tasks.Run, died *[]string) error {
	if !now || !slices.ContainsFunc(run.Untold, func(e tasks.RunEvent) bool { return string(e.Topic) == "run."+event }) {
		return nil
	}
	*died = append(*died, event)
	return errDied
}

// putBack undoes that events were taken out of the record.
func (c *course) putBack(at string, run tasks.Run) {
	if at != "before it took the event out of the record" {
		return
	}
	for _, e := range run.Untold {
		b, err := json.Marshal(e)
		c.must(err)
		c.must(c.db.Redis.HSet(c.Context(), "reset:run:{"+c.id+"}", fmt.Sprintf("e:%d", e.Number), string(b)).Err())
	}
}

// dyingBrake is an api that dies when the record says what was decided, and before it wakes a runner.
type dyingBrake struct{ runs.Brake }

func (dyingBrake) HaltRun(context.Context, string, string) error { return errDied }

// What was decided by somebody who died before the announcement is told, and done, all the same.
func TestADecisionWhoseAnnouncementIsLost(t *testing.T) {
	c := judged(t, embedded(t), 10, 1, 24*time.Hour)
	c.addEndpoint(tasks.TopicRunPaused, tasks.TopicRunDecided)
	next, err := c.runner.step(t.Context(), c.id)
	if wait := time.Until(next); err != nil || wait > runIdle {
		t.Errorf("a run that waits for approval is looked at in %s, %v", wait, err)
	}
	dying := runs.NewDecisions(c.db.Runs, c.db.Audit, dyingBrake{c.db.Policies})
	if err := dying.Pause(t.Context(), c.id, tasks.Actor{}); !errors.Is(err, errDied) {
		t.Fatal(err)
	}
	if _, err := c.runner.step(t.Context(), c.id); err != nil {
		t.Fatal(err)
	}
	c.wantTold("paused")
}

// A run whose tenant cannot be told goes on, and stays listed until it is.
func TestARunThatCannotBeTold(t *testing.T) {
	c := newCourse(t, embedded(t), 40, tasks.RunOptions{MaxParallel: 32})
	c.must(c.db.Redis.Set(t.Context(), "reset:webhook:{acme}", "damaged", time.Hour).Err())
	c.rounds()
	c.must(c.db.RunDecisions.Pause(t.Context(), c.id, tasks.Actor{}))
	c.rounds()
	c.must(c.db.RunDecisions.Resume(t.Context(), c.id, nil, tasks.Actor{}))
	for range 2 {
		c.rounds()
		c.end(func(instance string) bool { return instance == "phone-7" })
	}
	if run := c.rounds(); run.State != tasks.RunPartial || !c.listed() {
		t.Fatalf("run %s, listed %t", run.State, c.listed())
	}
	// Another round hides nothing of the one before.
	c.must(c.db.RunDecisions.Retry(t.Context(), c.id, retryOf(tasks.ItemFailed), tasks.Actor{}))
	c.rounds()
	c.end(nil)
	c.rounds()
	c.must(c.db.Redis.Del(t.Context(), "reset:webhook:{acme}").Err())
	c.addEndpoint(tasks.Topics...)
	if run := c.rounds(); run.State != tasks.RunSucceeded || c.listed() {
		t.Errorf("run %s, listed %t", run.State, c.listed())
	}
	c.wantTold("paused", "finished", "finished")
	if first, second := c.data(1), c.data(2); first.State != tasks.RunPartial || first.Counts.Failed != 1 || len(first.Failures) != 1 || first.Round != 1 ||
		second.State != tasks.RunSucceeded || second.Counts.Succeeded != 40 || second.Round != 2 {
		t.Errorf("told %+v and %+v", first, second)
	}
}

// Nobody is told of what nobody wants, and nothing is kept for later.
func TestARunWithoutEndpointsIsTold(t *testing.T) {
	c := newCourse(t, embedded(t), 10, tasks.RunOptions{})
	c.addEndpoint(tasks.TopicJobFinished)
	c.rounds()
	c.end(nil)
	if run := c.rounds(); run.State != tasks.RunSucceeded || run.Untold != nil || c.listed() {
		t.Errorf("run %s with %+v, listed %t", run.State, run.Untold, c.listed())
	}
	for _, n := range c.topics() {
		t.Errorf("told %s", n)
	}
}
