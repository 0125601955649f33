package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"batchreset/tasks/redisdb/redistest"
)

// usersFile is what the documentation has.
const usersFile = "../../deploy/redis/users.acl"

// urlFile is a file with the URL of a Redis user, as --redis-file takes it.
func urlFile(t *testing.T, server *redistest.Server, user string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), user+"-url")
	if err := os.WriteFile(file, []byte(server.URLOf(user)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestEverythingWithTheDocumentedRedisUsers runs api, worker and the commands of operators each
// under its own user. Redis must have refused none of them anything, and all that they need of
// operators.
func TestEverythingWithTheDocumentedRedisUsers(t *testing.T) {
	t.Parallel()
	redis := redistest.StartWithUsers(t, usersFile)
	admin := redis.Client(t)
	hooks := newReceiver(t)
	hooks.open(t)
	dir := t.TempDir()
	for name, content := range map[string]string{
		"fleet.csv": "instance_id,tenant,protected\nphone-1,acme,\nphone-2,acme,\nphone-3,acme,\nphone-4,acme,true\n", "password": "correct horse battery\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	environment := map[string]string{"BATCHRESET_REDIS_FILE": urlFile(t, redis, "operator")}
	operate := func(line string) string {
		t.Helper()
		return command(t, environment, strings.Fields(line)...).OK(t).Out
	}
	operate("operator add alice --role operator --password-file " + filepath.Join(dir, "password"))
	operate("fleet import " + filepath.Join(dir, "fleet.csv"))
	apiFile, workerFile := urlFile(t, redis, "api"), urlFile(t, redis, "worker")
	api := start(t, "api", "--redis-file", apiFile, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	started := api.logged("api started")
	server, _ := started["api"].(string)
	apiOps, _ := started["ops"].(string)
	worker := start(t, "worker", "--redis-file", workerFile, "--ops-listen", "127.0.0.1:0", "--driver", "simulator",
		"--simulator-latency", "20ms", "--webhook-allow-private")
	workerOps, _ := worker.logged("worker starting")["ops"].(string)

	environment["BATCHRESET_SERVER"] = server
	environment["BATCHRESET_TOKEN"] = strings.TrimSpace(operate("token add --tenant acme --scope submit,read,cancel,operate"))
	operate("webhook add --tenant acme --events job.finished,job.item_failed --webhook-allow-private --url http://" + hooks.addr)
	operate("tenant limit --tenant acme --instances-per-hour 1000 --requests-per-second 1000 --open-instances 100")

	done := strings.Fields(operate("submit --wait phone-1 phone-2"))[0]
	later := strings.Fields(operate("submit phone-3 --not-before " + time.Now().Add(time.Hour).UTC().Format(time.RFC3339)))[0]
	operate("cancel " + later)
	operate("retry " + later + " --state cancelled")
	operate("watch " + later)
	for _, line := range []string{
		"jobs", "status " + done, "halt --tenant acme --reason x", "resume --tenant acme", "tenant list", "token list", "fleet list", "fleet unprotect phone-4",
		"fleet protect phone-4", "fleet remove phone-4", "webhook list", "operator list", "audit",
	} {
		operate(line)
	}
	soon(t, func() error {
		if _, taken := hooks.got(); len(taken) < 2 {
			return fmt.Errorf("%d hooks came", len(taken))
		}
		return nil
	})
	session := logIn(t, apiOps)
	for _, ops := range []string{apiOps, workerOps} {
		operatorsSite(t, ops, session, done)
	}
	refused, err := admin.ACLLog(t.Context(), 100).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range refused {
		if r.Object != "config|get" { // which has Redis's passwords; the overview does without
			t.Errorf("Redis has refused %s to %s", r.Object, r.Username)
		}
	}
	for user, lines := range map[string][]string{apiFile: {
		"token add --tenant acme", "token revoke " + strings.Fields(strings.Split(operate("token list"), "\n")[1])[0], "fleet import " + filepath.Join(dir, "fleet.csv"),
		"fleet unprotect phone-1", "webhook add --tenant acme --url https://1.1.1.1/hook", "operator add bob --password-file " + filepath.Join(dir, "password"),
	}, workerFile: {
		"token add --tenant acme", "webhook add --tenant acme --url https://1.1.1.1/hook", "operator add bob --password-file " + filepath.Join(dir, "password"),
	}} {
		for _, line := range lines {
			err := command(t, map[string]string{"BATCHRESET_REDIS_FILE": user}, strings.Fields(line)...).Err
			if err == nil || !strings.Contains(err.Error(), "NOPERM") && !strings.Contains(err.Error(), "EXECABORT") && !strings.Contains(err.Error(), "must not write operators") {
				t.Errorf("%s with %s: %v", line, user, err)
			}
		}
	}
	clients, err := admin.ClientList(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{"api", "worker"} {
		if n := len(regexp.MustCompile(" sub=[1-9].* user="+user+" ").FindAllString(clients, -1)); n != 1 {
			t.Errorf("%s holds %d subscriptions", user, n)
		}
		t.Logf("%s holds %d connections", user, strings.Count(clients, " user="+user+" "))
	}
	for user, listeners := range map[string][]string{"api": {server, apiOps}, "worker": {workerOps}} {
		if err := admin.Do(t.Context(), "ACL", "SETUSER", user, "resetchannels").Err(); err != nil {
			t.Fatal(err)
		}
		for _, listener := range listeners {
			if status, _, err := onSite(t.Context(), http.MethodGet, listener+"/readyz", nil, nil); err != nil || status != http.StatusInternalServerError {
				t.Errorf("%s/readyz answers %d, %v without channels", listener, status, err)
			}
		}
	}
	worker.stop()
	api.stop()
}

var site = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// onSite sends a request of an operator and returns the status and the cookies of the answer.
func onSite(ctx context.Context, method, address string, form url.Values, session []*http.Cookie) (int, []*http.Cookie, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, err
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range session {
		r.AddCookie(c)
	}
	a, err := site.Do(r)
	if err != nil {
		return 0, nil, err
	}
	return a.StatusCode, a.Cookies(), a.Body.Close()
}

// logIn returns a session, which is good for the sites of all processes.
func logIn(t *testing.T, ops string) (session []*http.Cookie) {
	t.Helper()
	soon(t, func() error { // a slow machine needs seconds for a password
		status, cookies, err := onSite(t.Context(), http.MethodPost, ops+"/login", url.Values{"name": {"alice"}, "password": {"correct horse battery"}}, nil)
		if err == nil && status != http.StatusSeeOther {
			err = fmt.Errorf("log-in answers %d", status)
		}
		session = cookies
		return err
	})
	return session
}

// operatorsSite looks at each page of a process's site, and changes something with its forms.
func operatorsSite(t *testing.T, ops string, session []*http.Cookie, job string) {
	t.Helper()
	ask := func(method, path string, form url.Values, want int) {
		t.Helper()
		status, _, err := onSite(t.Context(), method, ops+path, form, session)
		if err != nil || status != want {
			t.Errorf("%s%s: %s answers %d, %v", ops, path, method, status, err)
		}
	}
	for _, path := range []string{
		"/readyz", "/", "/jobs", "/jobs/" + job, "/failures", "/instances/phone-1", "/tenants", "/audit", "/operators", "/me",
		"/asynq/api/queues", "/asynq/api/queues/webhooks", "/asynq/api/queues/webhooks/completed_tasks", "/asynq/api/servers", "/asynq/api/redis_info",
	} {
		ask(http.MethodGet, path, nil, http.StatusOK)
	}
	for _, path := range []string{"/tenants/halt", "/tenants/resume"} {
		ask(http.MethodPost, path, url.Values{"tenant": {"acme"}, "reason": {"x"}}, http.StatusSeeOther)
	}
	ask(http.MethodPost, "/asynq/api/queues/webhooks:pause", nil, http.StatusNoContent)
	ask(http.MethodPost, "/asynq/api/queues/webhooks:resume", nil, http.StatusNoContent)
}
