package ops

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// RunStore finds and changes runs.
type RunStore interface {
	RunRecords
	RunDecisions
}

// RunRecords are the records of runs. Their error for a run that is not there is tasks.RunGone.
type RunRecords interface {
	// Search returns runs, newest first, SearchOpen those that have not ended, and how many more there are.
	Search(ctx context.Context, s tasks.RunSearch) (found []tasks.Run, cursor string, err error)
	SearchOpen(ctx context.Context, s tasks.RunSearch) (found []tasks.Run, more int, err error)
	// ForPeople returns the runs that go on only once somebody decides, up to limit of each.
	ForPeople(ctx context.Context, limit int) (waiting, paused tasks.SomeRuns, err error)
	Run(ctx context.Context, id string) (tasks.Run, error)
	// ToCome returns the open runs that have an instance in their list and in no job yet; whole says that it has looked at
	// all lists.
	ToCome(ctx context.Context, instance string) (found []tasks.Run, whole bool, err error)
	// InstancesPage returns about as many instances as the filter's limit says.
	InstancesPage(ctx context.Context, run tasks.Run, f tasks.RunInstanceFilter) (found []tasks.RunInstance, cursor string, err error)
}

// runRoutes are the pages about runs.
func (s *site) runRoutes(e *echo.Echo, viewer, approver, operator echo.MiddlewareFunc) {
	e.GET("/runs", s.runs, viewer)
	e.GET("/runs/:run", s.run, viewer)
	e.GET("/runs/:run/instances", s.runInstances, viewer)
	for action, a := range s.runActions() {
		allowed := operator
		if action == "approve" || action == "reject" {
			allowed = approver
		}
		e.GET("/runs/:run/"+action, s.askRun(action), allowed)
		e.POST("/runs/:run/"+action, a.do, allowed, s.form(a.fields...))
	}
}

// runsPage is a list of runs: those that have not ended, then the others, each newest first.
type runsPage struct {
	page
	// Tenant to Until are the filters as they were typed.
	Tenant, State, Label, Since, Until string

	Chips    []chip
	Exports  exports
	States   []tasks.RunState
	Open     []tasks.Run
	MoreOpen int
	Ended    []tasks.Run
	Older    query // of the next page, or empty
}

func (s *site) runs(c echo.Context) error {
	field := func(name string) string { return strings.TrimSpace(c.QueryParam(name)) }
	p := runsPage{
		page: s.page(c, "Runs"), States: tasks.RunStates, Chips: chipsOf(c, runFilters...), Exports: exportsOf(c),
		Tenant: field("tenant"), State: field("state"), Label: field("label"), Since: field("since"), Until: field("until"),
	}
	if wantsFile(c) {
		return s.exportRuns(c, p)
	}
	err := s.findRuns(c, &p)
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		p.Problem = e.Message
		return s.show(c, http.StatusBadRequest, "runs", p)
	}
	if err != nil {
		return err
	}
	return s.show(c, http.StatusOK, "runs", p)
}

// runFilters are the filters of the list of runs.
var runFilters = []filterName{{"state", "State"}, {"tenant", "Tenant"}, {"label", "Label"}, {"since", "Created from"}, {"until", "Created before"}}

// exportRuns writes all runs that match, open or not, newest first.
func (s *site) exportRuns(c echo.Context, p runsPage) error {
	return export(s, c, list[tasks.Run]{
		name: "runs",
		heads: []string{
			"run_id", "name", "tenant", "state", "asked_by", "created_at", "started_at", "finished_at", "total", "pending", "running", "retrying",
			"succeeded", "failed", "unknown", "cancelled", "reason", "labels",
		},
		cells: func(r tasks.Run) []string {
			cells := []string{r.ID, r.Name, r.Tenant, string(r.State), cmp.Or(r.Principal, r.By), cellOf(r.CreatedAt), cellOf(r.StartedAt), cellOf(r.FinishedAt)}
			return append(append(cells, countCells(r.Counts)...), r.Reason, labelCell(r.Labels))
		},
		record: runRecord,
		next: func(cursor string) ([]tasks.Run, string, error) {
			search, err := p.search(cursor)
			if err != nil {
				return nil, "", err
			}
			return s.Store.Runs.Search(c.Request().Context(), search)
		},
	})
}

// runRecord is a run as JSON has it for operators.
func runRecord(r tasks.Run) any {
	return struct {
		Tenant string `json:"tenant"`
		tasks.Run
	}{r.Tenant, r}
}

// findRuns fills a list. The open ones are on its first page.
func (s *site) findRuns(c echo.Context, p *runsPage) error {
	search, err := p.search(c.QueryParam("cursor"))
	if err != nil {
		return err
	}
	if !search.State.Final() && search.Cursor == "" {
		if p.Open, p.MoreOpen, err = s.Store.Runs.SearchOpen(c.Request().Context(), search); err != nil {
			return err
		}
	}
	if search.State != "" && !search.State.Final() {
		return nil
	}
	search.Ended = true
	var cursor string
	p.Ended, cursor, err = s.Store.Runs.Search(c.Request().Context(), search)
	p.Older = olderQuery(c, cursor)
	return err
}

// search is what the filters mean. Errors: tasks.BadRequest.
func (p *runsPage) search(cursor string) (tasks.RunSearch, error) {
	s := tasks.RunSearch{Tenant: p.Tenant, RunFilter: tasks.RunFilter{State: tasks.RunState(p.State), Limit: rowsOnPage, Cursor: cursor}}
	var err error
	if s.Labels, err = labelFilter(p.Label); err != nil {
		return s, err
	}
	s.Since, s.Until, err = created(p.Since, p.Until)
	return s, err
}

// runPage is a run's record.
type runPage struct {
	page
	Run   tasks.Run
	Waves []wave
	// Codes are the most frequent failures, with some of their instances.
	Codes []failedCode
	// Choices are what a retry can be asked for.
	Choices []retryChoice
	// Held is what holds instances of the run's open jobs now, but for a pause; Stuck says that it holds all of them.
	Held  []holding
	Stuck bool
	// Waits is what the run itself waits for before it begins with more, or nil.
	Waits *tasks.Held
	// Ask is the action that has to be confirmed.
	Ask string
}

// failedCode is an error code with the first instances that have it.
type failedCode struct {
	tasks.RunFailure
	First []tasks.RunInstance
}

const (
	// failuresLooked is about how many instances the page of a run looks at to name some that failed, namedOfCode how
	// many of each code it names.
	failuresLooked = 50
	namedOfCode    = 5
)

// failureStates are those of instances that count against a run's budget.
var failureStates = []tasks.ItemState{tasks.ItemFailed, tasks.ItemUnknown}

// Live says that the record still changes.
func (p runPage) Live() bool { return !p.Run.State.Final() }

// findRun reads the run of the path; without an error there may be none, and that is answered.
func (s *site) findRun(c echo.Context) (run tasks.Run, found bool, err error) {
	err = tasks.RunGone
	if id := strings.TrimSpace(c.Param("run")); tasks.ValidJobID(id) {
		run, err = s.Store.Runs.Run(c.Request().Context(), id)
	}
	if errors.Is(err, tasks.RunGone) {
		return run, false, s.noRun(c)
	}
	return run, err == nil, err
}

func (s *site) noRun(c echo.Context) error {
	return s.refuse(c, http.StatusNotFound, "There is no such run, or its record is not kept any more.")
}

// runPage is the page of the run of the path, without its failures.
func (s *site) runPage(c echo.Context) (p runPage, found bool, err error) {
	run, found, err := s.findRun(c)
	if !found {
		return p, false, err
	}
	title := run.Name
	if title == "" {
		title = run.ID
	}
	frame := s.page(c, "Run "+title)
	frame.Count = endedOf(run.Counts, run.Total)
	return runPage{page: frame, Run: run, Waves: wavesOf(run), Choices: choicesOf(run.Counts)}, true, nil
}

func (s *site) run(c echo.Context) error {
	p, found, err := s.runPage(c)
	if !found {
		return err
	}
	if p.Live() {
		if err := s.holdRun(c.Request().Context(), &p); err != nil {
			return err
		}
	}
	if len(p.Run.Failures) > 0 {
		f := tasks.RunInstanceFilter{States: failureStates, Limit: failuresLooked}
		some, _, err := s.Store.Runs.InstancesPage(c.Request().Context(), p.Run, f)
		if err != nil && !errors.Is(err, tasks.RunGone) { // its list may expire just now
			return err
		}
		p.Codes = byCode(p.Run.Failures, some)
	}
	return s.show(c, http.StatusOK, "run", p)
}

// holdRun fills what holds a run. That it is paused its record says, with all that is in no job yet.
func (s *site) holdRun(ctx context.Context, p *runPage) error {
	c, err := s.Store.CensusOf(ctx, openJobsOf(p.Run))
	if err != nil {
		return err
	}
	said := func(h tasks.Holding) bool { return h.Text() == p.Run.Held.Reason }
	if p.Run.Held.Reason != "" && p.Run.State != tasks.RunPaused && !slices.ContainsFunc(c.Holdings, said) {
		p.Waits = &p.Run.Held
	}
	p.Stuck = c.HeldItems() > 0 && c.Open() == 0
	paused := p.Run.State == tasks.RunPaused
	p.Held = p.holdingsOf(slices.DeleteFunc(c.Holdings, func(h tasks.Holding) bool { return paused && h.Reason == tasks.HoldRunPaused }))
	return nil
}

// byCode sorts failed instances to their codes.
func byCode(failures []tasks.RunFailure, some []tasks.RunInstance) []failedCode {
	codes := make([]failedCode, len(failures))
	for i, failure := range failures {
		codes[i].RunFailure = failure
		for _, in := range some {
			if in.Item.Code == failure.Code && len(codes[i].First) < namedOfCode {
				codes[i].First = append(codes[i].First, in)
			}
		}
	}
	return codes
}

// runInstancesPage is a page of a run's instances.
type runInstancesPage struct {
	page
	Exports   exports
	Run       tasks.Run
	State     tasks.ItemState // of all of them; may be empty
	Code      tasks.Code
	Instances []tasks.RunInstance
	More      query // of the next page, or empty
}

func (s *site) runInstances(c echo.Context) error {
	run, found, err := s.findRun(c)
	if !found {
		return err
	}
	p := runInstancesPage{page: s.page(c, "Instances of a run"), Exports: exportsOf(c), Run: run, State: tasks.ItemState(c.QueryParam("state")), Code: tasks.Code(c.QueryParam("code"))}
	f := tasks.RunInstanceFilter{Code: p.Code, Limit: rowsOnPage, Cursor: c.QueryParam("cursor")}
	switch {
	case p.State != "":
		f.States = []tasks.ItemState{p.State}
	case p.Code != "":
		f.States = failureStates
	}
	if wantsFile(c) {
		return s.exportInstances(c, run, f)
	}
	var cursor string
	p.Instances, cursor, err = s.Store.Runs.InstancesPage(c.Request().Context(), run, f)
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return s.refuse(c, http.StatusBadRequest, e.Message)
	}
	if errors.Is(err, tasks.RunGone) {
		return s.noRun(c)
	}
	if err != nil {
		return err
	}
	p.More = olderQuery(c, cursor)
	return s.show(c, http.StatusOK, "runinstances", p)
}

func (s *site) exportInstances(c echo.Context, run tasks.Run, f tasks.RunInstanceFilter) error {
	return export(s, c, list[tasks.RunInstance]{
		name:  "run-" + run.ID[:8],
		heads: append([]string{"job_id"}, itemHeads...),
		cells: func(in tasks.RunInstance) []string { return append([]string{in.JobID}, itemCells(in.Item)...) },
		record: func(in tasks.RunInstance) any {
			return struct {
				JobID string `json:"job_id,omitempty"`
				tasks.Item
			}{in.JobID, in.Item}
		},
		next: func(cursor string) ([]tasks.RunInstance, string, error) {
			f.Cursor = cursor
			return s.Store.Runs.InstancesPage(c.Request().Context(), run, f)
		},
	})
}

// itemHeads are the heads of a table of instances that are reset, itemCells its cells.
var itemHeads = []string{"instance_id", "state", "attempts", "started_at", "finished_at", "error_code", "error_msg", "evidence"}

func itemCells(it tasks.Item) []string {
	return []string{
		it.InstanceID, string(it.State), strconv.Itoa(it.Attempts), cellOf(it.StartedAt), cellOf(it.FinishedAt), string(it.Code), it.Message, it.Evidence,
	}
}
