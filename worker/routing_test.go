package worker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// named notes which instances it resets.
type named struct {
	mu    sync.Mutex
	reset []string
}

func (n *named) Reset(_ context.Context, a Attempt) error {
	if err := a.MaySend(); err != nil {
		return &DriverError{Verdict: NotSent, Message: err.Error()}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.reset = append(n.reset, a.InstanceID+"@"+a.Address)
	return nil
}

func (n *named) done() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(slices.Values(n.reset))
}

func (b bench) register(t *testing.T, fleet ...tasks.Instance) (drivers map[string]string) {
	t.Helper()
	if err := b.db.Fleet.Register(t.Context(), fleet, tasks.Actor{By: "test"}); err != nil {
		t.Fatal(err)
	}
	drivers = map[string]string{}
	for _, in := range fleet {
		if in.Driver != "" {
			drivers[in.ID] = in.Driver
		}
	}
	return drivers
}

func (b bench) submitTo(t *testing.T, drivers map[string]string, instances ...string) tasks.Job {
	t.Helper()
	job, err := b.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: instances, AllowUnregistered: true, Drivers: drivers})
	if err != nil {
		t.Fatal(err)
	}
	return job
}

func TestEachInstanceGoesToItsDriver(t *testing.T) {
	t.Parallel()
	first, lab := &named{}, &named{}
	b := newBenchOn(t, redisdb.Options{URL: redistest.Start(t).URL(), Queues: 2}, first, func(c *Config) {
		c.Named = map[string]Named{"lab": {Driver: lab, Concurrency: 2}}
	})
	drivers := b.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme", Driver: "lab", Address: "rack-7"}, tasks.Instance{ID: "phone-2", Tenant: "acme"})
	job := b.submitTo(t, drivers, "phone-1", "phone-2", "phone-3")
	b.start(t)
	if got := b.waitFinal(t, job); got.Counts.Succeeded != 3 {
		t.Errorf("job %+v", got)
	}
	if got := lab.done(); !slices.Equal(got, []string{"phone-1@rack-7"}) {
		t.Errorf("lab has reset %v", got)
	}
	if got := first.done(); !slices.Equal(got, []string{"phone-2@", "phone-3@"}) {
		t.Errorf("the default driver has reset %v", got)
	}
}

func TestAnInstanceThatHasMovedIsResetByItsNewDriverAlone(t *testing.T) {
	first, lab := &named{}, &named{}
	b := newBench(t, first, func(c *Config) { c.Named = map[string]Named{"lab": {Driver: lab}} })
	job := b.submitTo(t, b.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme", Driver: "lab"}), "phone-1")
	b.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme"})
	if err := b.deliver(t, job); err != nil {
		t.Fatalf("the old task: %v", err)
	}
	moved := b.item(t, job)
	if moved.Driver != "" || moved.Delivery != 2 || moved.Attempts != 0 {
		t.Errorf("item %+v", moved)
	}
	job.Items[0] = moved
	if err := b.deliver(t, job); err != nil {
		t.Fatal(err)
	}
	if len(lab.done()) != 0 || !slices.Equal(first.done(), []string{"phone-1@"}) {
		t.Errorf("lab has reset %v, the default driver %v", lab.done(), first.done())
	}
}

func TestATaskOfADriverThatIsNotHereIsPutBack(t *testing.T) {
	b := newBench(t, &named{})
	job := b.submitTo(t, map[string]string{"phone-1": "lab"}, "phone-1")
	err := b.process(t.Context(), asynq.NewTask(tasks.TypeReset, job.Deliveries()[0].Encode()))
	if a := wantAgain(t, err); a.Failure || a.Delay < time.Second {
		t.Errorf("%+v", a)
	}
	if it := b.item(t, job); it.Attempts != 0 || it.State != tasks.ItemPending {
		t.Errorf("item %+v", it)
	}
}

// presence says which drivers living workers have.
type presence struct {
	OpenJobs
	served map[string]bool
}

func (p presence) Served(context.Context) (map[string]bool, error) { return p.served, nil }

func TestAJobSaysThatNoWorkerHasItsDriver(t *testing.T) {
	b := newSweepBench(t)
	sweeper := b.Sweeper
	seen := presence{sweeper.store.OpenJobs, map[string]bool{"default": true}}
	sweeper.store.OpenJobs = seen
	drivers := b.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme", Driver: "lab"}, tasks.Instance{ID: "phone-2", Tenant: "acme", Driver: "attic"})
	job := b.submitTo(t, drivers, "phone-1", "phone-2", "phone-3")
	held := func() tasks.Held {
		t.Helper()
		got, err := b.db.Jobs.Job(t.Context(), job.ID)
		if err != nil {
			t.Fatal(err)
		}
		return got.Held
	}
	b.later(2 * time.Minute)
	b.sweep(t)
	if h := held(); h.Reason != "no living worker has the driver lab, nor attic" || h.Since.IsZero() {
		t.Errorf("held %+v", h)
	}
	// One instance gets a driver that there is, and a worker comes for the other.
	b.register(t, tasks.Instance{ID: "phone-2", Tenant: "acme"})
	seen.served["lab"] = true
	b.later(30 * time.Minute)
	b.sweep(t)
	if h := held(); h.Reason != "" {
		t.Errorf("held %+v", h)
	}
	got, err := b.db.Jobs.Job(t.Context(), job.ID)
	if err != nil {
		t.Fatal(err)
	}
	if it := got.Items[1]; it.Driver != "" || it.Delivery != 2 {
		t.Errorf("item %+v", it)
	}
	if it := got.Items[0]; it.Driver != "lab" || it.Delivery != 1 {
		t.Errorf("item %+v", it)
	}
}

var errNoList = errors.New("asynq does not answer")

// silence does not say who lives.
type silence struct{ OpenJobs }

func (silence) Served(context.Context) (map[string]bool, error) { return nil, errNoList }

func TestWithoutAListOfWorkersNothingIsSaidToBeHeld(t *testing.T) {
	b := newSweepBench(t)
	sweeper := b.Sweeper
	sweeper.store.OpenJobs = silence{sweeper.store.OpenJobs}
	job := b.submit(t, "phone-1")
	b.later(2 * time.Minute)
	b.sweep(t)
	if got, err := b.db.Jobs.Job(t.Context(), job.ID); err != nil || got.Held.Reason != "" {
		t.Errorf("%+v, %v", got.Held, err)
	}
}

func TestACallInDoubtEndsAsUnknownWhenItsInstanceGetsAnotherDriver(t *testing.T) {
	first, lab := &named{}, &named{}
	b := newBench(t, first, func(c *Config) { c.Named = map[string]Named{"lab": {Driver: lab}} })
	job := b.submitTo(t, b.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme", Driver: "lab"}), "phone-1")
	b.loseCall(t, job, "job 1")
	b.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme"})
	wantArchived(t, b.deliver(t, job))
	if it := b.item(t, job); it.State != tasks.ItemUnknown || it.Code != tasks.NoLongerAllowed {
		t.Errorf("item %+v", it)
	}
	if len(first.done())+len(lab.done()) > 0 {
		t.Errorf("reset by %v and %v", first.done(), lab.done())
	}
}

// Nobody else ends an item whose driver no worker has.
func TestAnItemWithoutADriverEndsWhenItsTimeIsOver(t *testing.T) {
	b := newSweepBench(t)
	sweeper := b.Sweeper
	sweeper.store.OpenJobs = presence{sweeper.store.OpenJobs, map[string]bool{"default": true}}
	job := b.submitTo(t, b.register(t, tasks.Instance{ID: "phone-1", Tenant: "acme", Driver: "lab"}), "phone-1")
	b.later(2 * time.Minute)
	b.sweep(t)
	if it := b.item(t, job); it.State != tasks.ItemPending {
		t.Errorf("item %+v", it)
	}
	b.later(25 * time.Hour)
	b.sweep(t)
	if it := b.item(t, job); it.State != tasks.ItemFailed || it.Code != tasks.NotInTime || it.Attempts != 0 {
		t.Errorf("item %+v", it)
	}
}
