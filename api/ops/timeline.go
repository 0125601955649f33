package ops

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// timelineRoutes are the pages about single items.
func (s *site) timelineRoutes(e *echo.Echo, viewer echo.MiddlewareFunc) {
	e.GET("/jobs/:job/items/:item", s.item, viewer)
}

// timelinePath leads from the first page to what happened to an item, or is empty if it is in no job yet.
func timelinePath(item string) string {
	job, n, ok := tasks.ParseItemID(item)
	if !ok {
		return ""
	}
	return "jobs/" + job + "/items/" + strconv.Itoa(n)
}

// itemPage is what happened to an instance in a job.
type itemPage struct {
	page
	Job      tasks.Job
	Item     tasks.Item
	Held     *holding // what holds it now; may be nil
	TraceURL string   // of the job's trace; may be empty
	TaskURL  string   // of the task that delivers the item, while there is one
	// Forgotten is how many attempts the record does not tell of.
	Forgotten int
	Events    []itemEvent
}

// Live says that the item still changes.
func (p itemPage) Live() bool { return !p.Item.State.Final() }

// itemEvent is an attempt, or what was between two.
type itemEvent struct {
	Attempt *shownAttempt
	// Wait is why nothing went on, from Since on for Lasts; 0: until now, or not known.
	Wait  string
	Since tasks.Time
	Lasts time.Duration
}

// shownAttempt is an attempt as a page shows it. What is not known is empty.
type shownAttempt struct {
	Number  int
	Outcome string // a state of items, or lost
	Means   string // the outcome, in words
	Worker  string
	Driver  string
	Address string
	Code    tasks.Code
	Message string
	// Evidence is what was seen of the instance afterwards.
	Evidence string
	Moments  []moment
}

// moment is when an attempt did something.
type moment struct {
	What  string
	At    tasks.Time
	After string // the attempt had begun; may be empty
	About bool   // by the worker's clock, which says how long after the begin, and the record's, which says when that was
}

func (s *site) item(c echo.Context) error {
	j, found, err := s.findJob(c)
	if !found {
		return err
	}
	n, err := strconv.Atoi(c.Param("item"))
	if err != nil || n < 0 || n >= len(j.Job.Items) || strconv.Itoa(n) != c.Param("item") {
		return s.refuse(c, http.StatusNotFound, "The job has no such instance.")
	}
	it := j.Job.Items[n]
	j.Title = "Instance " + it.InstanceID + " in a job"
	p := itemPage{page: j.page, Job: j.Job, Item: it, TraceURL: j.TraceURL}
	if p.Held, err = s.heldItem(c.Request().Context(), p.page, p.Job, it); err != nil {
		return err
	}
	for _, d := range j.Job.Deliveries() {
		if d.ItemID == it.ID {
			p.TaskURL = fmt.Sprintf("asynq/queues/%s/tasks/%s", url.PathEscape(j.Job.QueueOf(d)), url.PathEscape(d.TaskID()))
		}
	}
	p.Events, p.Forgotten = timelineOf(p.Job, it)
	return s.show(c, http.StatusOK, "item", p)
}

// timelineOf is what happened to an item, oldest first, and of how many attempts nothing is known.
func timelineOf(job tasks.Job, it tasks.Item) (events []itemEvent, forgotten int) {
	attempts := attemptsOf(it)
	forgotten = it.Attempts - len(attempts)
	switch {
	case it.Attempts == 0 && it.State == tasks.ItemPending:
		return append(events, waitFrom(job.CreatedAt, firstWait(job)+busyText(it))), 0
	case it.StartedAt.IsZero():
		return append(events, waitBetween(job.CreatedAt, it.FinishedAt, firstWait(job)), itemEvent{Wait: "It ended, and was never tried.", Since: it.FinishedAt}), 0
	}
	events = append(events, waitBetween(job.CreatedAt, it.StartedAt, firstWait(job)))
	for i, a := range attempts {
		if i > 0 {
			before := attempts[i-1]
			events = append(events, waitBetween(before.end(), a.begin(), whyAgain(before, a)))
		}
		events = append(events, itemEvent{Attempt: &attempts[i]})
	}
	if len(attempts) == 0 {
		return events, forgotten
	}
	last := attempts[len(attempts)-1]
	switch it.State {
	case tasks.ItemRetrying:
		events = append(events, waitFrom(last.end(), whyNext(it, last)))
	case tasks.ItemPending:
		events = append(events, waitFrom(last.end(), "Somebody had the job tried again. It waits for its turn."+busyText(it)))
	case tasks.ItemFailed, tasks.ItemUnknown, tasks.ItemCancelled:
		if it.FinishedAt.After(last.end().Time) { // it ended without another attempt
			events = append(events, itemEvent{Wait: "It ended without another attempt: it is " + string(it.State) + " now.", Since: it.FinishedAt})
		}
	}
	return events, forgotten
}

// attemptsOf are the attempts that the record tells of, oldest first.
func attemptsOf(it tasks.Item) (all []shownAttempt) {
	for _, h := range it.History {
		a := shownAttempt{
			Number: h.Number, Outcome: h.Outcome, Means: outcomes[h.Outcome], Worker: h.Worker, Driver: h.DriverName(), Address: h.Address, Code: h.Code, Message: h.Message,
		}
		a.Moments = moments(h.StartedAt, h.FinishedAt, h.Steps)
		all = append(all, a)
	}
	last := shownAttempt{Number: it.Attempts, Outcome: string(it.State), Worker: it.Last.Worker, Driver: it.DriverName(), Address: it.Address, Evidence: it.Evidence}
	switch it.State {
	case tasks.ItemRunning:
		last.Means = "It has sent nothing yet."
		if it.Last.MaySend {
			last.Means = "Its reset may have been sent."
		}
		if it.Checkpoint != "" {
			last.Means += " It has saved a checkpoint."
		}
		last.Moments = moments(it.Last.StartedAt, tasks.Time{}, "")
		return append(all, last)
	case tasks.ItemSucceeded:
		began := it.Last.StartedAt
		if began.IsZero() && it.Attempts == 1 {
			began = it.StartedAt
		}
		last.Means = "The reset is confirmed."
		last.Moments = moments(began, it.FinishedAt, it.Last.Steps)
		return append(all, last)
	}
	if n := len(all); n > 0 && all[n-1].Number == it.Attempts { // what was seen after the last one
		all[n-1].Evidence = it.Evidence
		if all[n-1].Code == it.Code && it.Message != "" {
			all[n-1].Message = it.Message // all of it
		}
	}
	return all
}

// outcomes are those of attempts that did not succeed, in words.
var outcomes = map[string]string{
	"retrying":  "The item was put back, to be tried again.",
	"failed":    "The item ended as failed.",
	"unknown":   "The item ended as unknown: the reset may have happened.",
	"cancelled": "The job was stopped meanwhile, and the item ended as cancelled.",
	"lost":      "The worker that made it died.",
}

// stepTexts are steps, in words.
var stepTexts = map[tasks.StepKind]string{
	tasks.StepSent: "Could send its reset", tasks.StepSaved: "Saved its first checkpoint", tasks.StepLooked: "Looked at the instance for the last time",
}

// moments are what an attempt did when.
func moments(began, ended tasks.Time, steps tasks.Steps) (all []moment) {
	after := func(d time.Duration) string { return "+" + tasks.ShortDuration(d) }
	if !began.IsZero() {
		all = append(all, moment{What: "Locked the instance and began", At: began})
	}
	done := steps.All()
	slices.SortStableFunc(done, func(a, b tasks.Step) int { return int(a.After - b.After) })
	for _, step := range done {
		m := moment{What: stepTexts[step.Kind], After: after(step.After), About: true}
		if !began.IsZero() {
			m.At = tasks.Time{Time: began.Add(step.After)}
		}
		all = append(all, m)
	}
	if !ended.IsZero() {
		m := moment{What: "Ended", At: ended}
		if !began.IsZero() {
			m.After = after(ended.Sub(began.Time))
		}
		all = append(all, m)
	}
	return all
}

// begin and end are when the attempt began and ended, as far as that is known.
func (a shownAttempt) begin() tasks.Time {
	if len(a.Moments) == 0 || a.Moments[0].What == "Ended" {
		return tasks.Time{}
	}
	return a.Moments[0].At
}

func (a shownAttempt) end() tasks.Time {
	if n := len(a.Moments); n > 0 {
		return a.Moments[n-1].At
	}
	return tasks.Time{}
}

// waitFrom is a wait that lasts until now.
func waitFrom(since tasks.Time, why string) itemEvent { return itemEvent{Wait: why, Since: since} }

// waitBetween is a wait that is over. How long it was is 0 if one of its ends is not known.
func waitBetween(since, until tasks.Time, why string) itemEvent {
	e := itemEvent{Wait: why, Since: since}
	if !since.IsZero() && !until.IsZero() {
		e.Lasts = max(until.Sub(since.Time), 0)
	}
	return e
}

// firstWait is why nothing was tried at once.
func firstWait(job tasks.Job) string {
	if !job.NotBefore.IsZero() {
		return "The job was made, to begin not before its time. The item waited for that and for its turn."
	}
	return "The job was made. The item waited for its turn."
}

// whyAgain is why an attempt came after another one.
func whyAgain(before, after shownAttempt) string {
	switch {
	case after.Number > before.Number+1:
		return "Of the attempts between these two nothing is kept."
	case before.Outcome == "lost":
		return "Its worker had died, and another one took the item over."
	case before.Outcome != string(tasks.ItemRetrying):
		return "Somebody had the job tried again."
	}
	return "The item waited for its next try."
}

// whyNext is what an item that is put back waits for.
func whyNext(it tasks.Item, last shownAttempt) string {
	why := "It waits for its next try."
	if last.Outcome == "lost" {
		why = "Its worker died. It waits for another one."
	}
	return why + busyText(it)
}

// busyText says for how long an item has found its instance busy, if it has.
func busyText(it tasks.Item) string {
	if it.BusyFor < time.Second {
		return ""
	}
	return " Its instance was busy for " + tasks.ShortDuration(it.BusyFor.Round(time.Second)) + " by now."
}
