package serve

import (
	"log/slog"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestDriversFilesAreRefusedByLine(t *testing.T) {
	const http = "drivers:\n  - name: default\n    type: http\n    url: http://127.0.0.1:1/{instance_id}\n"
	for _, row := range []struct{ name, file, want string }{
		{"an empty file", "", "is empty"},
		{"no list", "drivers: []\n", "lists no driver"},
		{"another key at the top", "driver:\n  - name: a\n", "line 1: field driver not found"},
		{"another file", "root:x:0:0:root\n", "line 1: must be a list of keys and values with the key drivers"},
		{"a list that is none", "drivers: http\n", "line 1: drivers must be a list, with a dash"},
		{"a driver that is a word", "drivers:\n  - http\n", "line 2: a driver must be a list of keys and values"},
		{"no type", "drivers:\n  - name: a\n", "line 2: type is missing: "},
		{"a type that does not exist", "drivers:\n  - name: a\n    type: htpp\n", "line 3: type \"htpp\" does not exist: "},
		{"no name", "drivers:\n  - type: simulator\n", "line 2: name is missing"},
		{"a bad name", "drivers:\n  - type: simulator\n    name: A b\n", "line 3: name \"A b\" is not a driver's name"},
		{"a name twice", "drivers:\n  - name: a\n    type: simulator\n  - name: a\n    type: simulator\n", "line 4: name \"a\" is there twice"},
		{"a key that is not known", http + "    look-url: x\n", "line 5: unknown key \"look-url\"; did you mean \"look_url\"?"},
		{"a key of another type", http + "    latency: 1s\n", "line 5: unknown key \"latency\""},
		{"a key twice", http + "    url: x\n", "line 5: mapping key \"url\" already defined at line 4"},
		{"a rate that is none", http + "    rate: -1\n", "line 5: rate must be"},
		{"a fraction of a call", http + "    concurrency: 0.9\n", "line 5: concurrency must be a whole number, not 0.9"},
		{"a fraction of a status", http + "    definite: [500.5]\n", "line 5: definite must be a whole number, not 500.5"},
		{"a timeout that is too short", http + "    attempt_timeout: 1ms\n", "line 5: attempt_timeout must be at least 1s"},
		{"a duration without a unit", http + "    attempt_timeout: soon\n", "line 5: attempt_timeout must be a time such as 30s"},
		{"a number without a unit", http + "    attempt_timeout: 30\n", "line 5: attempt_timeout must be a time such as 30s"},
		{"a list for a text", http + "    token_file:\n      - a\n", "line 6: token_file must be text, not a list"},
		{"a text for a list", http + "    words: done\n", "line 5: words must be a list"},
		{"a text for a number", http + "    concurrency: s3cret\n", "line 5: concurrency must be a whole number"},
		{"two keys on a line", "drivers: [{name: [a], type: http}]\n", "line 1: a value must be text, not a list"},
		{"a fraction by another name", "drivers:\n  - name: a\n    type: http\n    rate: &x 1.5\n    concurrency: *x\n", "line 5: concurrency must be a whole number, not 1.5"},
		{"a tab", "drivers:\n  - name: a\n\ttype: http\n", "line 3 begins with a tab"},
		{"a setting that is wrong", http + "    definite: [404]\n", "line 5: definite must list statuses from 500 to 599, not 404"},
		{"a secret that is missing", http + "    token_file: /nowhere/token\n", "line 5: token_file: "},
		{"two documents", http + "---\n" + http, "has more than one document"},
		{"what is no YAML", "drivers: [\n", "line "},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := readDrivers(terminaltest.File(t, row.file), slog.New(slog.DiscardHandler))
			if err == nil || !strings.HasPrefix(err.Error(), row.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v, want %q", err, row.want)
			}
		})
	}
}

func TestADriversFileIsRead(t *testing.T) {
	entries, err := readDrivers(terminaltest.File(t, `# our phones
drivers:
  - {name: default, type: simulator, latency: 2s, look: true, concurrency: 3, rate: 0.5, attempt_timeout: 90s}
  - name: lab-1
    type: http
    url: http://127.0.0.1:1/{instance_id}
    words: [done=wiped]
  - {name: tv, type: docker, host: unix:///nowhere, properties: {ro.version: 1.50}} # text, and no number
`), slog.New(slog.DiscardHandler))
	if err != nil || len(entries) != 3 {
		t.Fatalf("%+v, %v", entries, err)
	}
	if e := entries[0]; e.Name != "default" || e.Concurrency != 3 || e.Rate != 0.5 || e.AttemptTimeout.Seconds() != 90 || e.driver == nil {
		t.Errorf("%+v", e)
	}
	results, failed := checkDrivers(t.Context(), entries)
	if failed == nil || !results[0].Works || results[1].Works || !strings.HasPrefix(results[1].Error, "url: the control plane cannot be reached: ") {
		t.Errorf("%+v, %v", results, failed)
	}
}
