package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "batchreset"

// everything, as a package's only permission: all that the arrows restrict.
const everything = "everything"

// mayImport is the table of DESIGN.md, section 10: what the code of each package,
// tests aside, may import of our own packages and of the libraries below.
// Nothing means only the standard library.
var mayImport = map[string][]string{
	"cmd/batchreset":            {"cmd/batchreset/serve", "cmd/batchreset/call", "cmd/batchreset/operate", "cmd/batchreset/terminal", "tasks/redisdb/wire"}, // main has go-redis keep still
	"cmd/batchreset/call":       {"cmd/batchreset/terminal", "api", "api/client", "tasks", "tasks/proof"},
	"cmd/batchreset/redisflags": {"cmd/batchreset/terminal", "tasks/seal", "tasks/redisdb", "tasks/redisdb/wire", "tasks/redisdb/registry"},
	"cmd/batchreset/terminal":   {"tasks", "api/client"},
	"cmd/batchreset/operate": {
		"cmd/batchreset/terminal", "cmd/batchreset/redisflags", "api", "api/ops/login", "tasks",
		"tasks/redisdb", "tasks/redisdb/registry", "tasks/redisdb/views", "worker/webhook",
	},
	"cmd/batchreset/serve": {
		"cmd/batchreset/terminal", "cmd/batchreset/redisflags", "api", "api/auth", "api/ops", "api/ops/login", "api/tlsfiles", "tasks", "tasks/proof", "tasks/seal",
		"tasks/redisdb", "tasks/redisdb/wire", "tasks/redisdb/registry", "tasks/redisdb/views", "tasks/redisdb/runs",
		"worker", "worker/webhook", "worker/notify", "worker/simulator", "worker/httpdriver", "worker/cph", "worker/docker", "worker/execdriver",
		"asynqmon", "OpenTelemetry's SDK",
	},
	"cmd/harness":          {"go-redis"},
	"cmd/harness/faketime": {},
	"cmd/harness/certs":    {},
	"deploy/controlplane":  {},
	"cmd/chaos":            {everything},
	"cmd/chaos/fault":      {},
	"cmd/chaos/history":    {"cmd/chaos/fault", "tasks", "api/client"},
	"cmd/bench":            {everything},
	"cmd/bench/load":       {"tasks", "tasks/sdkhmac"},
	"cmd/bench/report":     {},
	"cmd/bench/stack":      {"tasks/sdkhmac", "go-redis"},

	"api":           {"tasks", "tasks/proof", "api/auth", "api/ratelimit", "Echo"},
	"api/auth":      {"tasks", "tasks/sdkhmac", "api/ratelimit"},
	"api/ops":       {"tasks", "api/ops/login", "Echo", "asynqmon"},
	"api/ops/login": {"tasks", "api/ratelimit", "Echo"},
	"api/ratelimit": {},
	"api/tlsfiles":  {},
	"api/examples":  {},
	"api/client":    {},

	"tasks":         {},
	"tasks/sdkhmac": {},
	"tasks/proof":   {"tasks"},
	"tasks/seal":    {},
	"tasks/redisdb": {
		"tasks", "tasks/seal", "go-redis", "asynq",
		"tasks/redisdb/wire", "tasks/redisdb/codec", "tasks/redisdb/registry", "tasks/redisdb/views", "tasks/redisdb/runs",
	},
	"tasks/redisdb/wire":     {"go-redis", "asynq"},
	"tasks/redisdb/codec":    {"tasks"},
	"tasks/redisdb/registry": {"tasks", "tasks/seal", "go-redis", "tasks/redisdb/wire", "tasks/redisdb/codec"},
	"tasks/redisdb/views":    {"tasks", "go-redis", "tasks/redisdb/wire", "tasks/redisdb/codec"},
	"tasks/redisdb/runs":     {"tasks", "go-redis", "tasks/redisdb/wire", "tasks/redisdb/codec"},

	"worker":            {"tasks", "worker/requeue", "asynq"},
	"worker/requeue":    {"asynq"},
	"worker/webhook":    {"tasks", "worker", "worker/requeue", "asynq"},
	"worker/notify":     {"tasks", "worker", "worker/webhook"},
	"worker/simulator":  {"worker"},
	"worker/httpdriver": {"worker"},
	"worker/cph":        {"worker", "tasks/sdkhmac"},
	"worker/docker":     {"worker"},
	"worker/execdriver": {"worker"},

	"worker/cph/cphtest": {"tasks/sdkhmac"},
	"worker/drivertest":  {"worker"},

	"worker/docker/enginetest": {},

	"api/browsertest":                      {everything},
	"api/nginxtest":                        {everything},
	"api/relaytest":                        {everything},
	"tasks/redisdb/dbtest":                 {everything},
	"tasks/redisdb/redistest":              {everything},
	"cmd/batchreset/call/calltest":         {everything},
	"cmd/batchreset/terminal/terminaltest": {everything},
}

// testHelpers are for tests, and for those that are named: no other code may import them.
var testHelpers = map[string][]string{
	"api/browsertest":                      nil,
	"api/nginxtest":                        nil,
	"api/relaytest":                        nil,
	"worker/cph/cphtest":                   nil,
	"tasks/redisdb/dbtest":                 nil,
	"worker/drivertest":                    nil,
	"worker/docker/enginetest":             nil,
	"tasks/redisdb/redistest":              nil,
	"cmd/batchreset/call/calltest":         nil,
	"cmd/batchreset/terminal/terminaltest": nil,
	"cmd/harness/faketime":                 nil,
	"cmd/harness/certs":                    {"api/nginxtest", "tasks/redisdb/redistest", "worker/docker/enginetest"},
	"cmd/harness":                          {"cmd/bench", "cmd/bench/load", "cmd/bench/stack", "cmd/chaos", "api/nginxtest", "tasks/redisdb/redistest", "worker/docker/enginetest"},
}

// libraries are those that the arrows restrict; others go where they are needed.
var libraries = map[string]string{
	"github.com/hibiken/asynq":    "asynq",
	"github.com/hibiken/asynqmon": "asynqmon",
	"github.com/labstack/echo":    "Echo",
	"github.com/redis/go-redis":   "go-redis",

	"go.opentelemetry.io/otel/sdk":       "OpenTelemetry's SDK",
	"go.opentelemetry.io/otel/exporters": "OpenTelemetry's SDK",
}

// goPackage is what 'go list -json' tells of a package.
type goPackage struct {
	ImportPath string
	Imports    []string
}

// brokenArrows returns a sentence for each import that the layout does not allow.
func brokenArrows(packages []goPackage) []string {
	var broken []string
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		allowed, ok := mayImport[name]
		if !ok {
			broken = append(broken, fmt.Sprintf("%s is not in the layout: add it to DESIGN's section 10 and to the table of this test", name))
			continue
		}
		for _, path := range p.Imports {
			target := restricted(path, allowed)
			helps, isHelper := testHelpers[target]
			switch {
			case target == "":
			case isHelper && !slices.Contains(helps, name):
				broken = append(broken, fmt.Sprintf("%s imports %s: only %s may import it", name, path, inWords(append([]string{"tests"}, helps...))))
			case isHelper:
			case slices.Contains(allowed, everything), slices.Contains(allowed, target):
			default:
				broken = append(broken, fmt.Sprintf("%s imports %s: %s may import only %s", name, path, name, inWords(allowed)))
			}
		}
	}
	return broken
}

// restricted returns the name under which an import stands in the table, or
// nothing if the arrows say nothing about it.
func restricted(path string, allowed []string) string {
	if own, ok := strings.CutPrefix(path, module+"/"); ok {
		return own
	}
	for library, name := range libraries {
		if path == library || strings.HasPrefix(path, library+"/") {
			return name
		}
	}
	first, _, _ := strings.Cut(path, "/")
	if len(allowed) == 0 && strings.Contains(first, ".") {
		return path // not the standard library
	}
	return ""
}

func inWords(allowed []string) string {
	switch last := len(allowed) - 1; last {
	case -1:
		return "the standard library"
	case 0:
		return allowed[0]
	default:
		return strings.Join(allowed[:last], ", ") + " and " + allowed[last]
	}
}

func TestImportArrows(t *testing.T) {
	t.Run("hold in every package of the module", func(t *testing.T) {
		packages := listPackages(t)
		if !slices.ContainsFunc(packages, func(p goPackage) bool { return p.ImportPath == module+"/tasks" }) {
			t.Fatalf("go list does not know %s/tasks; it lists %v", module, packages)
		}
		for _, sentence := range brokenArrows(packages) {
			t.Error(sentence)
		}
	})

	for _, c := range []struct {
		name, pkg, imports string
		want               string // nothing = allowed
	}{
		{"let the api import the vocabulary", "api", "batchreset/tasks", ""},
		{"let the api import a part of Echo", "api", "github.com/labstack/echo/v4/middleware", ""},
		{"let a package import a library that they do not restrict", "api", "golang.org/x/time/rate", ""},
		{"let the processes import a driver", "cmd/batchreset/serve", "batchreset/worker/simulator", ""},
		{"let the benchmark use the harness", "cmd/bench", "batchreset/cmd/harness", ""},
		{
			"keep what the benchmark says from what it measures", "cmd/bench/report", "batchreset/cmd/bench/stack",
			"cmd/bench/report imports batchreset/cmd/bench/stack: cmd/bench/report may import only the standard library",
		},
		{
			"keep the harness from what it starts", "cmd/batchreset/serve", "batchreset/cmd/harness",
			"cmd/batchreset/serve imports batchreset/cmd/harness: only tests, cmd/bench, cmd/bench/load, cmd/bench/stack, cmd/chaos, api/nginxtest, tasks/redisdb/redistest and worker/docker/enginetest may import it",
		},
		{
			"keep callers' commands from the store", "cmd/batchreset/call", "batchreset/tasks/redisdb",
			"cmd/batchreset/call imports batchreset/tasks/redisdb: cmd/batchreset/call may import only cmd/batchreset/terminal, api, api/client, tasks and tasks/proof",
		},
		{
			"keep the commands from each other", "cmd/batchreset/call", "batchreset/cmd/batchreset/operate",
			"cmd/batchreset/call imports batchreset/cmd/batchreset/operate: cmd/batchreset/call may import only cmd/batchreset/terminal, api, api/client, tasks and tasks/proof",
		},
		{
			"let nothing run up from the terminal", "cmd/batchreset/terminal", "batchreset/cmd/batchreset/call",
			"cmd/batchreset/terminal imports batchreset/cmd/batchreset/call: cmd/batchreset/terminal may import only tasks and api/client",
		},
		{
			"keep the vocabulary out of the wire", "tasks/redisdb/wire", "batchreset/tasks",
			"tasks/redisdb/wire imports batchreset/tasks: tasks/redisdb/wire may import only go-redis and asynq",
		},
		{
			"keep the codec from Redis", "tasks/redisdb/codec", "github.com/redis/go-redis/v9",
			"tasks/redisdb/codec imports github.com/redis/go-redis/v9: tasks/redisdb/codec may import only tasks",
		},
		{
			"keep the api from the workers", "api", "batchreset/worker",
			"api imports batchreset/worker: api may import only tasks, tasks/proof, api/auth, api/ratelimit and Echo",
		},
		{
			"keep the worker from the store", "worker", "batchreset/tasks/redisdb",
			"worker imports batchreset/tasks/redisdb: worker may import only tasks, worker/requeue and asynq",
		},
		{
			"keep what becomes of spans out of the worker", "worker", "go.opentelemetry.io/otel/sdk/trace",
			"worker imports go.opentelemetry.io/otel/sdk/trace: worker may import only tasks, worker/requeue and asynq",
		},
		{"let the worker make spans", "worker", "go.opentelemetry.io/otel/trace", ""},
		{
			"keep go-redis out of the worker", "worker", "github.com/redis/go-redis/v9",
			"worker imports github.com/redis/go-redis/v9: worker may import only tasks, worker/requeue and asynq",
		},
		{
			"tell asynqmon from asynq", "worker", "github.com/hibiken/asynqmon",
			"worker imports github.com/hibiken/asynqmon: worker may import only tasks, worker/requeue and asynq",
		},
		{
			"keep a driver from its siblings", "worker/cph", "batchreset/worker/httpdriver",
			"worker/cph imports batchreset/worker/httpdriver: worker/cph may import only worker and tasks/sdkhmac",
		},
		{
			"keep every library out of the vocabulary", "tasks", "github.com/google/uuid",
			"tasks imports github.com/google/uuid: tasks may import only the standard library",
		},
		{
			"keep the vocabulary out of the client", "api/client", "batchreset/tasks",
			"api/client imports batchreset/tasks: api/client may import only the standard library",
		},
		{
			"keep test helpers out of the command", "cmd/batchreset", "batchreset/tasks/redisdb/redistest",
			"cmd/batchreset imports batchreset/tasks/redisdb/redistest: only tests may import it",
		},
		{
			"know every package", "utils", "fmt",
			"utils is not in the layout: add it to DESIGN's section 10 and to the table of this test",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			packages := []goPackage{{ImportPath: module + "/" + c.pkg, Imports: []string{"context", "net/http", c.imports}}}
			if got := strings.Join(brokenArrows(packages), "\n"); got != c.want {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
}

// listPackages asks the go command for every package of the module.
func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"/...")
	out, err := cmd.Output()
	if err != nil {
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("go list: %s", failed.Stderr)
		}
		t.Fatal(err)
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatalf("output of go list: %s", err)
		}
		packages = append(packages, p)
	}
}
