package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/redisdb/redistest"
)

const nowhere = "redis://127.0.0.1:1"

// A variable of the shell that is not set must not become a default.
func TestAnEmptyListIsRefusedByName(t *testing.T) {
	const run = "run_0123456789ABCDEFGHJKMNPQRS"
	for args, flag := range map[string]string{
		"webhook add --tenant a --url https://a.example/ --events=": "events",
		"retry " + job1 + " --state= --token a":                     "state",
		"run retry " + run + " --state=, --token a":                 "state",
		"run results " + run + " --state= --token a":                "state",
		"run list --label= --token a":                               "label",
		"token add --tenant a --scope= ":                            "scope",
		"key add --tenant a --address=":                             "address",
		"api --cors-origins=":                                       "cors-origins",
	} {
		got := command(t, nil, strings.Fields(args)...)
		got.Exits(t, terminal.ExitUsage)
		got.WantError(t, "it is empty")
		got.WantError(t, "--"+flag)
	}
}

func TestAWrongCommandLineExitsWith64(t *testing.T) {
	var all func(cmd *cobra.Command, path []string)
	all = func(cmd *cobra.Command, path []string) {
		if cmd.Runnable() {
			t.Run(strings.Join(path, " "), func(t *testing.T) {
				command(t, nil, append(path, "--frobnicate")...).Exits(t, terminal.ExitUsage)
				command(t, map[string]string{"BATCHRESET_TOKENS": "x"}, path...).Exits(t, terminal.ExitUsage)
			})
		}
		for _, sub := range cmd.Commands() {
			all(sub, append(slices.Clip(path), sub.Name()))
		}
	}
	for _, cmd := range newRootCommand(&terminal.Streams{}).Commands() {
		all(cmd, []string{cmd.Name()})
	}

	dir := t.TempDir()
	unreadable, secret := filepath.Join(dir, "unreadable.txt"), filepath.Join(dir, "secret.csv")
	for path, text := range map[string]string{unreadable: "a b\n", secret: "x\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{
		"frobnicate",
		"fleet frobnicate",
		"api now",
		"api --job-retention soon",
		"api --fleet shut",
		"api --redis http://localhost",
		"api --redis-file /no/such/file",
		"worker --driver magic",
		"worker --driver http --driver-url https://x.example/{instance_id} --driver-token-file /no/such/file",
		"dev --simulator-latency many",
		"token add",
		"token add --tenant a --ttl soon",
		"token add --tenant a --scope root",
		"token list --redis redis://localhost:x",
		"token revoke",
		"fleet import /no/such.csv",
		"fleet import " + dir,
		"fleet import " + unreadable,
		"fleet import " + secret,
		"fleet protect",
		"tenant list a/b",
		"tenant limit --all --max-failures many",
		"halt",
		"resume --all --own",
		"audit --since yesterday",
		"audit --job x",
		"audit --action frobnicate",
		"operator add alice --role king",
		"webhook add --tenant a --url ftp://x --events frobnicate",
		"healthcheck --url http://[::1",
		"status x",
		"status " + job1 + " --server localhost --token a",
		"status " + job1 + " --timeout 5 --token a",
		"status " + job1 + " --timeout soon --token a",
		"status " + job1 + " --timeout -1s --token a",
		"status " + job1 + " --output xml",
		"status " + job1,
		"status " + job1 + " --token-file /no/such/file",
		"watch",
		"proof x --token a",
		"proof verify",
		"proof verify /no/such/proof",
		"proof verify " + unreadable + " --keys /no/such/keys",
		"proof verify " + unreadable + " --keys " + secret,
		"proof new-key",
		"proof new-key " + secret,
		"api --proof-key-file /no/such/key",
		"api --proof-key-file " + secret,
		"jobs --state done --token a",
		"jobs --limit many",
		"cancel --since yesterday --token a",
		"retry " + job1 + " --state done --token a",
		"retry --failed-from /no/such.csv --token a",
		"submit --token a",
		"submit a/b --token a",
		"submit --file /no/such/list --token a",
		"submit --file " + dir + " --token a",
		"submit --file " + unreadable + " --token a",
		"submit p --result /no/such/folder/r.csv --token a",
		"submit p --run-id ü --token a",
		"submit p --not-before soon --token a",
		"submit p --label = --token a",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			command(t, nil, strings.Fields(args)...).Exits(t, terminal.ExitUsage)
		})
	}
}

func TestExitsWith4WithoutRedis(t *testing.T) {
	fleet := filepath.Join(t.TempDir(), "fleet.csv")
	password := filepath.Join(t.TempDir(), "password")
	for path, text := range map[string]string{fleet: "instance_id,tenant\np,a\n", password: "correct horse battery"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range []string{
		"api", "worker --driver simulator", "dev", "audit", "halt --all", "resume --all",
		"fleet list", "fleet protect p", "fleet unprotect p", "fleet remove p", "fleet import " + fleet,
		"token list", "token add --tenant a", "token revoke x",
		"tenant list", "tenant limit --all --max-failures 1",
		"operator list", "operator add alice --password-file " + password, "operator passwd alice --password-file " + password, "operator remove alice",
		"webhook list", "webhook add --tenant a --url https://192.0.2.1/ --webhook-allow-private",
		"webhook remove x", "webhook enable x", "webhook rotate x", "webhook test x",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			command(t, map[string]string{"BATCHRESET_REDIS": nowhere}, strings.Fields(args)...).Exits(t, terminal.ExitAway)
		})
	}
}

func TestExitCodesOfWhatIsNotThere(t *testing.T) {
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	for _, args := range []string{
		"token revoke ffff", "operator remove bob", "operator passwd bob", "webhook remove ep_x", "webhook test ep_x",
		"fleet protect phone-8 phone-9", "fleet remove phone-9",
	} {
		command(t, environment, strings.Fields(args)...).Exits(t, terminal.ExitRefused)
	}
	file := filepath.Join(t.TempDir(), "fleet.csv")
	if err := os.WriteFile(file, []byte("instance_id,tenant\nphone-1,acme\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, environment, "fleet", "import", file).OK(t)
	command(t, environment, "fleet", "protect", "phone-1", "phone-9").Exits(t, terminal.ExitSome)
	if err := os.WriteFile(file, []byte("instance_id\nphone-2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, environment, "fleet", "import", file).Exits(t, terminal.ExitUsage)
	taken := httptest.NewServer(http.NotFoundHandler())
	defer taken.Close()
	command(t, environment, "api", "--listen", strings.TrimPrefix(taken.URL, "http://")).Exits(t, terminal.ExitOther)
	command(t, environment, "api", "--listen", "nonsense").Exits(t, terminal.ExitUsage)
}

func TestExitCodesByWhatTheServerSays(t *testing.T) {
	commands := []string{"status " + job1, "proof " + job1, "watch " + job1, "jobs", "cancel " + job1, "cancel --all", "retry " + job1, "submit phone-1", "submit phone-1 --dry-run", "submit phone-1 --run-id k", "submit phone-1 --run-id k --dry-run"}
	for answer, code := range map[int]int{
		400: terminal.ExitRefused, 401: terminal.ExitRefused, 403: terminal.ExitRefused, 404: terminal.ExitRefused, 409: terminal.ExitRefused, 413: terminal.ExitRefused, 422: terminal.ExitRefused, 418: terminal.ExitRefused,
		200: terminal.ExitAway, 301: terminal.ExitAway, 500: terminal.ExitAway, 502: terminal.ExitAway, 507: terminal.ExitAway,
	} {
		for kind, body := range map[string]string{"the service's": `{"error_code":"RESET.0009","error_msg":"no"}`, "a proxy's": "<html>"} {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(answer)
				_, _ = fmt.Fprint(w, body)
			}))
			t.Cleanup(server.Close)
			for _, args := range commands {
				t.Run(fmt.Sprintf("%s after %s %d", args, kind, answer), func(t *testing.T) {
					t.Parallel()
					command(t, nil, append(strings.Fields(args), "--server", server.URL, "--token", "a")...).Exits(t, code)
				})
			}
			if answer >= 400 {
				t.Run(fmt.Sprintf("healthcheck after %s %d", kind, answer), func(t *testing.T) {
					t.Parallel()
					command(t, nil, "healthcheck", "--url", server.URL).Exits(t, code)
				})
			}
		}
	}
	closed := httptest.NewServer(nil)
	closed.Close()
	for _, args := range append(commands, "healthcheck --url "+closed.URL) {
		t.Run(args+" without a server", func(t *testing.T) {
			t.Parallel()
			args := strings.Fields(args)
			if args[0] != "healthcheck" {
				args = append(args, "--server", closed.URL, "--token", "a")
			}
			command(t, nil, args...).Exits(t, terminal.ExitAway)
		})
	}
	t.Run("a change that is one too many", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { calltest.AnswerError(w, 429, "APIGW.0308", "quota") }))
		defer server.Close()
		command(t, nil, "retry", job1, "--server", server.URL, "--token", "a").Exits(t, terminal.ExitRefused)
	})
}

func TestTheHelpHasEveryExitCode(t *testing.T) {
	help := command(t, nil, "help", "exit-codes").OK(t).Out
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []int{0, terminal.ExitOther, terminal.ExitSome, terminal.ExitRefused, terminal.ExitAway, terminal.ExitUsage, terminal.ExitTimeout, terminal.ExitSignal + int(syscall.SIGINT)} {
		if !strings.Contains(help, fmt.Sprintf("\n  %-4d ", code)) || !strings.Contains(string(readme), fmt.Sprintf("\n| %d | ", code)) {
			t.Errorf("code %d is not in the help or the README:\n%s", code, help)
		}
	}
}
