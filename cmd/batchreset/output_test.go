package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/tasks"
	"batchreset/tasks/redisdb/redistest"
)

// oneObject reads a text that must be one JSON object and nothing else.
func oneObject(t *testing.T, text string) map[string]any {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	var object map[string]any
	if err := decoder.Decode(&object); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		t.Fatalf("more than one object: %s", text)
	}
	return object
}

func keysOf(object map[string]any) string {
	return strings.Join(slices.Sorted(maps.Keys(object)), " ")
}

// TestCallersOutput has every caller's command print in every form.
func TestCallersOutput(t *testing.T) {
	for _, row := range []struct {
		args string // a % stands for the forms
		code int
		keys string // of the document
		rows int
		head string // of CSV, in part
	}{
		{"jobs", 0, "jobs", 3, "job_id,state,created_at"},
		{"jobs --state failed --instance none", 0, "jobs", 0, "job_id,"},
		{"status " + job1, 0, "counts created_at finished_at items job_id labels request_id started_at state total", 2, "instance_id,job_id,item_id,state"},
		{"watch " + job1, 2, "errors jobs", 2, "instance_id,"},
		{"watch " + job1 + " " + job2, 2, "errors jobs", 3, "instance_id,"},
		{"cancel " + job1, 0, "errors jobs", 2, "instance_id,"},
		{"cancel " + job1 + " " + job2, 0, "errors jobs", 3, "instance_id,"},
		{"cancel --instance none", 0, "errors jobs", 0, "instance_id,"},
		{"watch --label site=7", 2, "errors jobs", 3, "instance_id,"},
		{"retry " + job1, 0, "errors jobs", 2, "instance_id,"},
		{"retry " + job1 + " --wait", 2, "errors jobs", 2, "instance_id,"},
		{"retry --label site=8", 0, "errors jobs", 0, "instance_id,"},
		{"submit a", 0, "errors jobs", 1, "instance_id,"},
		{"submit a failed-b c --wait", 2, "errors jobs", 3, "instance_id,"},
		{"submit a failed-b --run-id k", 2, "counts created_at failures finished_at list_sha256 max_parallel repeats request_id round run_id started_at state total", 1, "run_id,name,state"},
		{"submit a --run-id k --wait=false", 0, "counts created_at list_sha256 max_parallel repeats request_id round run_id stage started_at state total", 1, "run_id,name,state"},
		{"run list", 0, "runs", 2, "run_id,name,state"},
		{"run show " + run1, 0, "counts created_at list_sha256 max_parallel repeats request_id round run_id stage started_at state total", 1, "run_id,name,state"},
		{"run watch " + run1, 2, "counts created_at failures finished_at list_sha256 max_parallel repeats request_id round run_id started_at state total", 1, "run_id,name,state"},
		{"run pause " + run1, 0, "counts created_at list_sha256 max_parallel repeats request_id round run_id stage started_at state total", 1, "run_id,name,state"},
		{"run reject " + run2 + " --comment c", 0, "counts created_at list_sha256 max_parallel repeats request_id round run_id started_at state total", 1, "run_id,name,state"},
		{"run results " + run1, 0, "instances", 2, "instance_id,job_id,item_id,state"},
		{"run submit a", 0, "counts created_at list_sha256 max_parallel repeats request_id round run_id stage started_at state total", 1, "run_id,name,state"},
		{"run submit a --dry-run", 0, "dry_run instances", 1, "instance_id,verdict"},
		{"proof " + job1, 0, "job_id proof", 1, "job_id,proof"},
		{"whoami", 0, "created_at expires_at scopes server tenant token_id", 1, "server,context,tenant"},
		{"context list", 0, "contexts", 0, "name,server,current"},
		{"version", 0, "version", 1, "version"},
	} {
		t.Run(row.args, func(t *testing.T) {
			shown := func(form string) string {
				s := calltest.NewService(t)
				s.Add("failed-1", "phone-2")
				s.Add("phone-3")
				s.Add("phone-4", "phone-5")
				s.AddRun("failed-1", "phone-2")
				s.AddRun("phone-6").State = tasks.RunWaiting
				s.Looks = map[bool]int{true: 9}[strings.HasPrefix(row.args, "run show")]
				s.Jobs[0].Labels, s.Jobs[1].Labels = map[string]string{"site": "7"}, map[string]string{"site": "7"}
				args := append(strings.Fields(row.args), "-o", form)
				if name := args[0]; name != "context" && name != "version" {
					args = append(args, "--server", s.URL, "--token", calltest.Token)
				}
				r := command(t, nil, args...)
				if r.Code != row.code {
					t.Errorf("%s: exit code %d, want %d: %s", form, r.Code, row.code, r.Said)
				}
				return r.Out
			}
			document := oneObject(t, shown("json"))
			if got := keysOf(document); got != row.keys {
				t.Errorf("the object has %s", got)
			}
			var same map[string]any
			if err := yaml.Unmarshal([]byte(shown("yaml")), &same); err != nil || keysOf(same) != row.keys {
				t.Errorf("YAML has %s, %v", keysOf(same), err)
			}
			lines := strings.Split(strings.TrimSuffix(shown("jsonl"), "\n"), "\n")
			if row.rows == 0 {
				lines = lines[1:]
			}
			for _, line := range lines {
				oneObject(t, line)
			}
			cells, err := csv.NewReader(strings.NewReader(shown("csv"))).ReadAll()
			if err != nil || len(lines) != row.rows || len(cells) != row.rows+1 {
				t.Fatalf("%d lines, %d rows of CSV, want %d; %v", len(lines), len(cells)-1, row.rows, err)
			}
			if head := strings.Join(cells[0], ","); !strings.HasPrefix(head, row.head) {
				t.Errorf("the columns are %s", head)
			}
			if table := shown("table"); strings.Count(table, "\n") != row.rows+1 && row.rows > 0 {
				t.Errorf("table\n%s", table)
			}
		})
	}
}

func TestOperatorsOutput(t *testing.T) {
	t.Parallel()
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	dir := t.TempDir()
	fleet, password := filepath.Join(dir, "fleet.csv"), filepath.Join(dir, "password")
	for path, text := range map[string]string{fleet: "instance_id,tenant,protected\nphone-1,acme,true\nphone-2,acme,\n", password: "correct horse battery"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, list := range []string{"token", "fleet", "operator", "webhook", "tenant"} {
		for name, all := range oneObject(t, command(t, environment, list, "list", "-o", "json").OK(t).Out) {
			if array, ok := all.([]any); !ok || len(array) > 0 && list != "tenant" {
				t.Errorf("an empty list of %s is %v", name, all)
			}
		}
	}
	for _, row := range []struct{ args, keys string }{
		{"token add --tenant acme", "created_at expires_at kind scopes tenant token token_id"},
		{"fleet import " + fleet, "identical_rows_left_out moved new protection_begun protection_ended readdressed reassigned registered"},
		{"fleet protect phone-2", "instance_ids not_registered unchanged"},
		{"fleet unprotect phone-2", "instance_ids not_registered"},
		{"fleet remove phone-2", "instance_ids not_registered"},
		{"halt --tenant acme", "halted tenant"},
		{"halt --all", "all halted"},
		{"resume --all", "all resumed"},
		{"tenant limit --tenant acme --max-failures 3", "max_failures tenant"},
		{"operator add alice --password-file " + password, "created_at name role"},
		{"operator passwd alice --password-file " + password, "name new_password"},
		{"webhook add --tenant acme --url http://127.0.0.1:1/ --webhook-allow-private", "created_at endpoint_id events secret tenant url"},
		{"token list", "tokens"},
		{"fleet list", "instances"},
		{"operator list", "operators"},
		{"webhook list", "endpoints"},
		{"tenant list", "tenants"},
		{"audit", "entries"},
		{"operator remove alice", "name removed"},
	} {
		t.Run(row.args, func(t *testing.T) {
			out := command(t, environment, append(strings.Fields(row.args), "-o", "json")...).OK(t).Out
			document := oneObject(t, out)
			if got := keysOf(document); got != row.keys {
				t.Errorf("the object has %s", got)
			}
			if strings.Contains(out, "battery") || strings.Contains(out, "$2a$") {
				t.Error("it has a password")
			}
			if len(document) != 1 {
				return
			}
			for _, form := range []string{"yaml", "jsonl", "csv", "table", "text"} {
				if out := command(t, environment, append(strings.Fields(row.args), "--output="+form)...).OK(t).Out; len(out) < 20 {
					t.Errorf("%s is %q", form, out)
				}
			}
		})
	}
	t.Run("a fleet goes out and in", func(t *testing.T) {
		out := command(t, environment, "fleet", "list", "-o", "csv").OK(t).Out
		if !strings.HasPrefix(out, "instance_id,tenant,protected,protected_by,protected_reason,protected_since,protected_until,driver,address,labels,generation\nphone-1,acme,true,user ") {
			t.Errorf("CSV %q", out)
		}
		if err := os.WriteFile(fleet, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
		command(t, environment, "fleet", "import", fleet).OK(t)
	})
	t.Run("a list that is partly wrong", func(t *testing.T) {
		r := command(t, environment, "fleet", "protect", "phone-1", "phone-9", "-o", "json")
		r.WantError(t, "not registered: phone-9")
		want := map[string]any{"instance_ids": []any{"phone-1"}, "not_registered": []any{"phone-9"}, "unchanged": []any{}}
		if got := oneObject(t, r.Out); !reflect.DeepEqual(got, want) {
			t.Errorf("object %v", got)
		}
	})
}

// TestErrorsForPrograms has an error be one object, wherever it comes from.
func TestErrorsForPrograms(t *testing.T) {
	s := calltest.NewService(t)
	for _, row := range []struct{ args, code string }{
		{"status " + job1 + " -o json", "RESET.0001"},
		{"status " + job1 + " --output=jsonl", "RESET.0001"},
		{"status -ojson", ""},
		{"status x --output json", ""},
		{"status --nonsense -o json " + job1, ""},
		{"frobnicate -o json", ""},
		{"cancel " + job1 + " -qo json", "RESET.0001"},
	} {
		r := command(t, nil, append(strings.Fields(row.args), "--server", s.URL, "--token", calltest.Token)...)
		got := oneObject(t, r.Said)
		if code, _ := got["error_code"].(string); code != row.code || got["error_msg"] == "" || got["exit_code"] != float64(r.Code) || r.Code == 0 {
			t.Errorf("%s ends with %d and says %s", row.args, r.Code, r.Said)
		}
		if row.code != "" && (got["http_status"] != float64(404) || got["request_id"] == "") {
			t.Errorf("%s says %s", row.args, r.Said)
		}
		if r.Out != "" {
			t.Errorf("%s prints %q", row.args, r.Out)
		}
	}
	for _, args := range [][]string{{"retry", job1}, {"watch", job1}} { // the errors of a part
		document := oneObject(t, command(t, nil, append(args, "-o", "json", "--server", s.URL, "--token", calltest.Token)...).Out)
		part, _ := document["errors"].([]any)
		if len(part) != 1 {
			t.Fatalf("%v prints %v", args, document)
		}
		got, _ := part[0].(map[string]any)
		code, _ := got["error_code"].(string)
		if message, _ := got["error_msg"].(string); code == "" || message == "" || strings.Contains(message, code) || strings.Contains(message, "HTTP") {
			t.Errorf("%v says %v", args, got)
		}
		if args[0] != "watch" && (got["http_status"] == nil || got["request_id"] == nil) { // which has only not found it
			t.Errorf("%v says %v", args, got)
		}
	}
	r := command(t, nil, "status", job1, "-o", "yaml", "--server", s.URL, "--token", calltest.Token)
	if !strings.HasPrefix(r.Said, "error_code: RESET.0001\n") {
		t.Errorf("as YAML: %s", r.Said)
	}
}
