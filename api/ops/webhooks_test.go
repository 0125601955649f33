package ops_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"batchreset/api/ops"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/worker/webhook"
)

// sender tries endpoints that may be on this machine.
type sender struct{ db *redisdb.DB }

func (sender) CheckURL(ctx context.Context, url string) error {
	return webhook.CheckURL(ctx, url, true)
}

func (s sender) Test(ctx context.Context, e tasks.Endpoint) (ops.WebhookTest, error) {
	e, err := s.db.Endpoints.Endpoint(ctx, e.Tenant, e.ID)
	if err != nil {
		return ops.WebhookTest{}, err
	}
	to := webhook.NewSender("test", true, time.Now)
	defer to.Close()
	reply := to.SendTest(ctx, e)
	return ops.WebhookTest{Status: reply.Status, Text: reply.Text, Err: reply.Err}, nil
}

func TestAWebhookFromAddToRemove(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada, vera := g.login(t, "ada"), g.login(t, "vera")
	status := http.StatusOK
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if !strings.Contains(string(body), `"type":"webhook.test"`) || r.Header.Get("Webhook-Signature") == "" {
			t.Errorf("got %s, %v", body, r.Header)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, "I <hear> you")
	}))
	t.Cleanup(receiver.Close)
	hook := receiver.URL + "/hooks?key=7"

	g.ask(t, http.MethodGet, "/webhooks/new?tenant=acme", ada, nil).says(t, "Add a webhook endpoint", `value="acme"`, "run.finished: a run has ended", "without --secret-key-file")
	ask := g.ask(t, http.MethodPost, "/webhooks/ask", ada, url.Values{"tenant": {"acme"}, "url": {hook}, "event": {"job.finished", "run.paused"}})
	ask.says(t, "Add 1 endpoint for acme?", hook, "job.finished, run.paused")
	form := ask.hidden()
	form.Set("reason", "ticket 7")
	made := g.ask(t, http.MethodPost, "/webhooks/make", ada, form)
	secret := made.secret(t)
	g.notKept(t, secret)
	again := g.ask(t, http.MethodPost, "/webhooks/make", ada, form)
	g.want(t, again, http.StatusConflict, "")
	all, err := g.db.Endpoints.List(t.Context())
	if err != nil || len(all) != 1 || all[0].URL != hook || len(all[0].Topics) != 2 {
		t.Fatalf("endpoints %+v, %v", all, err)
	}
	path := "/webhooks/" + all[0].ID
	// What a viewer sees of the URL has no secret of the receiver.
	if a := g.ask(t, http.MethodGet, path, vera, nil); strings.Contains(a.body, "key=7") || strings.Contains(a.body, "/test") || !strings.Contains(a.body, receiver.URL+"/…") {
		t.Errorf("a viewer sees %s", a.body)
	}
	if a := g.ask(t, http.MethodGet, "/webhooks", vera, nil); strings.Contains(a.body, "key=7") || strings.Contains(a.body, "webhooks/new") {
		t.Errorf("a viewer sees %s", a.body)
	}

	g.ask(t, http.MethodPost, path+"/test", ada, url.Values{}).says(t, "taken status 200", "I <hear> you")
	status = http.StatusTeapot
	g.ask(t, http.MethodPost, path+"/test", ada, url.Values{}).says(t, "The endpoint did not take it: status 418")

	rotate := g.ask(t, http.MethodGet, path+"/rotate", ada, nil).hidden()
	rotate.Set("overlap", "1")
	second := g.ask(t, http.MethodPost, path+"/rotate", ada, rotate)
	if second.secret(t) == secret {
		t.Error("it is the old secret")
	}
	g.notKept(t, second.secret(t))
	g.want(t, g.ask(t, http.MethodPost, path+"/rotate", ada, rotate), http.StatusConflict, "")
	g.ask(t, http.MethodGet, path, ada, nil).says(t, "the old secret signs, too, until")

	change := g.ask(t, http.MethodPost, path+"/change", ada, url.Values{"url": {receiver.URL}, "event": {"run.finished"}})
	change.says(t, "Change 1 endpoint of acme?", "told of run.finished")
	form = change.hidden()
	g.want(t, g.ask(t, http.MethodPost, path+"/change", ada, form), http.StatusSeeOther, "")
	form.Set("event", "run.paused")
	g.ask(t, http.MethodPost, path+"/change", ada, form).says(t, "Somebody else has changed this endpoint")
	e, err := g.db.Endpoints.EndpointByID(t.Context(), all[0].ID)
	if err != nil || e.URL != receiver.URL || len(e.Topics) != 1 || e.Topics[0] != tasks.TopicRunFinished {
		t.Errorf("endpoint %+v, %v", e, err)
	}

	// What came of a notice, and how many wait.
	must(t, errOf(g.db.Endpoints.Report(t.Context(), e, tasks.Report{EventID: "e", Topic: tasks.TopicRunFinished, Status: 503, Error: "status 503", TookMillis: 42})))
	notice := tasks.Notice{EventID: "e", Topic: tasks.TopicRunFinished, Tenant: "acme", EndpointID: e.ID, Body: []byte(`{}`)}
	g.retrying(t, notice)
	g.ask(t, http.MethodGet, path, ada, nil).says(t, "failing since", "run.finished: status 503, after 42 ms", "Waiting for another try 1")
	g.ask(t, http.MethodGet, "/webhooks", ada, nil).says(t, "status 503, after 42 ms 1")

	g.want(t, g.ask(t, http.MethodPost, path+"/disable", ada, url.Values{"reason": {"it moves"}}), http.StatusSeeOther, "")
	g.ask(t, http.MethodGet, path, vera, nil).says(t, "disabled since", "by operator ada: it moves")
	g.ask(t, http.MethodGet, path+"/disable", ada, nil).says(t, "disabled already")
	g.want(t, g.ask(t, http.MethodPost, path+"/enable", ada, url.Values{}), http.StatusSeeOther, "")
	g.ask(t, http.MethodGet, path+"/enable", ada, nil).says(t, "enabled already")
	g.ask(t, http.MethodGet, path+"/remove", ada, nil).says(t, "Remove 1 endpoint of acme?")
	g.want(t, g.ask(t, http.MethodPost, path+"/remove", ada, url.Values{"reason": {"gone"}}), http.StatusSeeOther, "")
	g.want(t, g.ask(t, http.MethodGet, path, ada, nil), http.StatusNotFound, "")
	g.want(t, g.ask(t, http.MethodPost, path+"/remove", ada, url.Values{}), http.StatusNotFound, "")

	var actions []string
	for _, entry := range g.trail(t) {
		actions = append(actions, string(entry.Action)+" "+entry.Reason)
		if strings.Contains(entry.Detail, "key=7") {
			t.Error("the trail has the URL")
		}
	}
	if got := strings.Join(actions, ","); got != "webhook-add ticket 7,webhook-rotate ,webhook-change ,webhook-disable it moves,webhook-enable ,webhook-remove gone" {
		t.Errorf("trail %s", got)
	}
}

// retrying has a notice fail once, as a worker would.
func (g guarded) retrying(t *testing.T, n tasks.Notice) {
	t.Helper()
	client := asynq.NewClientFromRedisClient(g.rdb)
	_, err := client.EnqueueContext(t.Context(), asynq.NewTask(tasks.TypeNotice, n.Encode()), asynq.Queue(redisdb.WebhookQueue))
	must(t, err)
	failed := make(chan struct{})
	server := asynq.NewServerFromRedisClient(g.rdb, asynq.Config{
		Concurrency: 1, Queues: map[string]int{redisdb.WebhookQueue: 1}, LogLevel: asynq.FatalLevel, RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return time.Hour },
	})
	must(t, server.Start(asynq.HandlerFunc(func(context.Context, *asynq.Task) error {
		close(failed)
		return errors.New("503")
	})))
	<-failed
	server.Shutdown() // which waits until the task is put back
}

func TestWebhooksThatAreWrongAreRefused(t *testing.T) {
	t.Parallel()
	g := newGuarded(t, staff())
	ada := g.login(t, "ada")
	e, err := g.db.Endpoints.Add(t.Context(), tasks.NewEndpoint("acme", "https://acme.example/", tasks.Topics), tasks.Actor{})
	must(t, err, g.rdb.Del(t.Context(), "reset:audit").Err())
	good := func(change ...string) url.Values {
		form := url.Values{"tenant": {"acme"}, "url": {"http://127.0.0.1/"}, "event": {"job.finished"}, "form": {tasks.NewFormID()}}
		for i := 0; i < len(change); i += 2 {
			form[change[i]] = strings.Split(change[i+1], "|")
		}
		return form
	}
	for _, row := range []struct {
		name string
		form url.Values
		want string
	}{
		{"no tenant", good("tenant", ""), "field tenant"},
		{"no URL", good("url", ""), "field url is missing"},
		{"a URL that is none", good("url", "ftp://127.0.0.1/"), "field url must be an https URL"},
		{"a URL with a password", good("url", "http://a:b@127.0.0.1/"), "field url must not contain a user"},
		{"no event", url.Values{"tenant": {"acme"}, "url": {"http://127.0.0.1/"}}, "field event: choose at least one"},
		{"an event that is none", good("event", "job.started"), "field event must be of job.finished"},
		{"a field twice", good("url", "a|b"), "url is there 2 times"},
		{"a field that is not known", good("events", "x"), "Unknown field"},
		{"no form", good("form", ""), "field form is missing"},
		{"too long a reason", good("reason", strings.Repeat("x", 257)), "257 characters"},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := g.ask(t, http.MethodPost, "/webhooks/make", ada, row.form)
			g.want(t, a, http.StatusBadRequest, "")
			a.says(t, row.want)
		})
	}
	path := "/webhooks/" + e.ID
	for _, who := range []string{"vera", "paul", "olga"} {
		session := g.login(t, who)
		for _, at := range []string{"/webhooks/new", path + "/change", path + "/rotate", path + "/enable", path + "/disable", path + "/remove"} {
			g.want(t, g.ask(t, http.MethodGet, at, session, nil), http.StatusForbidden, "Only an admin may do this.")
		}
		for _, at := range []string{"/webhooks/ask", "/webhooks/make", path + "/change", path + "/test", path + "/rotate", path + "/enable", path + "/disable", path + "/remove"} {
			g.want(t, g.ask(t, http.MethodPost, at, session, good()), http.StatusForbidden, "")
		}
		g.want(t, g.ask(t, http.MethodGet, "/webhooks", session, nil), http.StatusOK, "")
	}
	g.want(t, g.ask(t, http.MethodGet, "/webhooks/ep_none", ada, nil), http.StatusNotFound, "")
	g.want(t, g.ask(t, http.MethodPost, path+"/rotate", ada, url.Values{"form": {tasks.NewFormID()}, "overlap": {"-1"}}), http.StatusBadRequest, "")
	g.want(t, g.ask(t, http.MethodPost, path+"/change", ada, url.Values{"url": {"http://127.0.0.1/"}}), http.StatusBadRequest, "")
	if all, err := g.db.Endpoints.List(t.Context()); err != nil || len(all) != 1 || len(g.trail(t)) != 0 {
		t.Errorf("endpoints %+v, %v; trail %+v", all, err, g.trail(t))
	}
}
