package redisdb

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/registry"
	"batchreset/tasks/redisdb/views"
	"batchreset/tasks/redisdb/wire"
)

const (
	// reportKept is how long the report of a worker process is kept that tells nothing more: people see that it is
	// gone. A report is 20 kB at the most.
	reportKept = time.Minute
	// workersKey is a sorted set of the IDs of worker processes, by their last report, which are dropped after
	// listedFor: one without a report is not shown, so that is only for a Redis that was full when the report came.
	workersKey = "reset:workers"
	listedFor  = time.Hour
	// workersFresh is how long a look at all worker processes and control planes is good for, workersPatience how
	// long it may take.
	workersFresh    = time.Second
	workersPatience = 10 * time.Second
)

func reportKey(id string) string { return workerKey(id) + ":report" }
func orderKey(id string) string  { return workerKey(id) + ":order" }

// Workers are the worker processes as they report, what people order them, and the control planes that they call.
type Workers struct {
	redis   *wire.Client
	queues  *Queues
	audit   *registry.Audit
	calls   *views.Calls
	leftOut *codec.LeftOut
	seen    *wire.Look[[]tasks.WorkerView]
	planes  *wire.Look[[]tasks.ControlPlane]
}

func newWorkers(client *wire.Client, queues *Queues, audit *registry.Audit, calls *views.Calls, leftOut *codec.LeftOut) *Workers {
	w := &Workers{redis: client, queues: queues, audit: audit, calls: calls, leftOut: leftOut}
	w.seen = wire.NewLook(workersFresh, workersPatience, func(ctx context.Context, _ *[]tasks.WorkerView) ([]tasks.WorkerView, error) {
		return w.look(ctx)
	})
	w.planes = wire.NewLook(workersFresh, workersPatience, func(ctx context.Context, _ *[]tasks.ControlPlane) ([]tasks.ControlPlane, error) {
		return w.lookAtPlanes(ctx)
	})
	return w
}

// close waits for looks that are under way.
func (w *Workers) close() {
	w.planes.Wait()
	w.seen.Wait()
}

// Now is the time by Redis's clock.
func (w *Workers) Now() time.Time { return w.redis.Now() }

// ClockOffset is by how much this machine's clock is ahead of Redis's, if that is known.
func (w *Workers) ClockOffset() (offset time.Duration, known bool) { return w.redis.ClockOffset() }

// Report keeps what a worker process tells of itself, and returns what it is ordered to do, if anything.
func (w *Workers) Report(ctx context.Context, r tasks.WorkerReport) (tasks.WorkerOrder, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	answer, err := w.redis.Run(ctx, reportScript, []string{reportKey(r.ID), orderKey(r.ID)}, text, reportKept.Milliseconds(), workerLifetime.Milliseconds()).Slice()
	if err != nil {
		return "", fmt.Errorf("report: %w", err)
	}
	if len(answer) != 2 {
		return "", fmt.Errorf("report: the script answered %v", answer)
	}
	order, now := tasks.WorkerOrder(codec.Text(answer[0])), codec.Number(answer[1])
	pipe := w.redis.Pipeline()
	pipe.ZAdd(ctx, workersKey, redis.Z{Score: float64(now), Member: r.ID})
	pipe.ZRemRangeByScore(ctx, workersKey, "-inf", strconv.FormatInt(now-listedFor.Milliseconds(), 10))
	if _, err := pipe.Exec(ctx); err != nil {
		return order, fmt.Errorf("report: %w", err)
	}
	return order, nil
}

// forget removes what a worker process that ends has told of itself.
func forget(ctx context.Context, client *wire.Client, id string) error {
	if err := client.Del(ctx, workerKey(id), reportKey(id), orderKey(id)).Err(); err != nil {
		return err
	}
	return client.ZRem(ctx, workersKey, id).Err()
}

// Workers returns all worker processes, by machine and process, as they were a second ago at the most: those that report,
// those that have shown nothing for up to a minute, and those of an older version that asynq knows. The slice is
// everybody's: nobody may change it.
func (w *Workers) Workers(ctx context.Context) ([]tasks.WorkerView, error) { return w.seen.Get(ctx) }

// Worker returns a worker process that reports, or did up to a minute ago, as it is now.
func (w *Workers) Worker(ctx context.Context, id string) (view tasks.WorkerView, found bool, err error) {
	if !validWorkerID.MatchString(id) {
		return view, false, nil
	}
	now, err := w.redis.Time(ctx).Result()
	if err != nil {
		return view, false, fmt.Errorf("look at a worker: %w", err)
	}
	views, err := w.reported(ctx, []string{id}, now)
	if err != nil || len(views) == 0 {
		return view, false, err
	}
	return views[0], true, nil
}

// validWorkerID is what IDs of worker processes look like: they are in keys.
var validWorkerID = regexp.MustCompile(`^[A-Z2-7]{` + strconv.Itoa(codec.WorkerIDLength) + `}$`)

func (w *Workers) look(ctx context.Context) ([]tasks.WorkerView, error) {
	now, err := w.redis.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	ids, err := w.redis.ZRange(ctx, workersKey, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	all, err := w.reported(ctx, ids, now)
	if err != nil {
		return nil, err
	}
	servers, err := w.queues.servers.Get(ctx)
	if err != nil {
		return nil, fmt.Errorf("list workers: %w", err)
	}
	all = append(all, silentVersions(servers, all, now)...)
	slices.SortFunc(all, func(a, b tasks.WorkerView) int {
		return cmp.Or(strings.Compare(a.Host, b.Host), a.PID-b.PID, a.Started.Compare(b.Started.Time), strings.Compare(a.ID, b.ID))
	})
	return all, nil
}

// reported are those of the worker processes with these IDs that have a report.
func (w *Workers) reported(ctx context.Context, ids []string, now time.Time) (found []tasks.WorkerView, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	pipe := w.redis.Pipeline()
	reports, lives := make([]*redis.StringCmd, len(ids)), make([]*redis.DurationCmd, len(ids))
	for i, id := range ids {
		reports[i], lives[i] = pipe.Get(ctx, reportKey(id)), pipe.PTTL(ctx, workerKey(id))
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	for i, id := range ids {
		text, err := reports[i].Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		left, lifeErr := lives[i].Result()
		if err := errors.Join(err, lifeErr); err != nil {
			return nil, fmt.Errorf("look at workers: %w", err)
		}
		view, err := viewOf(text, left, now)
		if err != nil {
			if err := w.leftOut.Note("the report of worker "+id, &codec.Damage{Err: err}); err != nil {
				return nil, err
			}
			continue
		}
		found = append(found, view)
	}
	return found, nil
}

// viewOf reads a report. left is how long the sign of life is still good for.
func viewOf(text string, left time.Duration, now time.Time) (tasks.WorkerView, error) {
	written, report, _ := strings.Cut(text, " ")
	ms, err := strconv.ParseInt(written, 10, 64)
	view := tasks.WorkerView{Reports: true, At: tasks.FromMillis(now.UnixMilli())}
	if err == nil {
		err = json.Unmarshal([]byte(report), &view.WorkerReport)
	}
	view.Silent = max(now.Sub(time.UnixMilli(ms)), 0)
	if left > 0 { // the sign of life is written by itself, and more surely
		view.Silent = min(view.Silent, max(workerLifetime-left, 0))
	}
	return view, err
}

// silentVersions are the worker processes that asynq knows and that do not report: an older version. Of those what asynq
// tells is known, which is a few seconds old.
func silentVersions(servers []*asynq.ServerInfo, reported []tasks.WorkerView, now time.Time) []tasks.WorkerView {
	type name struct {
		host string
		pid  int
	}
	reports := map[name]bool{}
	for _, r := range reported {
		// One whose process was followed by another one, with the same number in a container, does not speak for it.
		if r.Heard() {
			reports[name{r.Host, r.PID}] = true
		}
	}
	byName := map[name]*tasks.WorkerView{}
	for _, s := range servers {
		drivers := driversOf(slices.Collect(maps.Keys(s.Queues)))
		if len(drivers) == 0 || reports[name{s.Host, s.PID}] {
			continue
		}
		if slices.ContainsFunc(reported, func(r tasks.WorkerView) bool { // it died, and asynq does not know that yet
			return r.Host == s.Host && r.PID == s.PID && s.Started.Before(now.Add(-r.Silent))
		}) {
			continue
		}
		w := byName[name{s.Host, s.PID}]
		if w == nil {
			w = &tasks.WorkerView{At: tasks.FromMillis(now.UnixMilli())}
			if s.Status != "active" {
				w.State = tasks.WorkerDrains
			}
			w.Host, w.PID, w.Started = s.Host, s.PID, tasks.FromMillis(s.Started.UnixMilli())
			byName[name{s.Host, s.PID}] = w
		}
		for _, driver := range drivers {
			at := slices.IndexFunc(w.Drivers, func(d tasks.WorkerDriver) bool { return d.Name == driver })
			if at < 0 {
				at, w.Drivers = len(w.Drivers), append(w.Drivers, tasks.WorkerDriver{Name: driver})
			}
			w.Drivers[at].Lanes++
			w.Drivers[at].Slots += s.Concurrency
			w.Drivers[at].Busy += len(s.ActiveWorkers)
		}
		for _, active := range s.ActiveWorkers {
			w.Items = append(w.Items, itemOf(active))
		}
	}
	var found []tasks.WorkerView
	for _, w := range byName {
		slices.SortFunc(w.Items, func(a, b tasks.ItemUnderWay) int { return a.Since.Compare(b.Since.Time) })
		w.More = max(len(w.Items)-tasks.MaxReportItems, 0)
		w.Items = w.Items[:len(w.Items)-w.More]
		found = append(found, *w)
	}
	return found
}

// itemOf is a task that asynq says is worked on.
func itemOf(active *asynq.WorkerInfo) tasks.ItemUnderWay {
	item := tasks.ItemUnderWay{Since: tasks.FromMillis(active.Started.UnixMilli())}
	if d, err := tasks.DecodeDelivery(active.TaskPayload); err == nil {
		item.ItemID, item.InstanceID, item.Tenant, item.Driver = d.ItemID, d.InstanceID, d.Tenant, d.DriverName()
	}
	return item
}

// Order tells a worker process what to do; it hears of it with its next report. Nobody else can be meant: a process
// that was started again has another ID. Errors: a tasks.Error if there is no such process, or it cannot do that.
func (w *Workers) Order(ctx context.Context, id string, order tasks.WorkerOrder, actor tasks.Actor) error {
	view, found, err := w.Worker(ctx, id)
	if err != nil {
		return err
	}
	if why := cannot(view, found, order); why != nil {
		return why
	}
	e := actor.Entry(order.Action())
	e.Detail = fmt.Sprintf("%s: process %d on %s", id, view.PID, view.Host)
	err = w.audit.Decide(ctx, e, func(ctx context.Context) error {
		alive, err := w.redis.Exists(ctx, workerKey(id)).Result()
		if err != nil {
			return err
		}
		if alive == 0 {
			return errNoWorker
		}
		return w.redis.Run(ctx, orderScript, []string{orderKey(id)}, string(order), workerLifetime.Milliseconds()).Err()
	})
	if err != nil {
		return fmt.Errorf("order to a worker: %w", err)
	}
	return nil
}

// errNoWorker says that nobody would hear.
var errNoWorker = tasks.Errorf(tasks.BadRequest, "This worker does not live any more: nothing was changed.")

// cannot says why a worker process cannot be ordered something.
func cannot(w tasks.WorkerView, found bool, order tasks.WorkerOrder) error {
	switch {
	case !slices.Contains(tasks.WorkerOrders, order):
		return tasks.Errorf(tasks.BadRequest, "There is no order %.80q.", order)
	case !found:
		return errNoWorker
	case w.State == tasks.WorkerDrains:
		return tasks.Errorf(tasks.BadRequest, "This worker stops already.")
	case order == tasks.OrderStop && w.Whole:
		return tasks.Errorf(tasks.BadRequest, "This process is the whole service, this site included: stop it where it runs.")
	}
	return nil
}

// Unreachable are the drivers whose control plane no worker can reach, with since when: see tasks.UnreachableDrivers.
func (w *Workers) Unreachable(ctx context.Context) (map[string]tasks.Time, error) {
	workers, err := w.Workers(ctx)
	if err != nil {
		return nil, err
	}
	return tasks.UnreachableDrivers(workers), nil
}

// ControlPlanes are what the drivers talk to that workers have, or that were called within the last day, by name, as it was a second
// ago at the most. The slice is everybody's: nobody may change it.
func (w *Workers) ControlPlanes(ctx context.Context) ([]tasks.ControlPlane, error) {
	return w.planes.Get(ctx)
}

func (w *Workers) lookAtPlanes(ctx context.Context) ([]tasks.ControlPlane, error) {
	drivers, err := w.calls.Called(ctx)
	if err != nil {
		return nil, err
	}
	workers, err := w.Workers(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range workers {
		for _, d := range v.Drivers {
			drivers = append(drivers, d.Name)
		}
	}
	slices.Sort(drivers)
	planes, err := w.calls.Planes(ctx, slices.Compact(drivers))
	for i := range planes {
		for _, v := range workers {
			if _, has := v.Driver(planes[i].Driver); has {
				planes[i].Workers = append(planes[i].Workers, v)
			}
		}
	}
	return planes, err
}
