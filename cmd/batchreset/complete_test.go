package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal/terminaltest"
	"batchreset/tasks/redisdb/redistest"
)

// bash asks a real bash what it offers for the words, the last of which is incomplete.
func bash(t *testing.T, words ...string) []string {
	t.Helper()
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal(err)
	}
	// The package bash-completion brings what the generated script asks for first; this
	// is as much of it as is needed.
	const script = `
_get_comp_words_by_ref() {
	cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} words=("${COMP_WORDS[@]}") cword=$COMP_CWORD
}
compopt() { :; }
_filedir() { COMPREPLY=($(compgen -f -- "$cur")); }
source <(batchreset completion bash)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
__start_batchreset
printf '%s\n' "${COMPREPLY[@]}"
`
	cmd := exec.CommandContext(t.Context(), shell, append([]string{"--norc", "-c", script, "bash"}, words...)...)
	cmd.Dir = t.TempDir()
	for _, name := range []string{"phones.txt", "fleet.csv"} {
		if err := os.WriteFile(filepath.Join(cmd.Dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The race detector would have each process wait a second at its end.
	cmd.Env = []string{"PATH=" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), "GORACE=atexit_sleep_ms=0"}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var offered []string
	for line := range strings.Lines(string(out)) {
		if word := strings.Fields(line); len(word) > 0 {
			offered = append(offered, word[0]) // without its description
		}
	}
	return offered
}

func TestBashCompletes(t *testing.T) {
	for _, row := range []struct {
		name  string
		words []string
		want  string
	}{
		{"commands", []string{"batchreset", "sub"}, "submit"},
		{"flags", []string{"batchreset", "submit", "--run"}, "--run-id"},
		{"the values of --output", []string{"batchreset", "submit", "--output", ""}, "text json jsonl yaml csv table"},
		{"the values of --output where there are more", []string{"batchreset", "run", "results", "--output", ""}, "text json jsonl yaml csv table junit markdown"},
		{"the values of --fleet", []string{"batchreset", "api", "--fleet", ""}, "registered open"},
		{"the values of --driver", []string{"batchreset", "worker", "--driver", "h"}, "http"},
		{"states", []string{"batchreset", "jobs", "--state", "p"}, "pending partial"},
		{"states to retry", []string{"batchreset", "retry", "--state", ""}, "failed unknown cancelled"},
		{"scopes", []string{"batchreset", "token", "add", "--scope", "c"}, "cancel"},
		{"no files where none belong", []string{"batchreset", "submit", ""}, ""},
		{"no files for a value", []string{"batchreset", "submit", "--run-id", ""}, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := strings.Join(bash(t, row.words...), " "); got != row.want {
				t.Errorf("offers %q, want %q", got, row.want)
			}
		})
	}
}

func TestCompletion(t *testing.T) {
	const file, noFile, extensions = ":0", ":4", ":8"
	for _, row := range []struct{ words, want string }{
		{"submit --file ", file}, // left to the shell, which knows files
		{"submit --result ", file},
		{"retry --failed-from ", file},
		{"submit --token-file ", file},
		{"worker --driver-token-file ", file},
		{"api --redis-file ", file},
		{"api --listen ", noFile},
		{"watch ", noFile},
		{"fleet import ", extensions},
	} {
		out := command(t, nil, append([]string{"__complete"}, strings.Split(row.words, " ")...)...).OK(t).Out
		if !strings.Contains("\n"+out, "\n"+row.want+"\n") {
			t.Errorf("%s: %q, want the directive %s", row.words, out, row.want)
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out := command(t, nil, "completion", shell).OK(t).Out; !strings.Contains(out, "__complete") {
			t.Errorf("no script for %s: %.80q", shell, out)
		}
	}
}

// offered is what the shells are offered after the words, without descriptions.
func offered(t *testing.T, environment map[string]string, words ...string) string {
	t.Helper()
	var all []string
	for line := range strings.Lines(command(t, environment, append([]string{"__complete"}, words...)...).OK(t).Out) {
		if word, _, _ := strings.Cut(strings.TrimSpace(line), "\t"); !strings.HasPrefix(word, ":") {
			all = append(all, word)
		}
	}
	return strings.Join(all, " ")
}

func TestCompletionKnowsWhatThereIs(t *testing.T) {
	t.Parallel()
	s := calltest.NewService(t)
	s.AddLabelled()
	id := func(n string) string { return strings.Repeat("0", 31) + n }
	environment := map[string]string{"BATCHRESET_CONFIG_DIR": filepath.Join(t.TempDir(), "config")}
	command(t, environment, "login", s.URL, "--name", "lab", "--token-file", terminaltest.File(t, calltest.Token)).OK(t)
	environment["BATCHRESET_REDIS"] = redistest.Start(t).URL()
	command(t, environment, "token", "add", "--tenant", "acme").OK(t)
	command(t, environment, "halt", "--tenant", "globex").OK(t)
	for _, row := range []struct{ words, want string }{
		{"status|", id("4") + " " + id("3") + " " + id("2") + " " + id("1")},
		{"status|" + id("1") + "|", ""},
		{"watch|" + id("1") + "|", id("4") + " " + id("3") + " " + id("2")},
		{"cancel|", id("3")},
		{"retry|", id("4") + " " + id("1")},
		{"jobs|--label|", "site=7 site=8"},
		{"watch|--label|", "site=7 site=8"},
		{"retry|--label|", "site=7 site=8"},
		{"submit|--label|", ""},
		{"status|--server|" + s.URL + "|--token|" + calltest.Token + "|", id("4") + " " + id("3") + " " + id("2") + " " + id("1")},
		{"status|--token|wrong|", ""}, // and no error
		{"status|--server|http://127.0.0.1:1|--token|x|", ""},
		{"jobs|--context|", "lab"},
		{"context|use|", "lab"},
		{"context|use|lab|", ""},
		{"logout|--context|", "lab"},
		{"token|add|--tenant|", "acme globex"},
		{"halt|--tenant|", "acme globex"},
		{"audit|--tenant|", "acme globex"},
		{"tenant|list|acme|", "globex"},
		{"halt|--redis|redis://127.0.0.1:1|--tenant|", ""},
	} {
		if got := offered(t, environment, strings.Split(row.words, "|")...); got != row.want {
			t.Errorf("%s offers %q, want %q", row.words, got, row.want)
		}
	}
	t.Run("within a second", func(t *testing.T) {
		var waited atomic.Bool
		silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			waited.Store(true)
			<-r.Context().Done() // until the command gives up
		}))
		defer silent.Close()
		if got := offered(t, environment, "status", "--server", silent.URL, "--token", "x", ""); got != "" || !waited.Load() {
			t.Errorf("offers %q", got)
		}
	})
}
