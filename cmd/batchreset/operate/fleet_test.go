package operate

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal/terminaltest"
	"batchreset/tasks/redisdb/redistest"
)

func TestFleetCommands(t *testing.T) {
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	file := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, row := range []struct{ name, file, content, want string }{
		{"an empty file", "f.csv", "", "is empty"},
		{"a file without instances", "f.csv", "instance_id,tenant\n", "lists no instance"},
		{"a file without a header", "f.csv", "phone-1,acme\n", "it must name columns of instance_id, tenant, protected"},
		{"a bad instance", "f.csv", "instance_id,tenant\nphone-1,acme\na b,acme\n", "line 3: instance_id"},
		{"a missing tenant", "f.csv", "instance_id,tenant\nphone-1,\n", "line 2: tenant"},
		{"protection that is neither", "f.csv", "instance_id,tenant,protected\nphone-1,acme,maybe\n", "line 2: protected"},
		{"a short line", "f.csv", "instance_id,tenant\nphone-1\n", "line 2"},
		{"JSON that is none", "f.json", "phone-1", "is not JSON"},
		{"a misspelt field", "f.json", `[{"instance_id":"a","tenant":"b","protect":true}]`, "protect"},
		{"a bad entry", "f.json", `[{"instance_id":"a"}]`, "entry 0: instance a is not registered yet, and tenant is missing"},
		{"two arrays", "f.json", `[][]`, "after top-level value"},
		{"a column that is not known", "f.csv", "instance_id,tenant,owner\nphone-1,acme,x\n", `line 1: unknown column "owner"`},
		{"a column in another case", "f.csv", "instance_id,tenant,Protected\nphone-1,acme,true\n", `line 1: unknown column "Protected"; did you mean "protected"?`},
		{"a column cut short", "f.csv", "instance_id,tenant,protect\nphone-1,acme,true\n", `unknown column "protect"; did you mean "protected"?`},
		{"a column twice", "f.csv", "instance_id,tenant,protected,protected\nphone-1,acme,true,false\n", "line 1: the column protected is there twice"},
		{"a column without a name", "f.csv", "instance_id,tenant,\nphone-1,acme,\n", `unknown column ""`},
		{"semicolons", "f.csv", "instance_id;tenant\nphone-1;acme\n", "unknown column"},
		{"no instances", "f.csv", "tenant,protected\nacme,true\n", "instance_id"},
		{"a long line", "f.csv", "instance_id,tenant\nphone-1,acme,true\n", "line 2: wrong number of fields"},
		{"an open quote", "f.csv", "instance_id,tenant\n\"phone-1,acme\n", "line 2"},
		{"spaces around a cell", "f.csv", "instance_id,tenant\nphone-1, acme\n", "line 2: tenant"},
		{"rows that differ", "f.csv", "instance_id,tenant,protected\nphone-1,acme,true\nphone-2,acme,\nphone-1,acme,false\n", "line 4: instance phone-1 is in line 2 already"},
		{"rows of two tenants", "f.csv", "instance_id,tenant\nphone-1,acme\n\nphone-1,other\n", "line 4: instance phone-1 is in line 2 already"},
		{"a row that says less", "f.csv", "instance_id,tenant,protected\nphone-1,acme,true\nphone-1,acme,\n", "line 3: instance phone-1 is in line 2 already"},
		{"no tenant for a new one", "f.csv", "instance_id,protected\nphone-1,true\n", "line 2: instance phone-1 is not registered yet, and tenant is missing"},
		{"a field in another case", "f.json", `[{"instance_id":"a","tenant":"b","Protected":true}]`, `unknown field "Protected" in [0]; did you mean "protected"?`},
		{"a field twice", "f.json", `[{"instance_id":"a","tenant":"b"},{"instance_id":"c","tenant":"b","protected":true,"protected":false}]`, `the field "protected" twice in [1]`},
		{"a null", "f.json", `[{"instance_id":"a","tenant":"b","protected":null}]`, "entry 0: protected must be true or false"},
		{"a null tenant", "f.json", `[{"instance_id":"a","tenant":null}]`, "entry 0: tenant must be a string"},
		{"an empty tenant", "f.json", `[{"instance_id":"a","tenant":""}]`, "entry 0: tenant"},
		{"a null for an entry", "f.json", `[null]`, "entry 0 must be an object"},
		{"protection in words", "f.json", `[{"instance_id":"a","tenant":"b","protected":"true"}]`, "entry 0: protected must be true or false"},
		{"no instance", "f.json", `[{"tenant":"b"}]`, "entry 0: instance_id"},
		{"an object", "f.json", `{"instance_id":"a","tenant":"b"}`, "must be a JSON array"},
		{"null for all", "f.json", `null`, "must be a JSON array"},
		{"entries that differ", "f.json", `[{"instance_id":"a","tenant":"b"},{"instance_id":"a","tenant":"c"}]`, "entry 1: instance a is in entry 0 already"},
		{"an address with a space", "f.csv", "instance_id,tenant,address\nphone-1,acme,a b\n", "line 2: address"},
		{"a long address", "f.json", `[{"instance_id":"a","tenant":"b","address":"` + strings.Repeat("x", 257) + `"}]`, "entry 0: address is 257 bytes long"},
		{"an address that is none", "f.json", `[{"instance_id":"a","tenant":"b","address":7}]`, "entry 0: address must be a string"},
		{"labels without values", "f.csv", "instance_id,tenant,labels\nphone-1,acme,rack\n", "line 2: labels must be like name=value"},
		{"a label twice", "f.csv", "instance_id,tenant,labels\nphone-1,acme,a=1;a=2\n", "line 2: labels must be like name=value"},
		{"labels of another kind", "f.json", `[{"instance_id":"a","tenant":"b","labels":{"a":1}}]`, "entry 0: labels must be an object of strings"},
		{"labels that are null", "f.json", `[{"instance_id":"a","tenant":"b","labels":null}]`, "entry 0: labels must be an object of strings"},
		{"too many labels", "f.csv", "instance_id,tenant,labels\nphone-1,acme,a=1;b=1;c=1;d=1;e=1;f=1;g=1;h=1;i=1\n", "line 2: labels has 9 labels"},
		{"a cut file", "f.json", `[{"instance_id":"a","tenant":"b"}`, "ends too early"},
	} {
		t.Run("refuses "+row.name, func(t *testing.T) {
			command(t, environment, "fleet", "import", file(row.file, row.content)).WantError(t, row.want)
			if out := command(t, environment, "fleet", "list", "--output", "jsonl").OK(t).Out; out != "" {
				t.Errorf("registered all the same: %s", out)
			}
		})
	}
	command(t, environment, "fleet", "import", file("f.csv", "\ufeffinstance_id,tenant,protected\nphone-1,acme,\nphone-2,acme,true\n")).OK(t)
	command(t, environment, "fleet", "import", file("f.json", `[{"instance_id":"phone-3","tenant":"other"}]`)).OK(t)
	unchosen := regexp.MustCompile(`,"protected_(by|since)":"[^"]*"|,"generation":[0-9]+`)
	list := func() string {
		return unchosen.ReplaceAllString(command(t, environment, "fleet", "list", "--output", "jsonl").OK(t).Out, "")
	}
	want := `{"instance_id":"phone-1","tenant":"acme"}
{"instance_id":"phone-2","tenant":"acme","protected":true}
{"instance_id":"phone-3","tenant":"other"}
`
	if out := list(); out != want {
		t.Errorf("list:\n%s", out)
	}
	imports := func(name, content string, lines ...string) {
		t.Helper()
		if errs := command(t, environment, "fleet", "import", file(name, content)).OK(t).Errs; errs != strings.Join(lines, "\n")+"\n" {
			t.Errorf("%q says:\n%s", content, errs)
		}
	}
	protection := func(want string) {
		t.Helper()
		var got []string
		for line := range strings.Lines(command(t, environment, "fleet", "list").OK(t).Out) {
			if cells := strings.Fields(line); cells[2] == "yes" {
				got = append(got, cells[0])
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("protected are %v, want %s", got, want)
		}
	}
	// What a file does not say stays as it is.
	imports("f.csv", "instance_id,tenant\r\nphone-1,acme\r\n\"phone-2\",acme\r\nphone-2,acme\r\n", "registered 2 instances", "identical rows left out: 1")
	imports("f.csv", "protected,instance_id,tenant\n,phone-2,acme\n", "registered 1 instance")
	imports("f.json", "\ufeff"+`[{"instance_id":"phone-2","tenant":"acme"},{"instance_id":"phone-2"  ,"tenant":"acme"}]`, "registered 1 instance", "identical rows left out: 1")
	imports("f.csv", "instance_id\nphone-2\n", "registered 1 instance")
	protection("phone-2")
	imports("f.csv", "instance_id,protected\nphone-1,true\nphone-3,true\n", "registered 2 instances", "protection begun: 2")
	protection("phone-1 phone-2 phone-3")
	imports("f.csv", "instance_id,protected,tenant\nphone-1,false,acme\nphone-2,true,acme\nphone-3,false,acme\nphone-4,true,acme\n",
		"registered 4 instances", "new: 1", "protection begun: 1", "protection ended or made shorter: 2", "moved to another tenant: 1")
	protection("phone-2 phone-4")
	out := command(t, environment, "audit", "--action", "fleet-unprotect").OK(t).Out + command(t, environment, "audit", "--action", "fleet-move").OK(t).Out
	for _, want := range []string{"phone-1 phone-3", "from other", "phone-3"} {
		if !strings.Contains(strings.ReplaceAll(out, ",", " "), want) {
			t.Errorf("the trail has no %q:\n%s", want, out)
		}
	}
	command(t, environment, "fleet", "remove", "phone-4").OK(t)
	imports("f.csv", "instance_id,tenant,protected\nphone-1,acme,false\nphone-2,acme,true\nphone-3,other,false\n", "registered 3 instances", "moved to another tenant: 1")
	command(t, environment, "fleet", "protect", "phone-1", "phone-9").WantError(t, "not registered: phone-9")
	command(t, environment, "fleet", "unprotect", "phone-2").OK(t)
	want = `{"instance_id":"phone-1","tenant":"acme","protected":true}
{"instance_id":"phone-2","tenant":"acme"}
{"instance_id":"phone-3","tenant":"other"}
`
	if out := list(); out != want {
		t.Errorf("list after protect and unprotect:\n%s", out)
	}
	imports("f.csv", "instance_id,address,labels\nphone-1,10.0.0.7:5555,rack=7;site=lab\nphone-2,,\n", "registered 2 instances", "another driver or address: 1")
	imports("f.json", `[{"instance_id":"phone-2","address":"b","labels":{"site":"lab = 2"}}]`, "registered 1 instance", "another driver or address: 1")
	exported := command(t, environment, "fleet", "list", "--output", "csv").OK(t).Out
	imports("again.csv", exported, "registered 3 instances") // nothing has changed
	imports("f.json", `[{"instance_id":"phone-1","address":"","labels":{}}]`, "registered 1 instance", "another driver or address: 1")
	want = `{"instance_id":"phone-1","tenant":"acme","protected":true}
{"instance_id":"phone-2","tenant":"acme","address":"b","labels":{"site":"lab = 2"}}
{"instance_id":"phone-3","tenant":"other"}
`
	if out := list(); out != want {
		t.Errorf("list after addresses:\n%s", out)
	}
	exportedLines := command(t, environment, "fleet", "list", "--output", "jsonl").OK(t).Out
	imports("again.jsonl", exportedLines, "registered 3 instances")
	if out := command(t, environment, "fleet", "list", "--output", "jsonl").OK(t).Out; out != exportedLines {
		t.Errorf("imported again it is\n%s", out)
	}
	command(t, environment, "fleet", "remove", "phone-1", "phone-9").WantError(t, "not registered: phone-9")
	if out := command(t, environment, "fleet", "list").OK(t).Out; strings.Contains(out, "phone-1") || !strings.Contains(out, "phone-2") {
		t.Errorf("list:\n%s", out)
	}
}

// Who protects an instance, why and until when goes through every command and file.
func TestProtectionWithReasonAndEnd(t *testing.T) {
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	run := func(args ...string) terminaltest.Result {
		t.Helper()
		return command(t, environment, append([]string{"fleet"}, args...)...)
	}
	file := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run("set", "phone-1", "phone-2", "--tenant", "acme").OK(t)
	run("protect", "phone-1", "--until", "yesterday").WantError(t, "--until must be a time such as")
	run("protect", "phone-1", "--until", "-1h").WantError(t, "--until is in the past")
	run("protect", "phone-1", "--until", "2020-01-01T00:00:00Z").WantError(t, "--until is in the past")
	run("protect", "phone-1", "--reason", strings.Repeat("x", 257)).WantError(t, "--reason is 257 characters long")
	run("protect", "phone-1", "--until", "2099-03-31T02:00:00+02:00", "--reason", "legal hold, case 4711").OK(t)
	if r := run("protect", "phone-1", "phone-2", "--until", "48h").OK(t); !strings.Contains(r.Errs, "protected for longer already, and unchanged: phone-1") {
		t.Errorf("it says %s", r.Errs)
	}
	exported := run("list", "--output", "csv", "--protected").OK(t).Out
	for _, want := range []string{"phone-1,acme,true,user ", `"legal hold, case 4711"`, "2099-03-31T00:00:00.000Z", "phone-2,acme,true,user "} {
		if !strings.Contains(exported, want) {
			t.Errorf("no %s in\n%s", want, exported)
		}
	}
	if out := run("list").OK(t).Out; !strings.Contains(out, "until 2099-03-31T00:00:00Z") {
		t.Errorf("list:\n%s", out)
	}
	all := run("list", "--output", "csv").OK(t).Out
	if r := run("import", file("again.csv", all)).OK(t); r.Errs != "registered 2 instances\n" {
		t.Errorf("imported again: %s", r.Errs)
	}
	if again := run("list", "--output", "csv").OK(t).Out; again != all {
		t.Errorf("imported again it is\n%s, was\n%s", again, all)
	}
	run("remove", "phone-1", "phone-2").OK(t)
	run("import", file("restored.csv", all)).OK(t)
	since := regexp.MustCompile(`,[^,]*Z,2099`) // now
	if again := run("list", "--output", "csv", "--protected").OK(t).Out; since.ReplaceAllString(strings.SplitN(again, "\n", 3)[1], "") != since.ReplaceAllString(strings.SplitN(all, "\n", 3)[1], "") {
		t.Errorf("restored it is\n%s, was\n%s", again, all)
	}
	if r := run("import", file("shorter.csv", "instance_id,protected,protected_until\nphone-1,true,2098-01-01T00:00:00Z\n")).OK(t); !strings.Contains(r.Errs, "protection ended or made shorter: 1") {
		t.Errorf("it says %s", r.Errs)
	}
	run("unprotect", "phone-1").OK(t)
	if out := run("list", "--protected", "--output", "jsonl").OK(t).Out; strings.Contains(out, "phone-1") {
		t.Errorf("still protected: %s", out)
	}
	for _, row := range []struct{ name, file, content, want string }{
		{"an end without protection", "f.csv", "instance_id,protected_until\nphone-1,2099-01-01T00:00:00Z\n", "line 2: protected_until is there, and protected is not true"},
		{"a reason with no protection", "f.jsonl", `{"instance_id":"phone-1","protected":false,"protected_reason":"x"}`, "line 1: protected_reason is there, and protected is not true"},
		{"an end in the past", "f.csv", "instance_id,protected,protected_until\nphone-1,true,2020-01-01T00:00:00Z\n", "line 2: instance phone-1 would be protected until 2020-01-01T00:00:00Z, which is in the past"},
		{"an end in other words", "f.csv", "instance_id,protected,protected_until\nphone-1,true,tomorrow\n", "line 2: protected_until must be a time such as"},
		{"a generation that is none", "f.csv", "instance_id,generation\nphone-1,x\n", `line 2: generation must be a whole number from 1 to 2147483648, not "x"`},
		{"a generation of 0", "f.json", `[{"instance_id":"phone-1","generation":0}]`, "entry 0: generation must be a whole number"},
		{"a broken line", "f.jsonl", "{\"instance_id\":\"phone-1\"}\n{", "line 2"},
		{"one device twice", "f.csv", "instance_id,address\nphone-1,10.0.0.1\n\nphone-2,10.0.0.1\n", "line 4: instance phone-2 would be the same device as instance phone-1"},
	} {
		t.Run("refuses "+row.name, func(t *testing.T) {
			run("import", file(row.file, row.content)).WantError(t, row.want)
		})
	}
}

func TestFleetSetAndList(t *testing.T) {
	environment := map[string]string{"BATCHRESET_REDIS": redistest.Start(t).URL()}
	run := func(args ...string) terminaltest.Result {
		t.Helper()
		return command(t, environment, append([]string{"fleet"}, args...)...)
	}
	run("set", "phone-1").WantError(t, "there is nothing to set")
	run("set", "phone-1", "--driver", "lab").WantError(t, "instance phone-1 is not registered yet, and tenant is missing")
	run("set", "phone-1", "--tenant", "").WantError(t, "--tenant")
	run("set", "phone 1", "--tenant", "acme").WantError(t, "argument 1: instance_id")
	run("set", "phone-1", "--tenant", "acme", "--driver", "Lab").WantError(t, "--driver")
	run("set", "phone-1", "--tenant", "acme", "--address", "a b").WantError(t, "--address")
	run("set", "phone-1", "--tenant", "acme", "--label", "rack").WantError(t, "rack")
	run("set", "phone-1", "--label", "a=1", "--no-labels").WantError(t, "--no-labels")
	run("set", "phone-1", "phone-2", "--tenant", "acme", "--driver", "lab", "--address", "10.0.0.1").WantError(t, "the same device")
	run("set", "phone-1", "--tenant", "acme", "--driver", "lab", "--address", "10.0.0.1", "--label", "rack=7", "--label", "site=a b").OK(t)
	run("set", "phone-2", "--tenant", "acme", "--driver", "lab", "--label", "rack=7").OK(t)
	run("set", "phone-3", "--tenant", "globex").OK(t)
	if r := run("set", "phone-1", "phone-3", "--reassigned").OK(t); !strings.Contains(r.Errs, "another generation: 2") {
		t.Errorf("it says %s", r.Errs)
	}
	listed := func(want string, flags ...string) {
		t.Helper()
		var ids []string
		for line := range strings.Lines(run(append([]string{"list", "--output", "jsonl"}, flags...)...).OK(t).Out) {
			ids = append(ids, strings.Split(line, `"`)[3])
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("list %v: %s, want %s", flags, got, want)
		}
	}
	listed("phone-1 phone-2 phone-3")
	listed("phone-1 phone-2", "--driver", "lab")
	listed("phone-3", "--driver", "default")
	listed("phone-1 phone-2", "--label", "rack=7")
	listed("phone-1", "--label", "rack=7", "--label", "site=a b")
	listed("", "--label", "rack=8")
	listed("phone-3", "--tenant", "globex")
	listed("", "--tenant", "globex", "--driver", "lab")
	run("list", "--driver", "L").WantError(t, "--driver")
	run("set", "phone-1", "--driver", "", "--address", "", "--no-labels").OK(t)
	listed("phone-1 phone-3", "--driver", "default")
	if out := run("list", "--output", "jsonl").OK(t).Out; !strings.Contains(out, `{"instance_id":"phone-1","tenant":"acme","generation":2}`) {
		t.Errorf("list: %s", out)
	}
	if out := command(t, environment, "audit", "--action", "fleet-reassign", "--output", "jsonl").OK(t).Out; !strings.Contains(out, `"instance_ids":["phone-1","phone-3"]`) {
		t.Errorf("trail: %s", out)
	}
}
