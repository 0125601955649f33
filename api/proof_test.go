package api_test

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"batchreset/api"
	"batchreset/api/browsertest"
	"batchreset/tasks"
	"batchreset/tasks/proof"
	"batchreset/tasks/redisdb/registry"
)

// proving is a service with a key.
func proving(t *testing.T) service {
	t.Helper()
	return newService(t, provingConfig(t))
}

func provingConfig(t *testing.T) api.Config {
	t.Helper()
	text, _, err := proof.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := proof.ReadSigner(text)
	if err != nil {
		t.Fatal(err)
	}
	return api.Config{AllowUnregistered: true, Proofs: signer, Version: "v1.2.3"}
}

// end ends the next item of a job that is open.
func (s service) end(t *testing.T, id string, o tasks.Outcome) {
	t.Helper()
	job, err := s.db.Jobs.Job(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	d := job.Deliveries()[0]
	if _, err := s.db.Attempts.Begin(t.Context(), d, "t", "k", time.Minute); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Attempts.Finish(t.Context(), d, "t", o, true); err != nil {
		t.Fatal(err)
	}
}

// misleading is text that would look like another line, or like a tag.
const misleading = "<script>alert(1)</script> \u202ereversed"

// partial makes a job of which one item succeeded and was seen, one succeeded and was not, one
// failed and one is unknown.
func (s service) partial(t *testing.T) (job string) {
	t.Helper()
	body := strings.NewReader(`{"instance_ids":["phone-1","phone-2","phone-3","phone-4"],"reason":"returned by the customer","labels":{"site":"lab-3","ticket":"T-4711"}}`)
	got := s.do(t, http.MethodPost, batchReset, "acme", body, "X-Request-ID", "R1")
	job = strings.TrimPrefix(got.header.Get("Location"), "/v1/jobs/")
	s.end(t, job, tasks.Outcome{Transition: tasks.Succeed, Evidence: "2026-11-28T10:00:41Z data born 10:00:39Z " + misleading})
	s.end(t, job, tasks.Outcome{Transition: tasks.Succeed})
	s.end(t, job, tasks.Outcome{Transition: tasks.Fail, Code: "CPS.0005", Message: "Phone not found.", Failure: true})
	s.end(t, job, tasks.Outcome{Transition: tasks.LoseTrack, Code: tasks.TimedOut, InDoubt: true})
	return job
}

// keys are those that the service publishes.
func (s service) keys(t *testing.T) (keys proof.Keys) {
	t.Helper()
	if err := json.Unmarshal(s.raw(t, http.MethodGet, "/v1/proof-keys", "", nil).Body.Bytes(), &keys); err != nil {
		t.Fatal(err)
	}
	return keys
}

// proof gets a proof, and checks its payload against the contract.
func (s service) proof(t *testing.T, job string) proof.Statement {
	t.Helper()
	r := s.raw(t, http.MethodGet, "/v1/jobs/"+job+"/proof", "acme", nil)
	if r.Code != http.StatusOK || r.Header().Get("Content-Type") != "application/jose" {
		t.Fatalf("answer %d %v %s", r.Code, r.Header(), r.Body)
	}
	statement, _, err := s.keys(t).Verify(r.Body.String())
	if err != nil {
		t.Fatal(err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(r.Body.String(), ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	c, err := written()
	if err == nil {
		err = c.validate("/components/schemas/Statement", payload)
	}
	if err != nil {
		t.Errorf("%v: %s", err, payload)
	}
	return statement
}

func TestAProofSaysWhatBecameOfAJob(t *testing.T) {
	s := proving(t)
	job := s.partial(t)
	got := s.proof(t, job)
	record, err := s.db.Jobs.Job(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	if want := proof.Of(record, "v1.2.3", got.IssuedAt); !reflect.DeepEqual(got, want) {
		t.Errorf("it says\n%+v\nwant\n%+v", got, want)
	}
	if want := (proof.Requester{By: "token " + registry.TokenID("acme"), From: "192.0.2.1"}); got.RequestedBy != want {
		t.Errorf("asked by %+v, want %+v", got.RequestedBy, want)
	}
	if got.Tenant != "acme" || got.RequestID != "R1" || got.Reason != "returned by the customer" || !maps.Equal(got.Labels, map[string]string{"site": "lab-3", "ticket": "T-4711"}) ||
		got.State != tasks.JobPartial || got.Counts != (tasks.Counts{Succeeded: 2, Failed: 1, Unknown: 1}) || got.FinishedAt.IsZero() {
		t.Errorf("it says %+v", got)
	}
	if seen, failed := got.Items[0], got.Items[2]; !strings.HasSuffix(seen.Evidence, misleading) || failed.Code != "CPS.0005" || len(failed.History) != 1 || failed.History[0].Outcome != "failed" {
		t.Errorf("items %+v", got.Items)
	}
	if time.Since(got.IssuedAt.Time).Abs() > 10*time.Second {
		t.Errorf("issued at %s", got.IssuedAt)
	}
	again := s.proof(t, job)
	again.IssuedAt = got.IssuedAt
	if !reflect.DeepEqual(got, again) {
		t.Errorf("asked again it says\n%+v\nand before\n%+v", again, got)
	}
	public := s.do(t, http.MethodGet, "/v1/jobs/"+job, "acme", nil)
	for _, private := range []string{registry.TokenID("acme"), "192.0.2.1", `"by"`} {
		if strings.Contains(string(public.Data), private) {
			t.Errorf("the record shows %s: %s", private, public.Data)
		}
	}
}

// A retry makes another proof; that of before stays true of its time.
func TestAProofIsAboutFinalJobsAlone(t *testing.T) {
	s := proving(t)
	job := s.submit(t, "phone-1", "phone-2")
	refuses := func() {
		t.Helper()
		for _, accept := range []string{"", "text/html"} {
			got := s.do(t, http.MethodGet, "/v1/jobs/"+job+"/proof", "acme", nil, "Accept", accept)
			if got.status != http.StatusConflict || got.Code != tasks.JobFinal || !strings.Contains(got.Message, "has not ended") {
				t.Errorf("answer %+v", got)
			}
		}
	}
	refuses()
	s.end(t, job, tasks.Outcome{Transition: tasks.Succeed})
	refuses()
	s.end(t, job, tasks.Outcome{Transition: tasks.Fail, Code: tasks.ResetFailed, Failure: true})
	if got := s.proof(t, job); got.State != tasks.JobPartial {
		t.Errorf("it says %s", got.State)
	}
	if err := s.db.Records.Retry(t.Context(), job, []tasks.ItemState{tasks.ItemFailed}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	refuses()
	s.end(t, job, tasks.Outcome{Transition: tasks.Succeed})
	if got := s.proof(t, job); got.State != tasks.JobSucceeded || got.Items[1].Attempts != 2 || len(got.Items[1].History) != 1 {
		t.Errorf("it says %+v", got)
	}
}

func TestAProofIsItsTenantsAlone(t *testing.T) {
	s := proving(t)
	job := s.cancelled(t)
	missing := tasks.NewJobID()
	foreign := s.do(t, http.MethodGet, "/v1/jobs/"+job+"/proof", "other", nil)
	unknown := s.do(t, http.MethodGet, "/v1/jobs/"+missing+"/proof", "other", nil)
	if foreign.status != http.StatusNotFound || foreign.Code != tasks.NoJob || strings.ReplaceAll(unknown.Message, missing, job) != foreign.Message {
		t.Errorf("another tenant's: %+v, one that does not exist: %+v", foreign, unknown)
	}
	if got := s.proof(t, job); got.State != tasks.JobCancelled {
		t.Errorf("it says %s", got.State)
	}
}

func TestAServiceWithoutAKeySignsNothing(t *testing.T) {
	s := newService(t, testConfig)
	for path, token := range map[string]string{"/v1/jobs/" + s.cancelled(t) + "/proof": "acme", "/v1/jobs/" + s.submit(t, "p") + "/proof": "acme", "/v1/proof-keys": ""} {
		got := s.do(t, http.MethodGet, path, token, nil)
		if got.status != http.StatusNotFound || got.Code != tasks.NoRoute || !strings.Contains(got.Message, "--proof-key-file") {
			t.Errorf("%s: answer %+v", path, got)
		}
	}
}

func TestTheKeysOfProofs(t *testing.T) {
	s := proving(t)
	got := s.raw(t, http.MethodGet, "/v1/proof-keys", "", nil)
	if got.Code != http.StatusOK || got.Header().Get("Content-Type") != "application/jwk-set+json" || len(s.keys(t)) != 1 {
		t.Errorf("answer %d %v %s", got.Code, got.Header(), got.Body)
	}
	if again := s.raw(t, http.MethodGet, "/v1/proof-keys", "", nil, "If-None-Match", got.Header().Get("ETag")); again.Code != http.StatusNotModified {
		t.Errorf("asked again: %d", again.Code)
	}
	if head := s.raw(t, http.MethodHead, "/v1/proof-keys", "", nil); head.Code != http.StatusOK {
		t.Errorf("HEAD: %d", head.Code)
	}
	if got := s.do(t, http.MethodGet, "/v1/proof-keys?kid=x", "", nil); got.status != http.StatusBadRequest || got.Code != tasks.BadRequest {
		t.Errorf("with a query: %+v", got)
	}
	if strings.Contains(got.Body.String(), `"d"`) {
		t.Error("it has the private key")
	}
}

// provenRun is a service with a key, and a run that has ended with some failures.
func provenRun(t *testing.T, instances int) (service, *fakeRuns, tasks.Run) {
	t.Helper()
	s, runs := newRunService(t, provingConfig(t))
	_, made := s.postRun(t, strings.Replace(instancesBody(instances), "{", `{"name":"recall 7","canary":1,"reason":"r",`, 1))
	run := runs.kept[made.ID]
	job := tasks.NewJobID()
	for n, id := range runs.lists[run.ID] {
		it := tasks.Item{ID: tasks.ItemID(job, n), InstanceID: id, State: tasks.ItemSucceeded, Attempts: 1, Evidence: "seen " + misleading}
		if n%2 == 1 {
			it.State, it.Code, it.Evidence = tasks.ItemFailed, "CPS.0005", ""
		}
		runs.instances[id] = tasks.RunInstance{JobID: job, Item: it, Round: 1}
		*run.Closed.Of(it.State)++
	}
	at := tasks.FromMillis(1_767_366_245_120)
	run.State, run.FinishedAt, run.Revision = tasks.RunPartial, at, 7
	run.Approval = &tasks.Approval{Approvers: 1, ExpiresAt: at, Decisions: []tasks.RunDecision{{Principal: "bob", Decision: tasks.Approved, Comment: misleading, At: at}}}
	runs.kept[run.ID] = run
	return s, runs, run
}

func TestAProofSaysWhatBecameOfARun(t *testing.T) {
	s, _, run := provenRun(t, 5)
	got := s.raw(t, http.MethodGet, "/v1/runs/"+run.ID+"/proof", "acme", nil)
	if got.Code != http.StatusOK || got.Header().Get("Content-Type") != "application/jsonl" {
		t.Fatalf("answer %d %v %s", got.Code, got.Header(), got.Body)
	}
	text := got.Body.String()
	var states []tasks.ItemState
	statement, _, err := s.keys(t).VerifyRun(strings.NewReader(text), func(it proof.RunItem) { states = append(states, it.State) })
	if want := proof.OfRun(run.Sum(nil, time.Now()), "v1.2.3", statement.IssuedAt); err != nil || !reflect.DeepEqual(statement, want) {
		t.Errorf("it says\n%+v\nwant\n%+v, %v", statement, want, err)
	}
	if by := statement.RequestedBy; by.By != "token "+registry.TokenID("acme") || by.Principal == "" || by.From != "192.0.2.1" || len(states) != 5 || states[1] != tasks.ItemFailed {
		t.Errorf("asked by %+v, %v", by, states)
	}
	checkRunLines(t, text)
	for _, accept := range []string{"text/html", "application/jose"} { // there is one form
		if page := s.raw(t, http.MethodGet, "/v1/runs/"+run.ID+"/proof", "acme", nil, "Accept", accept); page.Header().Get("Content-Type") != "application/jsonl" {
			t.Errorf("Accept: %s: %v", accept, page.Header())
		}
	}
}

// checkRunLines wants each line of the proof of a run to be as the contract has it.
func checkRunLines(t *testing.T, text string) {
	t.Helper()
	c, err := written()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	for n, line := range lines {
		schema := "ProvenInstance"
		switch n {
		case 0:
			schema = "RunStatement"
		case len(lines) - 1:
			schema = "RunSignature"
		}
		if err := c.validate("/components/schemas/"+schema, []byte(line)); err != nil {
			t.Errorf("line %d: %v: %s", n+1, err, line)
		}
	}
}

func TestWhoGetsNoProofOfARun(t *testing.T) {
	s, runs, run := provenRun(t, 2)
	path := "/v1/runs/" + run.ID + "/proof"
	if got := s.do(t, http.MethodGet, path, "other", nil); got.status != http.StatusNotFound || got.Code != tasks.NoJob {
		t.Errorf("another tenant: %+v", got)
	}
	for _, state := range []tasks.RunState{tasks.RunWaiting, tasks.RunRunning, tasks.RunPaused} {
		run.State = state
		runs.kept[run.ID] = run
		if got := s.do(t, http.MethodGet, path, "acme", nil); got.status != http.StatusConflict || got.Code != tasks.JobFinal || !strings.Contains(got.Message, "has not ended") {
			t.Errorf("%s: %+v", state, got)
		}
	}
	s, _ = newRunService(t, testConfig)
	_, run = s.postRun(t, `{"instance_ids":["a"]}`)
	if got := s.do(t, http.MethodGet, "/v1/runs/"+run.ID+"/proof", "acme", nil); got.status != http.StatusNotFound || got.Code != tasks.NoRoute || !strings.Contains(got.Message, "--proof-key-file") {
		t.Errorf("without a key: %+v", got)
	}
}

// Somebody retries the run, or its record expires, while its proof is sent: what was sent is no proof.
func TestAProofDoesNotMixRounds(t *testing.T) {
	s, runs, run := provenRun(t, 2)
	path := "/v1/runs/" + run.ID + "/proof"
	runs.visited = func() { _ = runs.Retry(t.Context(), run.ID, nil, tasks.Actor{}) }
	if got := s.do(t, http.MethodGet, path, "acme", nil); got.status != http.StatusConflict || got.Code != tasks.JobFinal || !strings.Contains(got.Message, "just retried") {
		t.Errorf("before anything was sent: %+v", got)
	}
	// Even if the next round has ended by then, as the one before did.
	run.Revision++
	runs.kept[run.ID] = run
	runs.visited = func() { run.Revision++; runs.kept[run.ID] = run }
	if got := s.do(t, http.MethodGet, path, "acme", nil); got.status != http.StatusConflict {
		t.Errorf("after another round: %+v", got)
	}
	runs.visited = func() { delete(runs.kept, run.ID) }
	if got := s.do(t, http.MethodGet, path, "acme", nil); got.status != http.StatusNotFound || got.Code != tasks.NoJob {
		t.Errorf("a record that expired: %+v", got)
	}

	s, runs, run = provenRun(t, 2000)
	runs.visited = func() { _ = runs.Retry(t.Context(), run.ID, nil, tasks.Actor{}) }
	server := httptest.NewServer(withToken(s, "acme"))
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/runs/"+run.ID+"/proof", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK || err == nil || len(body) == 0 || strings.Contains(string(body), `{"signature"`) {
		t.Errorf("%d, %d bytes, %v", resp.StatusCode, len(body), err)
	}
}

// A record that does not add up is not signed.
func TestARunThatDoesNotAddUpIsNotProven(t *testing.T) {
	s, runs, run := provenRun(t, 2)
	delete(runs.instances, "phone-1") // its job is gone
	if got := s.do(t, http.MethodGet, "/v1/runs/"+run.ID+"/proof", "acme", nil); got.status != http.StatusInternalServerError || got.Code != tasks.Internal {
		t.Errorf("answer %+v", got)
	}
}

// Programs that do not say what they want get what they can check.
func TestWhoGetsTheCertificate(t *testing.T) {
	s := proving(t)
	path := "/v1/jobs/" + s.cancelled(t) + "/proof"
	for accept, page := range map[string]bool{
		"": false, "*/*": false, "application/jose": false, "application/jose, text/html;q=0.5": false, "text/html;q=0": false, "application/json": false,
		"text/html": true, "text/html,application/xhtml+xml,*/*;q=0.8": true,
	} {
		got := s.raw(t, http.MethodGet, path, "acme", nil, "Accept", accept)
		h := got.Header()
		if isPage := strings.HasPrefix(h.Get("Content-Type"), "text/html"); got.Code != http.StatusOK || isPage != page || !strings.Contains(strings.Join(h.Values("Vary"), ","), "Accept") {
			t.Errorf("Accept: %s: %d %v", accept, got.Code, h)
		} else if page && (!strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'; style-src") || h.Get("X-Content-Type-Options") != "nosniff") {
			t.Errorf("the page has %v", h)
		}
	}
}

// withToken is what a browser would send if it could.
func withToken(h http.Handler, token string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Auth-Token", token)
		h.ServeHTTP(w, r)
	})
}

// Pictures: see browsertest.
func TestTheCertificateInABrowser(t *testing.T) {
	t.Parallel()
	s := proving(t)
	job := s.partial(t)
	server := httptest.NewServer(withToken(s, "acme"))
	defer server.Close()
	for name, more := range map[string]string{"certificate": "--window-size=1000,2600", "certificate-phone": "--window-size=390,844"} {
		page := browsertest.Open(t, server.URL+"/v1/jobs/"+job+"/proof", name, more)
		if len(page.Console) > 0 || len(page.Requests) > 0 {
			t.Errorf("console %v, requests %v", page.Console, page.Requests)
		}
		for _, want := range []string{
			"<h1>Certificate of sanitization</h1>", "2 of 4 instances were reset", "Person performing sanitization", "Make / vendor", "Model number", "Serial number",
			"Media property number", "Media type", "Source", "Classification", "Data backed up", "Backup location", "Method type", "Method used", "Method details",
			"Tool used", "Verification method", "Post sanitization classification", "Notes", "Media destination", "Signature", "Validation",
			"batchreset v1.2.3", "tenant acme", "token " + registry.TokenID("acme"), "returned by the customer", "site=lab-3, ticket=T-4711",
			"Sanitized: 2", "Not sanitized: 2", "&lt;script&gt;alert(1)&lt;/script&gt; [U+202E]reversed", "nobody looked", "CPS.0005", "it may have been reset, or not",
			"The service looked at 1 of 2",
		} {
			if !strings.Contains(page.DOM, want) {
				t.Errorf("the page does not show %q", want)
			}
		}
		if strings.Contains(page.DOM, "<script") || strings.ContainsRune(page.DOM, '\u202e') {
			t.Error("the page has what a caller wrote")
		}
		_, compact, _ := strings.Cut(page.DOM, "<pre>")
		compact, _, _ = strings.Cut(compact, "</pre>")
		if statement, _, err := s.keys(t).Verify(compact); err != nil || statement.JobID != job {
			t.Errorf("the text at its end: %+v, %v", statement, err)
		}
	}
}

func TestNothingIsCertifiedOfAJobThatFailed(t *testing.T) {
	s := proving(t)
	failed, done := s.cancelled(t), s.submit(t, "phone-1")
	s.end(t, done, tasks.Outcome{Transition: tasks.Succeed})
	for job, want := range map[string][2]string{
		failed: {"<h1>No certificate of sanitization</h1>", "None of 1 instances is known to have been reset"},
		done:   {"<h1>Certificate of sanitization</h1>", "All 1 of 1 instances were reset"},
	} {
		page := s.raw(t, http.MethodGet, "/v1/jobs/"+job+"/proof", "acme", nil, "Accept", "text/html").Body.String()
		for _, text := range want {
			if !strings.Contains(page, text) {
				t.Errorf("the page does not say %q: %s", text, page)
			}
		}
		if job == failed && strings.Contains(page, "Sanitized: ") {
			t.Error("the page lists something as sanitized")
		}
	}
}

// Readers try their programs with it.
func TestTheProofsOfTheContractVerify(t *testing.T) {
	c, err := written()
	if err != nil {
		t.Fatal(err)
	}
	compact, _ := c.paths["/v1/jobs/{job_id}/proof"]["get"].Responses["200"].Content["application/jose"].Example.(string)
	set, err := json.Marshal(c.paths["/v1/proof-keys"]["get"].Responses["200"].Content["application/jwk-set+json"].Example)
	if err != nil {
		t.Fatal(err)
	}
	var keys proof.Keys
	if err := json.Unmarshal(set, &keys); err != nil {
		t.Fatal(err)
	}
	if statement, _, err := keys.Verify(compact); err != nil || statement.JobID != "5f9c1f0f3a5e4b0d8c7a6b5c4d3e2f10" {
		t.Errorf("%+v, %v", statement, err)
	}
	run, _ := c.paths["/v1/runs/{run_id}/proof"]["get"].Responses["200"].Content["application/jsonl"].Example.(string)
	if statement, _, err := keys.VerifyRun(strings.NewReader(run), func(proof.RunItem) {}); err != nil || statement.RunID != "9b1c7d2e4f5a4c3b8d6e7f8091a2b3c4" {
		t.Errorf("%+v, %v", statement, err)
	}
	checkRunLines(t, run)
}
