package api

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// RunStore is what the handlers need of runs. Its methods fail as those of a Store do.
type RunStore interface {
	RunRecords
	RunDecisions
}

// RunRecords are the records of runs.
type RunRecords interface {
	// Create makes a run and writes into the audit trail. The answer for the same key and
	// request again is the run as it is. Errors: tasks.KeyReused, tasks.StorageFull.
	Create(ctx context.Context, s tasks.RunSubmission) (tasks.Run, error)
	// Run reads a record, completed by Sum. Errors: tasks.RunGone.
	Run(ctx context.Context, id string) (tasks.Run, error)
	// Stored reads a record without what its open jobs say: it costs much less. Errors: tasks.RunGone.
	Stored(ctx context.Context, id string) (tasks.Run, error)
	// Announced calls heard with each run of which something has changed, until ctx ends; some may be missed.
	Announced(ctx context.Context, heard func(run string)) error
	// List lists the runs of a tenant, newest first.
	List(ctx context.Context, tenant string, f tasks.RunFilter) (found []tasks.Run, cursor string, err error)
	// Instances visits the instances of a run in the order of its list, until visit fails.
	Instances(ctx context.Context, run tasks.Run, visit func(tasks.RunInstance) error) error
}

// RunDecisions are what people decide about runs.
type RunDecisions interface {
	// Pause, Resume and Cancel fail with tasks.JobFinal where this cannot be done to the run, and
	// with tasks.RunGone. Without a budget, Resume leaves the run the one that it has.
	Pause(ctx context.Context, id string, actor tasks.Actor) error
	Resume(ctx context.Context, id string, budget *tasks.Budget, actor tasks.Actor) error
	Cancel(ctx context.Context, id string, actor tasks.Actor) error
	// Approve and Reject fail with tasks.JobFinal where the actor's principal cannot decide about the run, or the list is
	// another one, and Approve with tasks.OwnRun. The comment is the actor's reason.
	Approve(ctx context.Context, id, list string, actor tasks.Actor) error
	Reject(ctx context.Context, id, list string, actor tasks.Actor) error
	// Retry fails with tasks.JobFinal if there is nothing to retry, and with tasks.StorageFull.
	Retry(ctx context.Context, id string, states []tasks.ItemState, actor tasks.Actor, codes ...tasks.Code) error
}

// linkedRuns has the records that are answered say where there is more.
type linkedRuns struct {
	RunStore
	basePath string
}

func (l linkedRuns) Create(ctx context.Context, s tasks.RunSubmission) (tasks.Run, error) {
	run, err := l.RunStore.Create(ctx, s)
	return l.linked(run), err
}

func (l linkedRuns) Run(ctx context.Context, id string) (tasks.Run, error) {
	run, err := l.RunStore.Run(ctx, id)
	return l.linked(run), err
}

func (l linkedRuns) List(ctx context.Context, tenant string, f tasks.RunFilter) (found []tasks.Run, cursor string, err error) {
	found, cursor, err = l.RunStore.List(ctx, tenant, f)
	for i, run := range found {
		found[i] = l.linked(run)
	}
	return found, cursor, err
}

func (l linkedRuns) linked(run tasks.Run) tasks.Run {
	self := l.basePath + "/v1/runs/" + run.ID
	run.Links = tasks.RunLinks{Self: self, Results: self + "/results", Events: self + "/events", Proof: self + "/proof"}
	return run
}

const (
	// runBatch is how many instances are looked up at a time: it bounds a round trip.
	runBatch = 500
	// namedInstances is how many instances an error names; the others are counted.
	namedInstances = 20
	// createTimeout is what the store has for an instance of a new run, besides storeTimeout:
	// a short list is answered within 2 s while Redis is away, a long one has time.
	createTimeout = 100 * time.Microsecond
)

// createRun makes a run of a list, or says with dry_run what would become of each instance.
func (s *server) createRun(c echo.Context) error {
	if err := checkHeaders(c.Request().Header); err != nil {
		return err
	}
	r, err := decodeRun(c.Request().Body, s.cfg.MaxRunInstances)
	if err != nil {
		drain(c)
		return err
	}
	ctx, cancel := patient(c)
	defer cancel()
	by := actor(c)
	r.Tenant, r.RequestID, r.AllowUnregistered = tenant(c), requestID(c), s.cfg.AllowUnregistered
	r.By, r.From, r.Principal, r.Traceparent = by.By, by.From, by.Principal, traceparent(ctx)
	if r.IdempotencyKey, err = idempotencyKey(c.Request().Header.Values("Idempotency-Key")); err != nil {
		return err
	}
	if r.dryRun {
		return s.dryRunOf(ctx, c, r.RunSubmission)
	}
	run, err := s.submitRun(ctx, tokenOf(c), r.RunSubmission)
	if err != nil {
		return err
	}
	c.Set(runKey, run.ID)
	c.Response().Header().Set(echo.HeaderLocation, run.Links.Self)
	return ok(c, run)
}

// submitRun makes a run, or finds that of an earlier, equal request: such a replay is not checked
// again, because it was already answered.
func (s *server) submitRun(ctx context.Context, token tasks.Token, r tasks.RunSubmission) (tasks.Run, error) {
	if run, err := s.replayedRun(ctx, r); !errors.Is(err, tasks.RunGone) {
		return run, err
	}
	if err := s.checkNotBefore(r.NotBefore); err != nil {
		return tasks.Run{}, err
	}
	if err := s.checkRunOwnership(ctx, token, r.InstanceIDs); err != nil {
		return tasks.Run{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout+createTimeout*time.Duration(len(r.InstanceIDs)))
	defer cancel()
	policy, err := s.store.Policy(ctx, r.Tenant)
	if err != nil {
		return tasks.Run{}, err
	}
	r.Approval = policy.ApprovalFor(len(r.InstanceIDs), r.AskApproval, s.cfg.ApprovalExpiry)
	return s.cfg.Runs.Create(ctx, r)
}

// replayedRun is the run that an earlier request with the same key has made. RunGone: there is none.
func (s *server) replayedRun(ctx context.Context, r tasks.RunSubmission) (tasks.Run, error) {
	if r.IdempotencyKey == "" {
		return tasks.Run{}, tasks.RunGone
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	run, err := s.cfg.Runs.Run(ctx, r.RunID())
	if err == nil && run.Fingerprint != r.Fingerprint() {
		err = tasks.Errorf(tasks.KeyReused, "Idempotency-Key was used for another request")
	}
	return run, err
}

// checkRunOwnership refuses the whole list if one instance is not the tenant's or is protected. The
// workers ask again before each attempt.
func (s *server) checkRunOwnership(ctx context.Context, token tasks.Token, instances []string) error {
	var foreign, guarded someInstances
	err := s.eachVerdict(ctx, token, instances, func(_ tasks.Instance, id string, v tasks.Verdict) {
		switch v {
		case tasks.VerdictUnknown:
			foreign.add(id)
		case tasks.VerdictProtected:
			guarded.add(id)
		}
	})
	switch {
	case err != nil:
		return err
	case foreign.count > 0:
		return tasks.Errorf(tasks.NotYourInstance, "no permission on instances: %s", foreign)
	case guarded.count > 0:
		return tasks.Errorf(tasks.Protected, "protected instances: %s", guarded)
	}
	return nil
}

// registered looks some instances up, in a time of their own.
func (s *server) registered(ctx context.Context, some []string) (map[string]tasks.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	return s.store.Registered(ctx, some)
}

// someInstances counts instances and names the first of them.
type someInstances struct {
	count int
	first []string
}

func (i *someInstances) add(id string) {
	if i.count++; i.count <= namedInstances {
		i.first = append(i.first, id)
	}
}

// String is "3: a, b, c", or "37: a, b, … and 17 more".
func (i someInstances) String() string {
	text := strconv.Itoa(i.count) + ": " + strings.Join(i.first, ", ")
	if more := i.count - len(i.first); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// runRecords are those of runs.
type runRecords struct {
	s *server
	*runReads
}

func (r runRecords) announced(ctx context.Context, heard func(id string)) error {
	return r.s.cfg.Runs.Announced(ctx, heard)
}

func (r runRecords) find(c echo.Context) (string, error) {
	run, err := r.s.findRun(c, r.s.cfg.Runs.Stored)
	return run.ID, err
}

func (r runRecords) now(c echo.Context) error {
	s := r.s
	run, err := s.findRun(c, s.cfg.Runs.Run)
	if err != nil {
		return err
	}
	record, err := encodeRun(run, s.store.Now())
	if err != nil {
		return err
	}
	return s.answer(c, record)
}

func encodeRun(run tasks.Run, now time.Time) (*encodedRecord, error) {
	return encode(run, encodedRecord{tag: run.Tag(), final: run.State.Final(), pace: paceOfRun(run, now)})
}

// findRun reads the run of the path, if it is the tenant's. Another tenant's run is answered like one
// that does not exist.
func (s *server) findRun(c echo.Context, read func(context.Context, string) (tasks.Run, error)) (tasks.Run, error) {
	id := c.Param("run")
	if !tasks.ValidJobID(id) {
		return tasks.Run{}, noRun(id)
	}
	c.Set(runKey, id)
	run, err := read(c.Request().Context(), id)
	switch {
	case errors.Is(err, tasks.RunGone):
		return tasks.Run{}, noRun(id)
	case err != nil:
		return tasks.Run{}, err
	case run.Tenant != tenant(c):
		return tasks.Run{}, noRun(id)
	}
	return run, nil
}

func noRun(id string) error { return tasks.Errorf(tasks.NoJob, "there is no run %.64q", id) }

// runsPage is the data of a list of runs.
type runsPage struct {
	Runs       []tasks.Run `json:"runs"`
	NextCursor string      `json:"next_cursor,omitempty"`
}

// runs lists the tenant's runs, newest first.
func (s *server) runs(c echo.Context) error {
	filter, err := decodeRunFilter(c.QueryParams())
	if err != nil {
		return err
	}
	page := runsPage{Runs: []tasks.Run{}}
	found, cursor, err := s.cfg.Runs.List(c.Request().Context(), tenant(c), filter)
	if err != nil {
		return err
	}
	page.Runs, page.NextCursor = append(page.Runs, found...), cursor
	return ok(c, page)
}

// pauseRun begins nothing more of a run; what runs ends by itself.
func (s *server) pauseRun(c echo.Context) error { return s.changeRun(c, s.cfg.Runs.Pause) }

// cancelRun cancels what has not begun, for good.
func (s *server) cancelRun(c echo.Context) error { return s.changeRun(c, s.cfg.Runs.Cancel) }

// resumeRun goes on with a run that is paused, maybe with another budget.
func (s *server) resumeRun(c echo.Context) error {
	budget, err := decodeResume(c.Request().Body)
	if err != nil {
		return err
	}
	return s.pushRun(c, func(ctx context.Context, id string, actor tasks.Actor) error {
		return s.cfg.Runs.Resume(ctx, id, budget, actor)
	})
}

// retryRun begins another round of a run that has ended.
func (s *server) retryRun(c echo.Context) error {
	states, err := decodeStates(c.Request().Body)
	if err != nil {
		return err
	}
	ctx, cancel := patient(c)
	defer cancel()
	return s.pushRun(c, func(_ context.Context, id string, actor tasks.Actor) error {
		return s.cfg.Runs.Retry(ctx, id, states, actor)
	})
}

// approveRun is for somebody else than who asked for the run.
func (s *server) approveRun(c echo.Context) error {
	return s.judgeRun(c, true, s.pushRun, s.cfg.Runs.Approve)
}

// rejectRun ends a run that waits for approval.
func (s *server) rejectRun(c echo.Context) error {
	return s.judgeRun(c, false, s.changeRun, s.cfg.Runs.Reject)
}

// runChange is what is done to the run of a path.
type runChange func(ctx context.Context, id string, actor tasks.Actor) error

func (s *server) judgeRun(c echo.Context, needsList bool, apply func(echo.Context, runChange) error, judge func(ctx context.Context, id, list string, actor tasks.Actor) error) error {
	list, comment, err := decodeJudgement(c.Request().Body, needsList)
	if err != nil {
		return err
	}
	if tokenOf(c).Owner == "" {
		return tasks.Errorf(tasks.Forbidden, "the token has no owner, and only a person or a program that is known can decide about a run")
	}
	return apply(c, func(ctx context.Context, id string, actor tasks.Actor) error {
		actor.Reason = comment
		return judge(ctx, id, list, actor)
	})
}

// pushRun is changeRun for what lets instances be reset: the token must be for all of them.
func (s *server) pushRun(c echo.Context, change runChange) error {
	return s.changeRun(c, func(ctx context.Context, id string, actor tasks.Actor) error {
		if token := tokenOf(c); len(token.InstanceLabels) > 0 {
			long, cancel := patient(c)
			defer cancel()
			run, err := s.findRun(c, s.cfg.Runs.Stored)
			if err != nil {
				return err
			}
			if err := s.checkRunReach(long, token, run); err != nil {
				return err
			}
			return change(context.WithoutCancel(long), id, actor)
		}
		return change(ctx, id, actor)
	})
}

// changeRun changes the run of the path and answers with its record.
func (s *server) changeRun(c echo.Context, change runChange) error {
	run, err := s.findRun(c, s.cfg.Runs.Stored)
	if err != nil {
		return err
	}
	// A record that expires just now is answered like one that was never there.
	if err := change(c.Request().Context(), run.ID, actor(c)); err != nil && !errors.Is(err, tasks.RunGone) {
		return err
	}
	if run, err = s.findRun(c, s.cfg.Runs.Run); err != nil {
		return err
	}
	return ok(c, run)
}
