package worker

import (
	"context"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"batchreset/tasks"
)

// Reports are where a process tells what it does, and hears what it is ordered to do.
type Reports interface {
	// Report keeps a report, and returns the last order that this very process was given, if any.
	Report(ctx context.Context, r tasks.WorkerReport) (tasks.WorkerOrder, error)
	// Now is the time by Redis's clock, ClockOffset by how much this machine's is ahead of it.
	Now() time.Time
	ClockOffset() (offset time.Duration, known bool)
}

// underWay are the attempts that have begun and whose end is not written, oldest first. It costs an attempt two locks
// of a moment, and no garbage.
type underWay struct {
	mu          sync.Mutex
	first, last *attempt
	number      int
}

// place is that of an attempt in the list.
type place struct {
	since        time.Time
	older, newer *attempt
}

func (u *underWay) add(a *attempt) {
	a.since = time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil {
		u.first = a
	} else {
		a.older, u.last.newer = u.last, a
	}
	u.last = a
	u.number++
}

func (u *underWay) remove(a *attempt) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if a.older == nil {
		u.first = a.newer
	} else {
		a.older.newer = a.newer
	}
	if a.newer == nil {
		u.last = a.older
	} else {
		a.newer.older = a.older
	}
	a.older, a.newer = nil, nil
	u.number--
}

// oldest are the oldest ones, at most tasks.MaxReportItems, and how many more there are. What is read of an attempt does
// not change once it is in the list.
func (u *underWay) oldest(now time.Time) (items []tasks.ItemUnderWay, more int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for a := u.first; a != nil && len(items) < tasks.MaxReportItems; a = a.newer {
		items = append(items, tasks.ItemUnderWay{
			ItemID: a.d.ItemID, InstanceID: a.d.InstanceID, Tenant: a.d.Tenant, Driver: a.name, Attempt: a.begun.Number, Since: ago(now, a.since),
		})
	}
	return items, u.number - len(items)
}

func (u *underWay) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.number
}

// sent are those of which something may have been sent.
func (u *underWay) sent() (sent []*attempt) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for a := u.first; a != nil; a = a.newer {
		if a.sent.Load() || a.begun.Ambiguous {
			sent = append(sent, a)
		}
	}
	return sent
}

// ago is when something was by Redis's clock, which says now: by how long ago it was here.
func ago(now, at time.Time) tasks.Time {
	if at.IsZero() {
		return tasks.Time{}
	}
	return tasks.FromMillis(now.Add(-time.Since(at)).UnixMilli())
}

// report goes on telling what this process does, and does what it is ordered, until ctx ends.
func (w *Worker) report(ctx context.Context) {
	ticker := time.NewTicker(tasks.ReportEvery)
	defer ticker.Stop()
	for {
		w.reportOnce(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-w.changed:
		}
	}
}

func (w *Worker) reportOnce(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, tasks.BeatEvery)
	defer cancel()
	order, err := w.store.Report(ctx, w.describe())
	if err != nil && ctx.Err() == nil {
		w.log.Warn("report not written", "error", err)
	}
	w.obey(order)
}

// describe is what there is to report.
func (w *Worker) describe() tasks.WorkerReport {
	now := w.store.Now()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown-host" // as asynq calls it
	}
	r := tasks.WorkerReport{
		ID: w.id, Host: host, PID: os.Getpid(), Version: w.cfg.Version, Started: ago(now, w.started), Whole: w.cfg.Stop == nil, ShutdownTimeout: w.cfg.ShutdownTimeout.Milliseconds(),
	}
	r.State, r.Since = w.condition(now)
	if offset, known := w.store.ClockOffset(); known {
		ms := offset.Milliseconds()
		r.ClockOffset = &ms
	}
	for _, name := range slices.Sorted(maps.Keys(w.drivers)) {
		r.Drivers = append(r.Drivers, w.drivers[name].describe(now))
	}
	r.Items, r.More = w.under.oldest(now)
	return r
}

func (w *Worker) condition(now time.Time) (tasks.WorkerCondition, tasks.Time) {
	if at := w.drainedAt.Load(); at != nil {
		return tasks.WorkerDrains, ago(now, *at)
	}
	if since := w.taking.Load().quiet; !since.IsZero() {
		return tasks.WorkerQuiet, ago(now, since)
	}
	return tasks.WorkerWorks, tasks.Time{}
}

func (e *equipment) describe(now time.Time) tasks.WorkerDriver {
	d := tasks.WorkerDriver{
		Name: e.name, Lanes: int(e.lanes.Load()), Slots: int(e.slots.Load()), Busy: int(e.busy.Load()), Timeout: e.timeout.Milliseconds(),
	}
	if u, ok := e.driver.(*Upstream); ok {
		state := u.state()
		d.Rate, d.Concurrency, d.OpenSince = u.cfg.Rate, u.cfg.Concurrency, ago(now, state.openSince)
		d.LastError, d.LastErrorAt = Printable(state.lastError, tasks.MaxCallMessage), ago(now, state.lastErrorAt)
	}
	return d
}

// taking says whether attempts may begin.
type taking struct {
	quiet time.Time       // since when they may not, because people want that; zero: they may
	ctx   context.Context // ends when no attempt may begin any more
	end   context.CancelFunc
}

// obey does what people have ordered. An order that was followed before changes nothing; nor does none: it may have been
// lost, and people would not know.
func (w *Worker) obey(order tasks.WorkerOrder) {
	switch order {
	case "":
	case tasks.OrderQuiet:
		w.beQuiet()
	case tasks.OrderTake:
		w.takeWork()
	case tasks.OrderStop:
		if w.cfg.Stop != nil && w.draining.Err() == nil && !w.told.Swap(true) {
			w.log.Info("worker was told to stop, by an operator")
			w.cfg.Stop()
		}
	default:
		w.log.Warn("an order is not known to this version", "order", order)
	}
}

// beQuiet has this process take nothing new. Its servers find their queues empty, and what waits for a turn of its driver
// goes back, once, as when the process stops.
func (w *Worker) beQuiet() {
	t := w.taking.Load()
	if !t.quiet.IsZero() || w.draining.Err() != nil {
		return
	}
	w.hold(true)
	w.taking.Store(&taking{quiet: time.Now(), ctx: t.ctx, end: t.end})
	t.end()
	w.metrics.quiet.Set(1)
	w.log.Info("worker is quiet: it takes nothing new")
	w.tellNow()
}

// takeWork ends that.
func (w *Worker) takeWork() {
	if w.taking.Load().quiet.IsZero() {
		return
	}
	w.taking.Store(w.newTaking())
	w.hold(false)
	w.metrics.quiet.Set(0)
	w.log.Info("worker takes work again")
	w.tellNow()
}

// Quiet reports whether this process takes nothing new because people want that.
func (w *Worker) Quiet() bool { return !w.taking.Load().quiet.IsZero() }

func (w *Worker) hold(hold bool) {
	if w.cfg.Hold != nil {
		w.cfg.Hold(hold)
	}
}

func (w *Worker) newTaking() *taking {
	ctx, end := context.WithCancel(w.draining)
	return &taking{ctx: ctx, end: end}
}

// tellNow has the next report come at once.
func (w *Worker) tellNow() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}
