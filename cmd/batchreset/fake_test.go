package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"batchreset/tasks"
)

// fakeService is the HTTP contract in memory. An instance called failed-…,
// unknown-… or cancelled-… ends so; a batch with one called foreign-… or
// protected-… is refused.
type fakeService struct {
	*httptest.Server
	looks int // at a job before it is final; the first shows it pending
	// keepFinal leaves jobs that are final as they are.
	keepFinal bool

	// submitting and looking, unless nil, may answer in the service's place; they
	// then return true. n counts the requests of their kind from 1.
	submitting, looking func(w http.ResponseWriter, r *http.Request, n int) bool

	mu      sync.Mutex
	jobs    []*fakeJob
	batches [][]string
	bodies  []string // of the batches
	keys    []string
	seen    int      // looks at jobs and lists
	retries []string // their bodies
}

type fakeJob struct {
	tasks.Job
	looks int
}

func newFakeService(t *testing.T) *fakeService {
	t.Helper()
	s := &fakeService{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/instances/batch-reset", s.submit)
	mux.HandleFunc("GET /v1/jobs/{job}", s.job)
	mux.HandleFunc("GET /v1/jobs/{job}/events", s.events)
	mux.HandleFunc("POST /v1/jobs/{job}/cancel", s.cancel)
	mux.HandleFunc("POST /v1/jobs/{job}/retry", s.retry)
	mux.HandleFunc("GET /v1/jobs", s.list)
	mux.HandleFunc("GET /v1/whoami", func(w http.ResponseWriter, _ *http.Request) {
		created := tasks.Time{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
		answerOK(w, tasks.Token{
			ID: "3fa1c09b7e55d210", Tenant: "acme", Scopes: tasks.DefaultScopes,
			CreatedAt: created, ExpiresAt: tasks.Time{Time: created.AddDate(0, 1, 0)},
		})
	})
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Auth-Token") != testToken {
			answerError(w, 401, "APIGW.0301", "X-Auth-Token is not valid")
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func answerError(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	encode(w, map[string]string{"error_code": code, "error_msg": message})
}

func answerOK(w io.Writer, data any) {
	encode(w, map[string]any{"error_code": "0", "error_msg": "ok", "data": data})
}

func encode(w io.Writer, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(body) // a command that was interrupted does not read it
}

func (s *fakeService) submit(w http.ResponseWriter, r *http.Request) {
	var body struct {
		InstanceIDs []string          `json:"instance_ids"`
		Labels      map[string]string `json:"labels"`
	}
	raw, _ := io.ReadAll(r.Body)
	_ = json.Unmarshal(raw, &body)
	s.mu.Lock()
	s.bodies = append(s.bodies, string(raw))
	s.keys = append(s.keys, r.Header.Get("Idempotency-Key"))
	s.batches = append(s.batches, body.InstanceIDs)
	n := len(s.batches)
	s.mu.Unlock()
	if s.submitting != nil && s.submitting(w, r, n) {
		return
	}
	for _, id := range body.InstanceIDs {
		switch {
		case strings.HasPrefix(id, "foreign-"):
			answerError(w, 400, "KOOPHONE.API.1001", "no permission on instances: "+id)
			return
		case strings.HasPrefix(id, "protected-"):
			answerError(w, 403, "RESET.0004", "protected instances: "+id)
			return
		}
	}
	job := s.addLabelled(body.Labels, body.InstanceIDs...)
	cmdJobs := []map[string]string{}
	for _, it := range job.Items {
		cmdJobs = append(cmdJobs, map[string]string{"instance_id": it.InstanceID, "job_id": it.ID})
	}
	answerOK(w, map[string]any{"task_id": job.ID, "cmd_jobs": cmdJobs})
}

// add makes a job as if it had been submitted.
func (s *fakeService) add(instances ...string) {
	s.addLabelled(nil, instances...)
}

func (s *fakeService) addLabelled(labels map[string]string, instances ...string) tasks.Job {
	s.mu.Lock()
	defer s.mu.Unlock()
	job := &fakeJob{Job: tasks.Job{
		ID: fmt.Sprintf("%032x", len(s.jobs)+1), State: tasks.JobPending, RequestID: "R1",
		CreatedAt: tasks.Time{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		Total:     len(instances), Labels: labels,
	}}
	job.CreatedAt.Time = job.CreatedAt.Add(time.Duration(len(s.jobs)) * time.Second)
	for i, id := range instances {
		job.Items = append(job.Items, tasks.Item{ID: tasks.ItemID(job.ID, i), InstanceID: id, State: tasks.ItemPending})
	}
	job.Counts = tasks.Count(job.Items)
	s.jobs = append(s.jobs, job)
	return job.Job
}

// advance is what the workers do between two looks.
func (j *fakeJob) advance(looks int) {
	if j.looks++; j.looks == 1 && looks > 0 {
		return
	}
	for i := range j.Items {
		it := &j.Items[i]
		it.State, it.Attempts = tasks.ItemRunning, 1
		if j.looks <= looks {
			continue
		}
		it.State = tasks.ItemSucceeded
		word, _, _ := strings.Cut(it.InstanceID, "-")
		if state := tasks.ItemState(word); state != tasks.ItemSucceeded && state.Final() {
			it.State, it.Code, it.Message = state, "RESET.1007", "no \x1b[31mluck\twith\n"+it.InstanceID
		}
	}
	j.StartedAt = tasks.Time{Time: j.CreatedAt.Add(time.Second)}
	j.Counts = tasks.Count(j.Items)
	if j.State = j.Counts.State(); j.State.Final() {
		j.FinishedAt = tasks.Time{Time: j.CreatedAt.Add(3 * time.Second)}
	}
}

// look is one look at the job of the path, or nil after an answer.
func (s *fakeService) look(w http.ResponseWriter, r *http.Request) *tasks.Job {
	s.mu.Lock()
	s.seen++
	n := s.seen
	s.mu.Unlock()
	if s.looking != nil && s.looking(w, r, n) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	job := s.find(r.PathValue("job"))
	if job == nil {
		answerError(w, 404, "RESET.0001", "there is no such job")
	}
	return job
}

// find returns a job as it is at its next look, or nil.
func (s *fakeService) find(id string) *tasks.Job {
	i := slices.IndexFunc(s.jobs, func(j *fakeJob) bool { return j.ID == id })
	if i < 0 {
		return nil
	}
	if !s.keepFinal || !s.jobs[i].State.Final() {
		s.jobs[i].advance(s.looks)
	}
	job := s.jobs[i].Job
	job.Items = slices.Clone(job.Items)
	return &job
}

// events streams one record, and is cut then.
func (s *fakeService) events(w http.ResponseWriter, r *http.Request) {
	j := s.look(w, r)
	if j == nil {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = fmt.Fprintf(w, "retry: 1\n\nid: %s\nevent: job\ndata: ", j.State)
	encode(w, j)
	_, _ = fmt.Fprint(w, "\n\n")
}

func (s *fakeService) job(w http.ResponseWriter, r *http.Request) {
	j := s.look(w, r)
	if j == nil {
		return
	}
	tag := strconv.Quote(string(j.State))
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	answerOK(w, j)
}

// cancel takes back what waits.
func (s *fakeService) cancel(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.jobs, func(j *fakeJob) bool { return j.ID == r.PathValue("job") })
	switch {
	case i < 0:
		answerError(w, 404, "RESET.0001", "there is no such job")
		return
	case s.jobs[i].State.Final():
		answerError(w, 409, "RESET.0003", "the job has ended, there is nothing to cancel")
		return
	}
	job := &s.jobs[i].Job
	for i := range job.Items {
		if job.Items[i].State == tasks.ItemPending {
			job.Items[i].State = tasks.ItemCancelled
		}
	}
	job.Counts = tasks.Count(job.Items)
	job.State = job.Counts.State()
	answerOK(w, job)
}

// retry keeps what it is asked for.
func (s *fakeService) retry(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.retries = append(s.retries, string(raw))
	s.mu.Unlock()
	if j := s.look(w, r); j != nil {
		answerOK(w, j)
	}
}

// list gives two jobs a page at most, with the number of jobs passed as cursor.
func (s *fakeService) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen++
	q := r.URL.Query()
	if q.Has("ids") {
		s.named(w, strings.Split(q.Get("ids"), ","))
		return
	}
	filter := tasks.JobFilter{State: tasks.JobState(q.Get("state")), InstanceID: q.Get("instance_id"), Labels: q["label"]}
	limit, _ := strconv.Atoi(q.Get("limit"))
	skip, _ := strconv.Atoi(q.Get("cursor"))
	page := []tasks.Job{}
	for i := len(s.jobs) - 1 - skip; i >= 0; i-- {
		if len(page) == min(limit, 2) {
			answerOK(w, map[string]any{"jobs": page, "next_cursor": strconv.Itoa(skip)})
			return
		}
		skip++
		if job := s.jobs[i].Job; filter.Match(job) {
			job.Items = nil
			page = append(page, job)
		}
	}
	answerOK(w, map[string]any{"jobs": page})
}

func (s *fakeService) named(w http.ResponseWriter, ids []string) {
	jobs, missing := []*tasks.Job{}, []string{}
	for _, id := range ids {
		if job := s.find(id); job != nil {
			job.Items = nil
			jobs = append(jobs, job)
		} else {
			missing = append(missing, id)
		}
	}
	answerOK(w, map[string]any{"jobs": jobs, "missing": missing})
}

// sent returns the batches that were submitted.
func (s *fakeService) sent() [][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.batches)
}

func (s *fakeService) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.batches) + s.seen
}
