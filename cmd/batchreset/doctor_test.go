package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
	"batchreset/tasks/redisdb/redistest"
)

// doctor runs it, and returns the verdict on each subject, what was seen, what was advised, and what was not looked at.
func doctor(t *testing.T, environment map[string]string, args ...string) (verdicts, texts map[string]string, skipped string, code int) {
	t.Helper()
	r := command(t, environment, append([]string{"doctor", "-o", "json"}, args...)...)
	document := oneObject(t, r.Out)
	verdicts, texts = map[string]string{}, map[string]string{}
	findings, _ := document["findings"].([]any)
	failed := false
	for _, one := range findings {
		f, _ := one.(map[string]any)
		subject, _ := f["subject"].(string)
		verdict, _ := f["verdict"].(string)
		seen, _ := f["seen"].(string)
		advice, _ := f["advice"].(string)
		verdicts[subject] += verdict
		texts[subject] += seen + " | " + advice + "\n"
		failed = failed || verdict == "fail"
		if seen == "" || (advice == "") != (verdict == "ok") || !slices.Contains([]string{"ok", "warn", "fail"}, verdict) {
			t.Errorf("finding %v", f)
		}
	}
	notChecked, _ := document["not_checked"].([]any)
	for _, one := range notChecked {
		u, _ := one.(map[string]any)
		what, _ := u["what"].(string)
		why, _ := u["why"].(string)
		skipped += what + ": " + why + "\n"
	}
	if want := map[bool]int{true: terminal.ExitSome}[failed]; r.Code != want {
		t.Errorf("exit code %d, want %d: %s", r.Code, want, r.Said)
	}
	return verdicts, texts, skipped, r.Code
}

// saysAll wants parts of what was said of subjects.
func saysAll(t *testing.T, texts map[string]string, parts map[string]string) {
	t.Helper()
	for subject, part := range parts {
		if !strings.Contains(texts[subject], part) {
			t.Errorf("of %s it says %q, want %q", subject, texts[subject], part)
		}
	}
}

func TestDoctorAsCaller(t *testing.T) {
	t.Run("of a service that is well", func(t *testing.T) {
		s := calltest.NewService(t)
		s.ExpiresAt = time.Now().AddDate(0, 2, 0)
		verdicts, texts, skipped, _ := doctor(t, nil, "--server", s.URL, "--token", calltest.Token)
		for _, subject := range []string{"server", "ready", "tls", "clock", "credentials", "scopes", "expiry"} {
			if verdicts[subject] != "ok" {
				t.Errorf("%s is %q: %s", subject, verdicts[subject], texts[subject])
			}
		}
		saysAll(t, texts, map[string]string{"server": "version v1.2.3", "credentials": "tenant acme", "scopes": "submit, read, cancel; not operate, approve", "tls": "this machine alone"})
		if skipped != "the service as an operator: neither --redis nor --redis-file names its Redis\n" {
			t.Errorf("not checked: %s", skipped)
		}
	})
	t.Run("shows the same to people", func(t *testing.T) {
		s := calltest.NewService(t)
		r := command(t, map[string]string{"BATCHRESET_SERVER": s.URL, "BATCHRESET_TOKEN": "wrong"}, "doctor")
		line := regexp.MustCompile(`(?m)^  fail  credentials  APIGW.0301.*\n {8}             do: give another --token`)
		if r.Code != terminal.ExitSome || !line.MatchString(r.Out) || !strings.Contains(r.Out, "\nnot checked: the service as an operator: ") {
			t.Errorf("exit code %d\n%s", r.Code, r.Out)
		}
	})
	t.Run("with a context", func(t *testing.T) {
		s := calltest.NewService(t)
		environment := map[string]string{"BATCHRESET_CONFIG_DIR": filepath.Join(t.TempDir(), "config")}
		command(t, environment, "login", s.URL, "--name", "lab", "--token-file", terminaltest.File(t, calltest.Token)).OK(t)
		_, texts, _, _ := doctor(t, environment)
		saysAll(t, texts, map[string]string{"server": ", the context lab answers", "credentials": "tenant acme"})
	})
	t.Run("of a token that ends soon", func(t *testing.T) {
		s := calltest.NewService(t)
		s.ExpiresAt = time.Now().Add(time.Hour)
		verdicts, texts, _, code := doctor(t, nil, "--server", s.URL, "--token", calltest.Token)
		if verdicts["expiry"] != "warn" || code != 0 {
			t.Errorf("%s, exit code %d", texts["expiry"], code)
		}
	})
	t.Run("without a token looks at the server alone", func(t *testing.T) {
		s := calltest.NewService(t)
		verdicts, _, skipped, _ := doctor(t, nil, "--server", s.URL)
		if verdicts["server"] != "ok" || verdicts["credentials"] != "" || !strings.Contains(skipped, "credentials: --token is missing") {
			t.Errorf("%v, not checked: %s", verdicts, skipped)
		}
	})
	for name, row := range map[string]struct {
		answer  http.HandlerFunc
		subject string
		want    string
	}{
		"of a clock that is ahead": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat))
			calltest.AnswerOK(w, map[string]any{"version": "v1", "accepting": true})
		}, "clock", "this machine's clock is 1h0m0s ahead of the server's | set this machine's clock"},
		"of a clock that is behind": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			calltest.AnswerOK(w, map[string]any{"version": "v1", "accepting": true})
		}, "clock", "this machine's clock is 1h0m0s behind the server's"},
		"of a Redis that is nearly full": {func(w http.ResponseWriter, _ *http.Request) {
			calltest.AnswerOK(w, map[string]any{"version": "v1", "accepting": false})
		}, "ready", "it takes no new work for now"},
		"of a service without its Redis": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/readyz" {
				calltest.AnswerError(w, 500, "KOOPHONE.API.9999", "Redis does not answer")
				return
			}
			calltest.AnswerOK(w, map[string]any{"version": "v1"})
		}, "ready", "it cannot work: KOOPHONE.API.9999: Redis does not answer"},
		"of something else": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "server", "Something else answers there"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(row.answer)
			defer server.Close()
			_, texts, _, _ := doctor(t, nil, "--server", server.URL, "--token", "a")
			saysAll(t, texts, map[string]string{row.subject: row.want})
		})
	}
	t.Run("of no server", func(t *testing.T) {
		verdicts, texts, skipped, _ := doctor(t, nil, "--server", "http://127.0.0.1:1", "--token", "a")
		if verdicts["server"] != "fail" || !strings.Contains(texts["server"], "is the service running") || !strings.Contains(skipped, "credentials: the server does not answer") {
			t.Errorf("%v, not checked: %s", texts, skipped)
		}
	})
	t.Run("of a certificate that nobody knows", func(t *testing.T) {
		server := httptest.NewTLSServer(http.NotFoundHandler())
		defer server.Close()
		_, texts, _, _ := doctor(t, nil, "--server", server.URL, "--token", "a")
		saysAll(t, texts, map[string]string{"server": "--ca-file"})
	})
	t.Run("of a wrong command line", func(t *testing.T) {
		for want, args := range map[string][]string{
			"there is nothing to look at":            nil,
			"--token-file: open /no/such/file":       {"--server", "http://127.0.0.1:1", "--token-file", "/no/such/file"},
			"--context: there is no context nope":    {"--context", "nope", "--config-dir", t.TempDir(), "--redis", nowhere},
			"--redis: is not a URL":                  {"--redis", "localhost"},
			"--redis-file: open /no/such/file":       {"--redis-file", "/no/such/file"},
			"server \"localhost\" is not a URL such": {"--server", "localhost", "--token", "a"},
		} {
			command(t, nil, append([]string{"doctor"}, args...)...).Wants(t, terminal.ExitUsage, "", want)
		}
	})
}

func TestDoctorAsOperator(t *testing.T) {
	t.Parallel()
	t.Run("of a Redis that nobody works on", func(t *testing.T) {
		redis := redistest.Start(t, "maxmemory 100mb")
		environment := map[string]string{"BATCHRESET_REDIS": redis.URL()}
		verdicts, texts, skipped, _ := doctor(t, environment)
		for subject, want := range map[string]string{
			"redis": "ok", "eviction": "ok", "persistence": "ok", "memory": "ok", "rights": "ok", "clock": "ok", "workers": "fail", "drivers": "ok", "sweeper": "fail", "queues": "ok", "halts": "ok",
			"files": "ok", "expiry": "ok", "space": "ok",
		} {
			if verdicts[subject] != want {
				t.Errorf("%s is %q, want %s: %s", subject, verdicts[subject], want, texts[subject])
			}
		}
		if !strings.HasPrefix(skipped, "the service as a caller: --token is missing") {
			t.Errorf("not checked: %s", skipped)
		}
		admin := redis.Client(t)
		if err := admin.MSet(t.Context(), "reset:lock:{phone-1}", "x", "somebody else's", strings.Repeat("x", 1<<20)).Err(); err != nil {
			t.Fatal(err)
		}
		verdicts, texts, _, _ = doctor(t, environment)
		if verdicts["expiry"] != "warn" {
			t.Errorf("a lock that lasts: %v", verdicts)
		}
		saysAll(t, texts, map[string]string{"expiry": "1 key without an expiry that should have one, such as reset:lock:{phone-1}", "space": "other keys 1.", "files": "the append-only file has "})
		r := command(t, environment, "doctor")
		if table := regexp.MustCompile(`(?s)What fills Redis .* keys\.\n  FAMILY +KEYS +MEMORY\n  other keys +1 +1\.\d MiB\n.*  LARGEST KEYS +MEMORY\n  somebody else's +1\.`); !table.MatchString(r.Out) {
			t.Errorf("no table in\n%s", r.Out)
		}
		for _, set := range [][2]string{{"appendonly", "no"}, {"maxmemory-policy", "allkeys-lru"}, {"maxmemory", "1mb"}} {
			if err := admin.ConfigSet(t.Context(), set[0], set[1]).Err(); err != nil {
				t.Fatal(err)
			}
		}
		verdicts, texts, _, _ = doctor(t, environment)
		if verdicts["eviction"] != "fail" || verdicts["persistence"] != "warn" || verdicts["room"] != "fail" {
			t.Errorf("%v", verdicts)
		}
		saysAll(t, texts, map[string]string{"eviction": "may evict jobs", "persistence": "a crash loses everything"})
		if err := admin.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
			t.Fatal(err)
		}
		if verdicts, _, _, _ = doctor(t, environment); verdicts["memory"] != "warn" {
			t.Errorf("no bound: %v", verdicts)
		}
	})
	t.Run("of no Redis", func(t *testing.T) {
		verdicts, _, skipped, _ := doctor(t, nil, "--redis", nowhere)
		if verdicts["redis"] != "fail" || !strings.Contains(skipped, "Redis cannot be asked") {
			t.Errorf("%v, not checked: %s", verdicts, skipped)
		}
	})
	t.Run("of users with few rights", func(t *testing.T) {
		redis := redistest.StartWithUsers(t, usersFile)
		for user, want := range map[string]string{"api": "may do what api has to, and not the rest", "worker": "may do what worker has to, and not the rest", "operator": "may do what api and worker have to"} {
			verdicts, texts, _, _ := doctor(t, map[string]string{"BATCHRESET_REDIS_FILE": urlFile(t, redis, user)})
			if verdicts["rights"] != "ok" || !strings.Contains(texts["rights"], want) || verdicts["halts"] != "ok" || verdicts["space"] != "ok" {
				t.Errorf("%s: %v, %s", user, verdicts, texts["rights"])
			}
		}
		if err := redis.Client(t).Do(t.Context(), "ACL", "SETUSER", "poor", "on", ">poor_password", "~reset:*", "+@all", "-@dangerous", "+info").Err(); err != nil {
			t.Fatal(err)
		}
		verdicts, texts, _, _ := doctor(t, nil, "--redis", redis.URLOf("poor"))
		if verdicts["rights"] != "fail" || !strings.Contains(texts["rights"], `the Redis user "poor" must not write keys like asynq:queues`) || verdicts["halts"] != "ok" {
			t.Errorf("%v, %s", verdicts, texts["rights"])
		}
	})
	t.Run("of a service with workers", func(t *testing.T) {
		environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t, "maxmemory 100mb").URL()}
		fleet := filepath.Join(t.TempDir(), "fleet.csv")
		if err := os.WriteFile(fleet, []byte("instance_id,tenant,driver\nphone-1,acme,\nphone-2,acme,lab\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		command(t, environment, "fleet", "import", fleet).OK(t)
		worker := startIn(t, []string{"BATCHRESET_REDIS=" + environment["BATCHRESET_REDIS"]}, "worker", "--driver", "simulator", "--ops-listen", "127.0.0.1:0")
		worker.logged("worker started")
		for _, args := range [][]string{{"--tenant", "acme"}, {"--all", "--reason", "fire"}} {
			command(t, environment, append([]string{"halt"}, args...)...).OK(t)
		}
		var verdicts, texts map[string]string
		soon(t, func() error {
			verdicts, texts, _, _ = doctor(t, environment)
			if verdicts["sweeper"] != "ok" || verdicts["workers"] != "ok" {
				return errNotYet
			}
			return nil
		})
		saysAll(t, texts, map[string]string{
			"workers": "1 process; driver default: 1", "drivers": "no worker has the driver of 1 instance of driver lab", "halts": "tenant acme halted by the operators",
		})
		if verdicts["drivers"] != "warn" || verdicts["halts"] != "warnwarn" || !strings.Contains(texts["halts"], "all tenants halted by the operators") || !strings.Contains(texts["halts"], "fire | 'batchreset resume --all' ends it") {
			t.Errorf("%v\n%s", verdicts, texts["halts"])
		}
		worker.stop()
	})
}

var errNotYet = errors.New("not yet")
