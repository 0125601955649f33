package ops

import (
	"cmp"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// planesPage is what the drivers talk to.
type planesPage struct {
	page
	Planes  []planeRow
	Exports exports
}

// planeRow is a control plane as the page shows it.
type planeRow struct {
	tasks.ControlPlane

	Windows     []planeWindow
	Plots       []plot     // by minute, for the last hour: resets, and what half of them, and 95 of 100, took at the most
	Unreachable tasks.Time // since when no worker reaches it; zero: one does
	Rows        []planeWorker
}

// planeWorker is a worker process that has the driver, and what it says of it.
type planeWorker struct {
	workerRow

	Its tasks.WorkerDriver
}

// planeWindow is the calls of a time.
type planeWindow struct {
	Name      string
	When      string // within a sentence
	PerMinute string
	Kinds     []kindCount
	Rows      []planeLatency
}

// kindCount is how many calls ended in one way.
type kindCount struct {
	Name  string
	Count int
	Bad   bool
}

// planeLatency is how long resets or looks took.
type planeLatency struct {
	Name          string
	Count         int
	P50, P95, P99 time.Duration
}

// kindTexts are kinds of calls for people.
var kindTexts = [tasks.CallKinds]string{
	"done", "failed, tried again", "failed for good", "busy", "not reached", "outcome unknown", "not sent", "looked", "could not look",
}

func newPlaneRow(p tasks.ControlPlane) planeRow {
	row := planeRow{ControlPlane: p, Unreachable: tasks.UnreachableDrivers(p.Workers)[p.Driver]}
	now, before := p.Now(), p.Before()
	begun := float64(tasks.PlaneNow-1) + float64(p.At.Second())/60
	row.Windows = []planeWindow{newPlaneWindow("Last 5 minutes", "last 5 minutes", &now, begun), newPlaneWindow("The hour before", "the hour before", &before, 60)}
	row.Plots = plotsOf(p)
	for _, w := range p.Workers {
		its, _ := w.Driver(p.Driver)
		row.Rows = append(row.Rows, planeWorker{workerRow{w}, its})
	}
	return row
}

// plotsOf shows resets by minute, but for the last one, which is not over.
func plotsOf(p tasks.ControlPlane) []plot {
	over := p.Minutes[max(len(p.Minutes)-61, 0):max(len(p.Minutes)-1, 0)]
	var count, median, high []int64
	for _, m := range over {
		count = append(count, m.Resets.Count())
		median = append(median, m.Resets.Quantile(.5).Milliseconds())
		high = append(high, m.Resets.Quantile(.95).Milliseconds())
	}
	start := p.At.Truncate(time.Minute).Add(-time.Duration(len(over)) * time.Minute)
	return []plot{
		{ID: "calls-" + p.Driver, Title: "Resets per minute, last hour", Unit: "per minute", Start: start, Step: time.Minute, Series: []series{{"resets", "calls", count}}},
		{ID: "took-" + p.Driver, Title: "How long they took, last hour", Unit: "ms", Start: start, Step: time.Minute, Series: []series{{"half took up to", "p50", median}, {"95 of 100 took up to", "p95", high}}},
	}
}

func newPlaneWindow(name, when string, calls *tasks.Calls, minutes float64) planeWindow {
	w := planeWindow{Name: name, When: when, PerMinute: fmt.Sprintf("%.1f", float64(calls.Total())/minutes)}
	for kind, n := range calls.Kinds {
		if n > 0 {
			w.Kinds = append(w.Kinds, kindCount{kindTexts[kind], int(n), tasks.CallKind(kind).Failed()})
		}
	}
	for _, part := range []struct {
		name      string
		latencies *tasks.Latencies
	}{{"resets", &calls.Resets}, {"looks", &calls.Looks}} {
		if n := part.latencies.Count(); n > 0 {
			w.Rows = append(w.Rows, planeLatency{
				part.name, int(n), part.latencies.Quantile(.5), part.latencies.Quantile(.95), part.latencies.Quantile(.99),
			})
		}
	}
	return w
}

// Called reports whether there were calls.
func (r planeRow) Called() bool { return len(r.Windows[0].Kinds)+len(r.Windows[1].Kinds) > 0 }

// Served is by how many workers it is served, with how many slots.
func (r planeRow) Served() string {
	living, slots, busy := r.living()
	if living == 0 {
		return "no worker"
	}
	return fmt.Sprintf("%s, %s of %s used", counted(living, "worker", "workers"), number(busy), counted(slots, "slot", "slots"))
}

// living is how many workers there are that were heard of, and their slots.
func (r planeRow) living() (workers, slots, busy int) {
	for _, w := range r.Rows {
		if w.Heard() {
			workers, slots, busy = workers+1, slots+w.Its.Slots, busy+w.Its.Busy
		}
	}
	return workers, slots, busy
}

// Bounds are those of all workers together.
func (r planeRow) Bounds() string {
	rate, concurrency, known := 0.0, 0, false
	free, wide := false, false // somebody has no bound
	for _, w := range r.Rows {
		if !w.Heard() || !w.Reports {
			continue
		}
		known = true
		rate, concurrency = rate+w.Its.Rate, concurrency+w.Its.Concurrency
		free, wide = free || w.Its.Rate == 0, wide || w.Its.Concurrency == 0
	}
	if !known {
		return "not known"
	}
	var texts []string
	if !free {
		texts = append(texts, fmt.Sprintf("%.3g calls per second in all", rate))
	}
	if !wide {
		texts = append(texts, number(concurrency)+" side by side in all")
	}
	return cmp.Or(strings.Join(texts, ", "), "none")
}

// problemsOf are sentences on what is wrong with control planes, and on drivers that nobody takes work for.
func problemsOf(planes []tasks.ControlPlane, workers []tasks.WorkerView) (problems []string) {
	unreachable := tasks.UnreachableDrivers(workers)
	for _, p := range planes {
		if since, is := unreachable[p.Driver]; is {
			problems = append(problems, fmt.Sprintf("The control plane of driver %s cannot be reached by any worker, since %s. Its instances wait.",
				p.Driver, since.UTC().Format("15:04:05Z")))
		} else if slow := p.Slow(); slow != "" {
			problems = append(problems, slow)
		}
	}
	for _, driver := range newFleetOfWorkers(workers).Waiting {
		problems = append(problems, fmt.Sprintf("Every worker with the driver %s is quiet or stops. Its instances wait.", driver))
	}
	return problems
}

func (s *site) controlPlanes(c echo.Context) error {
	planes, err := s.Store.Workers.ControlPlanes(c.Request().Context())
	if err != nil {
		return err
	}
	p := planesPage{page: s.page(c, "Control planes"), Exports: exportsOf(c)}
	for _, plane := range planes {
		p.Planes = append(p.Planes, newPlaneRow(plane))
	}
	if wantsFile(c) {
		return s.exportPlanes(c, p.Planes)
	}
	return s.show(c, http.StatusOK, "controlplanes", p)
}

// exportPlanes writes the control planes, with the calls of the last five minutes and those of the hour before.
func (s *site) exportPlanes(c echo.Context, rows []planeRow) error {
	heads := []string{"driver", "workers", "slots_used", "slots", "unreachable_since"}
	for _, when := range []string{"now", "before"} {
		for _, what := range []string{"calls", "failed", "reset_p50_ms", "reset_p95_ms", "reset_p99_ms"} {
			heads = append(heads, when+"_"+what)
		}
	}
	return export(s, c, list[planeRow]{
		name:  "control-planes",
		heads: heads,
		cells: func(r planeRow) []string {
			workers, slots, busy := r.living()
			cells := []string{r.Driver, strconv.Itoa(workers), strconv.Itoa(busy), strconv.Itoa(slots), cellOf(r.Unreachable)}
			for _, calls := range []planeCalls{callsOf(r.Now()), callsOf(r.Before())} {
				cells = append(cells, strconv.FormatInt(calls.Calls, 10), strconv.FormatInt(calls.Failed, 10))
				for _, ms := range []*int64{calls.P50, calls.P95, calls.P99} {
					cell := "" // none was answered
					if ms != nil {
						cell = strconv.FormatInt(*ms, 10)
					}
					cells = append(cells, cell)
				}
			}
			return cells
		},
		record: func(r planeRow) any {
			workers, slots, busy := r.living()
			return struct {
				Driver      string              `json:"driver"`
				Workers     int                 `json:"workers"`
				Busy        int                 `json:"slots_used"`
				Slots       int                 `json:"slots"`
				Unreachable tasks.Time          `json:"unreachable_since,omitzero"`
				Now         planeCalls          `json:"last_5_minutes"`
				Before      planeCalls          `json:"hour_before"`
				Failures    []tasks.CallFailure `json:"failures,omitempty"`
			}{r.Driver, workers, busy, slots, r.Unreachable, callsOf(r.Now()), callsOf(r.Before()), r.Failures}
		},
		next: whole(rows),
	})
}

// planeCalls are the calls of a time as a file has them.
type planeCalls struct {
	Calls  int64 `json:"calls"`
	Failed int64 `json:"failed"`
	// P50 to P99 are what parts of the resets took at the most, in milliseconds; nil: none was answered.
	P50 *int64 `json:"reset_p50_ms,omitempty"`
	P95 *int64 `json:"reset_p95_ms,omitempty"`
	P99 *int64 `json:"reset_p99_ms,omitempty"`
}

func callsOf(c tasks.Calls) (p planeCalls) {
	for kind, n := range c.Kinds {
		p.Calls += n
		if tasks.CallKind(kind).Failed() {
			p.Failed += n
		}
	}
	if c.Resets.Count() > 0 {
		for part, ms := range map[float64]**int64{.5: &p.P50, .95: &p.P95, .99: &p.P99} {
			*ms = new(c.Resets.Quantile(part).Milliseconds())
		}
	}
	return p
}
