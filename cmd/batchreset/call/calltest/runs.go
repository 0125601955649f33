package calltest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/proof"
)

// Run is a run of the service. It is one job, which goes on as others do.
type Run struct {
	tasks.Run
	Job Job
}

// handleRuns adds the routes of runs.
func (s *Service) handleRuns(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/runs", s.submitRun)
	mux.HandleFunc("GET /v1/runs", s.listRuns)
	look := func(run *Run) (tag string) {
		s.seen++
		if run.State == tasks.RunRunning {
			run.Job.Advance(s.Looks)
		}
		run.complete()
		return fmt.Sprint(run.State, run.Counts)
	}
	mux.HandleFunc("GET /v1/runs/{run}/events", func(w http.ResponseWriter, r *http.Request) { // one, then the stream is cut
		s.withRun(w, r, func(run *Run) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = fmt.Fprintf(w, "retry: 1\n\nid: %s\nevent: run\ndata: ", look(run))
			encode(w, run.Run)
			_, _ = fmt.Fprint(w, "\n\n")
		})
	})
	mux.HandleFunc("GET /v1/runs/{run}", func(w http.ResponseWriter, r *http.Request) {
		s.withRun(w, r, func(run *Run) {
			tag := strconv.Quote(look(run))
			w.Header().Set("ETag", tag)
			if r.Header.Get("If-None-Match") == tag {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			AnswerOK(w, run.Run)
		})
	})
	mux.HandleFunc("GET /v1/runs/{run}/results", func(w http.ResponseWriter, r *http.Request) {
		s.withRun(w, r, func(run *Run) {
			w.Header().Set("Content-Type", "application/jsonl")
			states := r.URL.Query()["state"]
			for _, it := range run.Job.Items {
				if len(states) == 0 || slices.Contains(states, string(it.State)) {
					encode(w, map[string]any{
						"instance_id": it.InstanceID, "job_id": run.Job.ID, "item_id": it.ID, "state": it.State, "attempts": it.Attempts,
						"error_code": it.Code, "error_msg": it.Message,
					})
					_, _ = io.WriteString(w, "\n")
				}
			}
		})
	})
	mux.HandleFunc("GET /v1/runs/{run}/proof", func(w http.ResponseWriter, r *http.Request) {
		s.withRun(w, r, func(run *Run) { s.proveRun(w, run) })
	})
	ended := []tasks.RunState{tasks.RunSucceeded, tasks.RunFailed, tasks.RunPartial, tasks.RunCancelled}
	for action, change := range map[string]struct {
		from []tasks.RunState
		to   tasks.RunState
	}{
		"pause":   {[]tasks.RunState{tasks.RunWaiting, tasks.RunRunning}, tasks.RunPaused},
		"resume":  {[]tasks.RunState{tasks.RunPaused}, tasks.RunRunning},
		"cancel":  {[]tasks.RunState{tasks.RunWaiting, tasks.RunRunning, tasks.RunPaused}, tasks.RunCancelled},
		"retry":   {ended, tasks.RunRunning},
		"approve": {[]tasks.RunState{tasks.RunWaiting}, tasks.RunRunning},
		"reject":  {[]tasks.RunState{tasks.RunWaiting}, tasks.RunRejected},
	} {
		mux.HandleFunc("POST /v1/runs/{run}/"+action, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			s.withRun(w, r, func(run *Run) {
				s.Bodies = append(s.Bodies, action+" "+string(body))
				switch {
				case !slices.Contains(change.from, run.State):
					AnswerError(w, 409, "RESET.0003", "the run is "+string(run.State))
					return
				case action == "approve" && !strings.Contains(string(body), `"list_sha256":"`+run.ListSHA256+`"`):
					AnswerError(w, 409, "RESET.0003", "the list of the run is another one")
					return
				case action == "retry":
					run.Job = newJob(run.instances()...)
				}
				run.State = change.to
				run.complete()
				AnswerOK(w, run.Run)
			})
		})
	}
}

// proveRun signs what became of a run that has ended, in January 2026.
func (s *Service) proveRun(w http.ResponseWriter, run *Run) {
	if !run.State.Final() {
		AnswerError(w, 409, "RESET.0003", "the run has not ended: there is nothing to prove yet")
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	statement := proof.OfRun(run.Run, "v1.2.3", tasks.Time{Time: time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC)})
	if err := s.signer.WriteRun(w, statement, func(visit func(tasks.RunInstance) error) error {
		for _, it := range run.Job.Items {
			if err := visit(tasks.RunInstance{JobID: run.Job.ID, Item: it, Round: 1}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		panic(err)
	}
}

// complete counts what the run's job says.
func (r *Run) complete() {
	r.Counts = r.Job.Counts
	switch {
	case r.State == tasks.RunCancelled:
		r.Counts = tasks.Counts{Cancelled: r.Total}
	case r.State == tasks.RunRunning && r.Job.State.Final():
		r.State, r.FinishedAt = tasks.RunState(r.Job.State), r.Job.FinishedAt
		for code, n := range r.Job.FailureCodes() {
			r.Failures = append(r.Failures, tasks.RunFailure{Code: code, Count: n})
		}
	}
	switch r.Stage = "wave 1"; {
	case r.State.Final():
		r.Stage = ""
	case r.State == tasks.RunWaiting:
		r.Stage = "approval"
	}
}

func (s *Service) submitRun(w http.ResponseWriter, r *http.Request) {
	var body struct {
		InstanceIDs []string          `json:"instance_ids"`
		Name        string            `json:"name"`
		Labels      map[string]string `json:"labels"`
		DryRun      bool              `json:"dry_run"`
	}
	raw, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(raw, &body)
	s.Mu.Lock()
	s.Bodies = append(s.Bodies, string(raw))
	s.Keys = append(s.Keys, r.Header.Get("Idempotency-Key"))
	s.batches = append(s.batches, body.InstanceIDs)
	n := len(s.batches)
	s.Mu.Unlock()
	if s.Submitting != nil && s.Submitting(w, r, n) {
		return
	}
	foreign := func(id string) bool { return strings.HasPrefix(id, "foreign-") }
	if body.DryRun {
		w.Header().Set("Content-Type", "application/jsonl")
		for _, id := range body.InstanceIDs {
			verdict := tasks.VerdictWouldReset
			if foreign(id) {
				verdict = tasks.VerdictUnknown
			}
			_, _ = fmt.Fprintf(w, "{\"instance_id\":%q,\"verdict\":%q}\n", id, verdict)
		}
		return
	}
	if s.replayed(w, r, raw) {
		return
	}
	if slices.ContainsFunc(body.InstanceIDs, foreign) {
		AnswerError(w, 400, "KOOPHONE.API.1001", "no permission on instances: 1: foreign-1")
		return
	}
	run := s.AddRun(body.InstanceIDs...)
	s.keep(r, raw, func() any { return run.Run })
	s.Mu.Lock()
	defer s.Mu.Unlock()
	run.Name, run.Labels = body.Name, body.Labels
	AnswerOK(w, run.Run)
}

// AddRun makes a run as if it had been submitted.
func (s *Service) AddRun(instances ...string) *Run {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	job := newJob(instances...)
	at := job.CreatedAt
	run := &Run{Job: job, Run: tasks.Run{
		ID: fmt.Sprintf("%032x", 0xa0+len(s.Runs)), State: tasks.RunRunning, RequestID: "R1", CreatedAt: at, StartedAt: at, Round: 1,
		Total: len(instances), ListSHA256: tasks.ListHash(instances), RunOptions: tasks.RunOptions{MaxParallel: tasks.DefaultMaxParallel},
	}}
	run.complete()
	s.Runs = append(s.Runs, run)
	return run
}

// newJob is the job that a run is.
func newJob(instances ...string) Job {
	at := tasks.Time{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	job := tasks.Job{ID: strings.Repeat("d", 32), State: tasks.JobPending, CreatedAt: at, Total: len(instances)}
	for n, id := range instances {
		job.Items = append(job.Items, tasks.Item{ID: tasks.ItemID(job.ID, n), InstanceID: id, State: tasks.ItemPending})
	}
	job.Counts = tasks.Count(job.Items)
	return Job{Job: job}
}

// instances are those of the run.
func (r *Run) instances() (ids []string) {
	for _, it := range r.Job.Items {
		ids = append(ids, it.InstanceID)
	}
	return ids
}

// withRun calls f with the run of the path, if there is one.
func (s *Service) withRun(w http.ResponseWriter, r *http.Request, f func(*Run)) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	for _, run := range s.Runs {
		if run.ID == r.PathValue("run") {
			f(run)
			return
		}
	}
	AnswerError(w, 404, "RESET.0001", "there is no such run")
}

// listRuns gives all that fit on one page.
func (s *Service) listRuns(w http.ResponseWriter, r *http.Request) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.seen++
	filter := tasks.RunFilter{State: tasks.RunState(r.URL.Query().Get("state")), Labels: r.URL.Query()["label"]}
	page := []tasks.Run{}
	for _, run := range slices.Backward(s.Runs) {
		if filter.Match(run.Run) {
			page = append(page, run.Run)
		}
	}
	AnswerOK(w, map[string]any{"runs": page})
}
