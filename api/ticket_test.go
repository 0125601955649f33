package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"batchreset/api"
	"batchreset/api/browsertest"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

func (s service) ticket(t testing.TB, token, job string) string {
	t.Helper()
	got := s.do(t, http.MethodPost, "/v1/jobs/"+job+"/ticket", token, nil)
	var ticket tasks.Ticket
	if err := json.Unmarshal(got.Data, &ticket); err != nil || ticket.Ticket == "" {
		t.Fatalf("%v, answer %+v", err, got)
	}
	if left := time.Until(ticket.ExpiresAt.Time); left < 50*time.Second || left > 61*time.Second {
		t.Errorf("a ticket is good for %s", left)
	}
	return ticket.Ticket
}

// cancelled makes a job that has ended, whose stream therefore ends at once.
func (s service) cancelled(t testing.TB) (job string) {
	t.Helper()
	job = s.submit(t, "a")
	if err := s.db.Records.Cancel(t.Context(), job, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	return job
}

func TestATicketOpensTheStreamOfItsJob(t *testing.T) {
	s := newService(t, roomyOpen)
	job, other := s.cancelled(t), s.cancelled(t)
	ticket := s.ticket(t, "acme", job)
	events := "/v1/jobs/" + job + "/events?ticket="
	last := ""
	for range 3 { // it can be used again
		r := s.raw(t, http.MethodGet, events+ticket, "", nil)
		if r.Code != http.StatusOK || !strings.Contains(r.Body.String(), `"state":"cancelled"`) {
			t.Fatalf("answer %d %s", r.Code, r.Body)
		}
		_, id, _ := strings.Cut(r.Body.String(), "id: ")
		last, _, _ = strings.Cut(id, "\n")
	}
	if r := s.raw(t, http.MethodGet, events+ticket, "", nil, "Last-Event-ID", last); r.Code != http.StatusNoContent {
		t.Errorf("who comes back with the last event is answered %d %s", r.Code, r.Body)
	}
	mangled := []byte(ticket)
	mangled[20] ^= 1
	for name, row := range map[string]struct {
		path, token string
		status      int
		code        tasks.Code
	}{
		"a ticket for another job":     {"/v1/jobs/" + other + "/events?ticket=" + ticket, "", http.StatusUnauthorized, tasks.BadToken},
		"a ticket for no job":          {"/v1/jobs/" + tasks.NewJobID() + "/events?ticket=" + ticket, "", http.StatusUnauthorized, tasks.BadToken},
		"a mangled ticket":             {events + string(mangled), "", http.StatusUnauthorized, tasks.BadToken},
		"half a ticket":                {events + ticket[:30], "", http.StatusUnauthorized, tasks.BadToken},
		"no ticket":                    {events, "", http.StatusUnauthorized, tasks.BadToken},
		"a token for a ticket":         {events + "acme", "", http.StatusUnauthorized, tasks.BadToken},
		"a ticket and a token":         {events + ticket, "acme", http.StatusUnauthorized, tasks.BadToken},
		"two tickets":                  {events + ticket + "&ticket=" + ticket, "", http.StatusBadRequest, tasks.BadRequest},
		"a ticket and something else":  {events + ticket + "&x=y", "", http.StatusBadRequest, tasks.BadRequest},
		"a ticket for the record":      {"/v1/jobs/" + job + "?ticket=" + ticket, "", http.StatusUnauthorized, tasks.BadToken},
		"a ticket for the record, too": {"/v1/jobs/" + job + "?ticket=" + ticket, "acme", http.StatusBadRequest, tasks.BadRequest},
	} {
		if got := s.do(t, http.MethodGet, row.path, row.token, nil); got.status != row.status || got.Code != row.code || strings.Contains(got.Message, ticket) {
			t.Errorf("%s is answered %+v", name, got)
		}
	}
	for name, path := range map[string]string{"another tenant's job": job, "no job": tasks.NewJobID(), "none": "x"} {
		if got := s.do(t, http.MethodPost, "/v1/jobs/"+path+"/ticket", "other", nil); got.status != http.StatusNotFound || got.Code != tasks.NoJob {
			t.Errorf("a ticket for %s: answer %+v", name, got)
		}
	}
}

var roomyOpen = api.Config{AllowUnregistered: true, MaxWaiters: 10}

func TestATicketEnds(t *testing.T) {
	m := miniredis.RunT(t)
	s := newServiceOn(t, roomyOpen, redisdb.Options{URL: "redis://" + m.Addr(), Embedded: true})
	job := s.cancelled(t)
	refused := func(ticket string, code tasks.Code) {
		t.Helper()
		if got := s.do(t, http.MethodGet, "/v1/jobs/"+job+"/events?ticket="+ticket, "", nil); got.status != http.StatusUnauthorized || got.Code != code {
			t.Errorf("answer %+v, want %s", got, code)
		}
	}
	t.Run("with its time", func(t *testing.T) {
		ticket := s.ticket(t, "acme", job)
		m.SetTime(time.Now().Add(59 * time.Second))
		if err := s.db.Redis.CompareClocks(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r := s.raw(t, http.MethodGet, "/v1/jobs/"+job+"/events?ticket="+ticket, "", nil); r.Code != http.StatusOK {
			t.Errorf("answer %d %s", r.Code, r.Body)
		}
		m.SetTime(time.Now().Add(61 * time.Second))
		if err := s.db.Redis.CompareClocks(t.Context()); err != nil {
			t.Fatal(err)
		}
		refused(ticket, tasks.TokenExpired)
		m.SetTime(time.Now())
		if err := s.db.Redis.CompareClocks(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("with its token", func(t *testing.T) {
		token, err := s.db.Tokens.Add(t.Context(), "short", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, 0, tasks.Actor{})
		if err != nil {
			t.Fatal(err)
		}
		ticket := s.ticket(t, "short", job)
		if _, err := s.db.Tokens.Revoke(t.Context(), token.ID, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
		refused(ticket, tasks.TokenExpired)
	})
	t.Run("and says when, if its token ends first", func(t *testing.T) {
		token, err := s.db.Tokens.Add(t.Context(), "brief", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, 30*time.Second, tasks.Actor{})
		if err != nil {
			t.Fatal(err)
		}
		var ticket tasks.Ticket
		got := s.do(t, http.MethodPost, "/v1/jobs/"+job+"/ticket", "brief", nil)
		if err := json.Unmarshal(got.Data, &ticket); err != nil || !ticket.ExpiresAt.Equal(token.ExpiresAt.Time) {
			t.Errorf("%v, answer %+v, want the end of %+v", err, got, token)
		}
	})
	t.Run("with the key that seals it", func(t *testing.T) {
		ticket := s.ticket(t, "acme", job)
		s.rdb.Del(t.Context(), "reset:ticket-key")
		refused(ticket, tasks.BadToken)
		s.ticket(t, "acme", job)
		refused(ticket, tasks.BadToken)
	})
}

// A stream that a ticket has opened ends with the token, too.
func TestAStreamByTicketEndsWithItsToken(t *testing.T) {
	s := newService(t, roomyOpen)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Handler.(*api.API).Run(ctx) }() //nolint:forcetypeassert // newService made it
	server := httptest.NewServer(s)
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		server.Close()
	}()
	token, err := s.db.Tokens.Add(t.Context(), "short", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, 0, tasks.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	job := s.submit(t, "a")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/v1/jobs/"+job+"/events?ticket="+s.ticket(t, "short", job), nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var events []string
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, is := strings.CutPrefix(lines.Text(), "event: ")
		if !is {
			continue
		}
		if events = append(events, name); len(events) == 1 {
			if _, err := s.db.Tokens.Revoke(t.Context(), token.ID, tasks.Actor{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got := fmt.Sprint(events); got != "[job error]" {
		t.Errorf("events %s", got)
	}
}

// Whoever reads logs, traces or metrics has no ticket.
func TestATicketIsWrittenNowhere(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	cfg := roomyOpen
	cfg.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)).Tracer("test")
	s := newService(t, cfg)
	var log lockedLog
	cfg.MaxInstances = tasks.DefaultMaxInstances
	s.Handler = api.New(cfg, storeOf(s.db), slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	job := s.cancelled(t)
	ticket := s.ticket(t, "acme", job)
	for _, path := range []string{
		"/v1/jobs/" + job + "/events?ticket=" + ticket, "/v1/jobs/" + tasks.NewJobID() + "/events?ticket=" + ticket, "/v1/jobs/" + job + "/events?ticket=" + ticket + "&x=%zz",
		"/v1/jobs/" + job + "?ticket=" + ticket, "/nowhere?ticket=" + ticket, "/v1/jobs/" + job + "/events?Ticket=" + ticket,
	} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if strings.Contains(w.Body.String(), ticket) || strings.Contains(fmt.Sprint(w.Header()), ticket) {
			t.Errorf("%s: the answer has it: %s", path, w.Body)
		}
	}
	if text := log.String(); strings.Contains(text, ticket) || strings.Count(text, `"path":`) < 6 {
		t.Errorf("log %s", text)
	}
	if text := fmt.Sprintf("%+v", spans.GetSpans()); strings.Contains(text, ticket) || !strings.Contains(text, "/events") {
		t.Errorf("spans %s", text)
	}
}

// TestAPageOfAnotherOriginFollowsAJob: it has a ticket, streams the job with an EventSource
// that comes back by itself, and cancels the job, in Chromium. A page of an origin that was
// not named can do nothing of that.
func TestAPageOfAnotherOriginFollowsAJob(t *testing.T) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<!doctype html><title>a page of somebody else</title><link rel="icon" href="data:,">`))
	}))
	t.Cleanup(page.Close)
	cfg := roomyOpen
	cfg.Origins = []string{page.URL}
	s := newService(t, cfg)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Handler.(*api.API).Run(ctx) }() //nolint:forcetypeassert // newService made it
	server := httptest.NewServer(s)
	browsertest.Script(t, "..", "testdata/ticket.js", server.URL, page.URL, strings.Replace(page.URL, "127.0.0.1", "localhost", 1), s.submit(t, "a"))
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	server.Close()
}
