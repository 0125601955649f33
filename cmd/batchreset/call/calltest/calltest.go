// Package calltest has the service's HTTP contract in memory, for tests of callers' commands.
package calltest

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
	"batchreset/tasks/proof"
)

// Token is the only token that the service takes.
const Token = "demo-token"

// Service is the HTTP contract in memory. An instance called failed-…,
// unknown-… or cancelled-… ends so; a batch with one called foreign-… or
// protected-… is refused.
type Service struct {
	*httptest.Server
	Looks int // at a job before it is final; the first shows it pending
	// KeepFinal leaves jobs that are final as they are.
	KeepFinal bool
	// ExpiresAt is the end of the token.
	ExpiresAt time.Time

	// Submitting and looking, unless nil, may answer in the service's place; they
	// then return true. n counts the requests of their kind from 1.
	Submitting, Looking func(w http.ResponseWriter, r *http.Request, n int) bool

	Mu      sync.Mutex
	Jobs    []*Job
	Runs    []*Run
	batches [][]string
	Bodies  []string // of the batches and runs, and of what was done to runs
	Keys    []string
	keyed   map[string]keyed // what was accepted, by path and key
	seen    int              // looks at jobs and lists
	signer  *proof.Signer
	Retries []string // their bodies
}

// keyed is a request that was accepted, and what it is answered by when it comes again.
type keyed struct {
	body   string
	answer func() any
}

// Job is a job of the service.
type Job struct {
	tasks.Job
	looks int
}

// NewService starts a service without jobs. The test ends it.
func NewService(t *testing.T) *Service {
	t.Helper()
	created := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := &Service{signer: NewSigner(t), keyed: map[string]keyed{}, ExpiresAt: created.AddDate(0, 1, 0)}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/instances/batch-reset", s.submit)
	mux.HandleFunc("GET /v1/jobs/{job}", s.job)
	mux.HandleFunc("GET /v1/jobs/{job}/events", s.events)
	mux.HandleFunc("POST /v1/jobs/{job}/cancel", s.cancel)
	mux.HandleFunc("POST /v1/jobs/{job}/retry", s.retry)
	mux.HandleFunc("GET /v1/jobs/{job}/proof", s.proof)
	mux.HandleFunc("GET /v1/proof-keys", s.proofKeys)
	mux.HandleFunc("GET /v1/jobs", s.list)
	s.handleRuns(mux)
	mux.HandleFunc("GET /v1/whoami", func(w http.ResponseWriter, _ *http.Request) {
		AnswerOK(w, tasks.Token{
			ID: "3fa1c09b7e55d210", Tenant: "acme", Scopes: tasks.DefaultScopes,
			CreatedAt: tasks.Time{Time: created}, ExpiresAt: tasks.Time{Time: s.ExpiresAt},
		})
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { AnswerOK(w, map[string]string{"version": "v1.2.3"}) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { AnswerOK(w, map[string]bool{"accepting": true}) })
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Auth-Token") != Token && strings.HasPrefix(r.URL.Path, "/v1/") && r.URL.Path != "/v1/proof-keys" {
			AnswerError(w, 401, "APIGW.0301", "X-Auth-Token is not valid")
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// AnswerError answers as the service does when something is wrong.
func AnswerError(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	encode(w, map[string]string{"error_code": code, "error_msg": message})
}

// AnswerOK answers as the service does when all is well.
func AnswerOK(w io.Writer, data any) {
	encode(w, map[string]any{"error_code": "0", "error_msg": "ok", "data": data})
}

func encode(w io.Writer, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(body) // a command that was interrupted does not read it
}

func (s *Service) submit(w http.ResponseWriter, r *http.Request) {
	var body struct {
		InstanceIDs []string          `json:"instance_ids"`
		Labels      map[string]string `json:"labels"`
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
	if s.replayed(w, r, raw) {
		return
	}
	for _, id := range body.InstanceIDs {
		switch {
		case strings.HasPrefix(id, "foreign-"):
			AnswerError(w, 400, "KOOPHONE.API.1001", "no permission on instances: "+id)
			return
		case strings.HasPrefix(id, "protected-"):
			AnswerError(w, 403, "RESET.0004", "protected instances: "+id)
			return
		}
	}
	job := s.addLabelled(body.Labels, body.InstanceIDs...)
	cmdJobs := []map[string]string{}
	for _, it := range job.Items {
		cmdJobs = append(cmdJobs, map[string]string{"instance_id": it.InstanceID, "job_id": it.ID})
	}
	answer := map[string]any{"task_id": job.ID, "cmd_jobs": cmdJobs}
	s.keep(r, raw, func() any { return answer })
	AnswerOK(w, answer)
}

// replayed answers a request whose key was used before.
func (s *Service) replayed(w http.ResponseWriter, r *http.Request, body []byte) bool {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	before, used := s.keyed[r.URL.Path+r.Header.Get("Idempotency-Key")]
	switch {
	case !used:
		return false
	case before.body != string(body):
		AnswerError(w, 422, "RESET.0002", "Idempotency-Key was used for another request")
	default:
		AnswerOK(w, before.answer())
	}
	return true
}

func (s *Service) keep(r *http.Request, body []byte, answer func() any) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	s.keyed[r.URL.Path+r.Header.Get("Idempotency-Key")] = keyed{string(body), answer}
}

// Add makes a job as if it had been submitted.
func (s *Service) Add(instances ...string) {
	s.addLabelled(nil, instances...)
}

func (s *Service) addLabelled(labels map[string]string, instances ...string) tasks.Job {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	job := &Job{Job: tasks.Job{
		ID: fmt.Sprintf("%032x", len(s.Jobs)+1), State: tasks.JobPending, RequestID: "R1",
		CreatedAt: tasks.Time{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		Total:     len(instances), Labels: labels,
	}}
	job.CreatedAt.Time = job.CreatedAt.Add(time.Duration(len(s.Jobs)) * time.Second)
	for i, id := range instances {
		job.Items = append(job.Items, tasks.Item{ID: tasks.ItemID(job.ID, i), InstanceID: id, State: tasks.ItemPending})
	}
	job.Counts = tasks.Count(job.Items)
	s.Jobs = append(s.Jobs, job)
	return job.Job
}

// Advance is what the workers do between two looks.
func (j *Job) Advance(looks int) {
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
func (s *Service) look(w http.ResponseWriter, r *http.Request) *tasks.Job {
	s.Mu.Lock()
	s.seen++
	n := s.seen
	s.Mu.Unlock()
	if s.Looking != nil && s.Looking(w, r, n) {
		return nil
	}
	s.Mu.Lock()
	defer s.Mu.Unlock()
	job := s.find(r.PathValue("job"))
	if job == nil {
		AnswerError(w, 404, "RESET.0001", "there is no such job")
	}
	return job
}

// find returns a job as it is at its next look, or nil.
func (s *Service) find(id string) *tasks.Job {
	i := slices.IndexFunc(s.Jobs, func(j *Job) bool { return j.ID == id })
	if i < 0 {
		return nil
	}
	if !s.KeepFinal || !s.Jobs[i].State.Final() {
		s.Jobs[i].Advance(s.Looks)
	}
	job := s.Jobs[i].Job
	job.Items = slices.Clone(job.Items)
	return &job
}

// events streams one record, and is cut then.
func (s *Service) events(w http.ResponseWriter, r *http.Request) {
	j := s.look(w, r)
	if j == nil {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_, _ = fmt.Fprintf(w, "retry: 1\n\nid: %s\nevent: job\ndata: ", j.State)
	encode(w, j)
	_, _ = fmt.Fprint(w, "\n\n")
}

func (s *Service) job(w http.ResponseWriter, r *http.Request) {
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
	AnswerOK(w, j)
}

// cancel takes back what waits.
func (s *Service) cancel(w http.ResponseWriter, r *http.Request) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	i := slices.IndexFunc(s.Jobs, func(j *Job) bool { return j.ID == r.PathValue("job") })
	switch {
	case i < 0:
		AnswerError(w, 404, "RESET.0001", "there is no such job")
		return
	case s.Jobs[i].State.Final():
		AnswerError(w, 409, "RESET.0003", "the job has ended, there is nothing to cancel")
		return
	}
	job := &s.Jobs[i].Job
	for i := range job.Items {
		if job.Items[i].State == tasks.ItemPending {
			job.Items[i].State = tasks.ItemCancelled
		}
	}
	job.Counts = tasks.Count(job.Items)
	job.State = job.Counts.State()
	AnswerOK(w, job)
}

// NewSigner makes a signer with a key of its own.
func NewSigner(t *testing.T) *proof.Signer {
	t.Helper()
	text, _, err := proof.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := proof.ReadSigner(text)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// proof signs what became of a final job, in January 2026.
func (s *Service) proof(w http.ResponseWriter, r *http.Request) {
	j := s.look(w, r)
	if j == nil {
		return
	}
	if !j.State.Final() {
		AnswerError(w, 409, "RESET.0003", "the job has not ended: there is nothing to prove yet")
		return
	}
	compact, err := s.signer.Sign(proof.Of(*j, "v1.2.3", tasks.Time{Time: time.Date(2026, 1, 2, 4, 0, 0, 0, time.UTC)}))
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/jose")
	_, _ = io.WriteString(w, compact)
}

func (s *Service) proofKeys(w http.ResponseWriter, _ *http.Request) { encode(w, s.signer.Keys()) }

// retry keeps what it is asked for.
func (s *Service) retry(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	s.Mu.Lock()
	s.Retries = append(s.Retries, string(raw))
	s.Mu.Unlock()
	if j := s.look(w, r); j != nil {
		AnswerOK(w, j)
	}
}

// list gives two jobs a page at most, with the number of jobs passed as cursor.
func (s *Service) list(w http.ResponseWriter, r *http.Request) {
	s.Mu.Lock()
	defer s.Mu.Unlock()
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
	for i := len(s.Jobs) - 1 - skip; i >= 0; i-- {
		if len(page) == min(limit, 2) {
			AnswerOK(w, map[string]any{"jobs": page, "next_cursor": strconv.Itoa(skip)})
			return
		}
		skip++
		if job := s.Jobs[i].Job; filter.Match(job) {
			job.Items = nil
			page = append(page, job)
		}
	}
	AnswerOK(w, map[string]any{"jobs": page})
}

func (s *Service) named(w http.ResponseWriter, ids []string) {
	jobs, missing := []*tasks.Job{}, []string{}
	for _, id := range ids {
		if job := s.find(id); job != nil {
			job.Items = nil
			jobs = append(jobs, job)
		} else {
			missing = append(missing, id)
		}
	}
	AnswerOK(w, map[string]any{"jobs": jobs, "missing": missing})
}

// Sent returns the batches that were submitted.
func (s *Service) Sent() [][]string {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return slices.Clone(s.batches)
}

// Requests is how many batches were submitted, and how often jobs and lists were asked for.
func (s *Service) Requests() int {
	s.Mu.Lock()
	defer s.Mu.Unlock()
	return len(s.batches) + s.seen
}

// AddLabelled adds three jobs of the site 7, of which the first has failures and the third has not
// ended, and one of another site with failures.
func (s *Service) AddLabelled() {
	for n, instances := range [][]string{{"failed-1", "phone-2"}, {"phone-3"}, {"phone-4"}, {"failed-5"}} {
		s.Add(instances...)
		s.Jobs[n].Labels = map[string]string{"site": map[bool]string{true: "7", false: "8"}[n < 3]}
		if n != 2 {
			s.Jobs[n].Advance(0)
		}
	}
}
