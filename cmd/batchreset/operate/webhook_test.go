package operate

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"batchreset/tasks/redisdb/redistest"
)

func TestWebhookCommands(t *testing.T) {
	status := http.StatusOK
	agent := ""
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent = r.UserAgent()
		w.WriteHeader(status)
		_, _ = w.Write([]byte("seen"))
	}))
	defer endpoint.Close()
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	private := "--webhook-allow-private"

	added := command(t, environment, "webhook", "add", "--tenant", "acme", "--url", endpoint.URL, private).OK(t)
	if !regexp.MustCompile(`^whsec_[A-Za-z0-9+/]{43}=\n$`).MatchString(added.Out) || !strings.Contains(added.Errs, "for tenant acme, events job.finished\n") {
		t.Errorf("added %q, %q", added.Out, added.Errs)
	}
	id := regexp.MustCompile(`ep_[a-z2-7]{16}`).FindString(added.Errs)
	list := command(t, environment, "webhook", "list").OK(t).Out
	for _, want := range []string{id, "acme", endpoint.URL, "job.finished", "enabled", "none yet"} {
		if !strings.Contains(list, want) {
			t.Errorf("the list lacks %q:\n%s", want, list)
		}
	}
	if out := command(t, environment, "webhook", "list", "--tenant", "other", "--output", "jsonl").OK(t).Out; out != "" {
		t.Errorf("another tenant's: %q", out)
	}

	tested := command(t, environment, "webhook", "test", id, private).OK(t)
	if !regexp.MustCompile(`^status 200 after \S+\nseen\n$`).MatchString(tested.Out) || !strings.HasPrefix(agent, "batchreset/") {
		t.Errorf("test says %q to %q", tested.Out, agent)
	}
	command(t, environment, "webhook", "test", id).WantError(t, "not a permitted destination")
	status = http.StatusTeapot
	command(t, environment, "webhook", "test", id, private).WantError(t, "did not take it")
	if list := command(t, environment, "webhook", "list").OK(t).Out; !strings.Contains(list, "none yet") {
		t.Errorf("a test changed the state:\n%s", list)
	}

	rotated := command(t, environment, "webhook", "rotate", id, "--overlap", "1h").OK(t)
	if rotated.Out == added.Out || !strings.HasPrefix(rotated.Out, "whsec_") || !strings.Contains(rotated.Errs, "signs, too, for 1h0m0s") {
		t.Errorf("rotated %q, %q", rotated.Out, rotated.Errs)
	}
	if list := command(t, environment, "webhook", "list").OK(t).Out; !strings.Contains(list, "old secret until") {
		t.Errorf("the list does not tell of the overlap:\n%s", list)
	}
	command(t, environment, "webhook", "enable", id).OK(t)
	command(t, environment, "webhook", "remove", id).OK(t)
	for _, name := range []string{"test", "rotate", "enable", "remove"} {
		command(t, environment, "webhook", name, id).WantError(t, "there is no webhook endpoint with the ID \""+id)
	}
	for range 10 {
		command(t, environment, "webhook", "add", "--tenant", "acme", "--url", endpoint.URL, private).OK(t)
	}
	command(t, environment, "webhook", "add", "--tenant", "acme", "--url", endpoint.URL, private).
		WantError(t, "tenant acme has 10 webhook endpoints, which is the limit")
}

func TestBadWebhooksAreRefusedByName(t *testing.T) {
	const public = "https://93.184.215.14/hooks"
	for _, row := range []struct {
		name string
		args []string
		want string
	}{
		{"no tenant", []string{"add", "--url", public}, "--tenant is missing"},
		{"no tenant's name", []string{"add", "--tenant", "a b", "--url", public}, "--tenant: \"a b\" is not a tenant"},
		{"no URL", []string{"add", "--tenant", "acme"}, "--url is missing"},
		{"an event that there is not", []string{"add", "--tenant", "acme", "--url", public, "--events", "job.finished,job.began"}, "--events must be of job.finished,job.item_failed,run.waiting_approval,run.decided,run.paused,run.finished, not \"job.began\""},
		{"http", []string{"add", "--tenant", "acme", "--url", "http://93.184.215.14/"}, "--url must be an https URL"},
		{"a private address", []string{"add", "--tenant", "acme", "--url", "https://10.0.0.1/"}, "--url leads to 10.0.0.1, which is not a public address"},
		{"no endpoint", []string{"rotate"}, "ID is missing"},
		{"a negative overlap", []string{"rotate", "ep_1", "--overlap", "-1h"}, "--overlap must not be negative"},
	} {
		t.Run(row.name, func(t *testing.T) {
			// A Redis that is not there: nothing is asked of it before.
			environment := map[string]string{"BATCHRESET_REDIS": "redis://127.0.0.1:1"}
			command(t, environment, append([]string{"webhook"}, row.args...)...).WantError(t, row.want)
		})
	}
}
