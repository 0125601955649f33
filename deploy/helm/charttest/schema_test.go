package charttest

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// setting is a flag, as deploy/SETTINGS.md has it.
type setting struct {
	flag, usage string
	defaults    map[string]string // by command; empty: none
}

func (s setting) usedBy(command string) bool {
	_, is := s.defaults[command]
	return is
}

var (
	settingRow = regexp.MustCompile("^\\| `--([a-z0-9-]+)` \\| `[A-Z0-9_]+` \\| (.*?) \\| (.*) \\|$")
	usedBy     = regexp.MustCompile("([a-z]+)(?: \\(`([^`]*)`\\))?")
)

func readSettings(t *testing.T) (all []setting) {
	t.Helper()
	text, err := os.ReadFile("../../SETTINGS.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		row := settingRow.FindStringSubmatch(strings.TrimSpace(line))
		if row == nil {
			continue
		}
		s := setting{flag: row[1], usage: strings.ReplaceAll(row[3], `\|`, "|"), defaults: map[string]string{}}
		for _, use := range usedBy.FindAllStringSubmatch(row[2], -1) {
			s.defaults[use[1]] = use[2]
		}
		all = append(all, s)
	}
	if len(all) < 50 {
		t.Fatalf("deploy/SETTINGS.md has only %d flags", len(all))
	}
	return all
}

// chartsOwn are flags that the chart gives by itself, from other values.
var chartsOwn = []string{"listen", "ops-listen", "redis", "redis-file", "secret-key-file", "drivers", "tls-cert", "tls-key", "tls-client-ca"}

const durationPattern = `^(0|([0-9]{1,6}h)([0-9]{1,6}m)?([0-9]{1,6}s)?|([0-9]{1,6}m)([0-9]{1,6}s)?|[0-9]{1,6}s)$`

// quoted are the values that a flag's description names.
var quoted = regexp.MustCompile(`'([a-z]+)' =`)

// takesZero reports whether the program starts a command with 0 for a flag.
func takesZero(t *testing.T, program, flag, command string) bool {
	t.Helper()
	file := filepath.Join(t.TempDir(), "settings.yaml")
	text := command + ":\n  " + flag + ": 0\n"
	if command == "worker" {
		text += "  driver: simulator\n"
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, "config", "check", command, "--config", file).CombinedOutput()
	if err != nil && !strings.Contains(string(out), flag) {
		t.Fatalf("%s with --%s 0: %v: %s", command, flag, err, out)
	}
	return err == nil
}

// schemaOf is the schema of a flag's value.
func schemaOf(t *testing.T, program string, s setting, command string) map[string]any {
	t.Helper()
	schema := map[string]any{"description": s.usage}
	switch def := s.defaults[command]; {
	case def == "true", def == "false":
		schema["type"] = []any{"boolean", "null"}
	case def == "[]":
		schema["anyOf"] = []any{
			map[string]any{"type": []any{"string", "null"}},
			map[string]any{"type": "array", "items": map[string]any{"type": []any{"string", "integer"}}},
		}
	case regexp.MustCompile(`^[0-9]+(h|m|s)`).MatchString(def), strings.HasSuffix(s.flag, "-timeout"), s.flag == "simulator-latency":
		schema["type"] = []any{"string", "null"}
		schema["pattern"] = durationPattern
	case strings.HasSuffix(s.flag, "-rate"):
		schema["type"], schema["minimum"] = []any{"number", "null"}, 0
	case regexp.MustCompile(`^[0-9]+$`).MatchString(def):
		schema["type"], schema["minimum"] = []any{"integer", "null"}, 0
		if !takesZero(t, program, s.flag, command) {
			schema["minimum"] = 1
		}
	case len(quoted.FindAllString(s.usage, -1)) > 1:
		values := []any{nil}
		for _, value := range quoted.FindAllStringSubmatch(s.usage, -1) {
			values = append(values, value[1])
		}
		schema["enum"] = values
	case s.flag == "ops-path":
		schema["type"], schema["pattern"] = []any{"string", "null"}, "^/"
	default:
		schema["type"] = []any{"string", "null"}
	}
	return schema
}

// TestSchemaHasEveryFlag keeps the parts of the schema that are about flags true. To write them anew: UPDATE_CHART=1 go test -count=1 ./...
func TestSchemaHasEveryFlag(t *testing.T) {
	path := filepath.Join(chartDir, "values.schema.json")
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(have, &schema); err != nil {
		t.Fatal(err)
	}
	program := build(t)
	for command, name := range map[string]string{"api": "apiConfig", "worker": "workerConfig"} {
		properties := map[string]any{}
		for _, s := range readSettings(t) {
			if s.usedBy(command) && !slices.Contains(chartsOwn, s.flag) {
				properties[s.flag] = schemaOf(t, program, s, command)
			}
		}
		schema["definitions"].(map[string]any)[name] = map[string]any{
			"description": "Flags of 'batchreset " + command + "'; those that are missing here have values of their own.",
			"type":        "object", "additionalProperties": false, "properties": properties,
		}
	}
	var want bytes.Buffer
	encoder := json.NewEncoder(&want)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(schema); err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(have, want.Bytes()) {
		return
	}
	if os.Getenv("UPDATE_CHART") == "" {
		t.Fatal("values.schema.json is not what deploy/SETTINGS.md says: UPDATE_CHART=1 go test -count=1 ./...")
	}
	if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestSchemaIsClosed makes sure that each table of the schema refuses unknown keys, unless it is a map of the user's.
func TestSchemaIsClosed(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chartDir, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	tables := 0
	var walk func(path string, at any)
	walk = func(path string, at any) {
		switch s := at.(type) {
		case map[string]any:
			if properties, has := s["properties"].(map[string]any); has && !strings.HasSuffix(path, "/drivers/items") {
				tables++
				if s["additionalProperties"] != false {
					t.Errorf("%s takes any key beside %v", path, slices.Sorted(maps.Keys(properties)))
				}
			}
			for key, part := range s {
				walk(path+"/"+key, part)
			}
		case []any:
			for _, part := range s {
				walk(path, part)
			}
		}
	}
	walk("", schema)
	if tables < 25 {
		t.Errorf("only %d tables", tables)
	}
}

// TestWrongValues is a table of values that must be refused, and what the error must name.
func TestWrongValues(t *testing.T) {
	for text, want := range map[string]string{
		// What is missing.
		`redis: {existingSecret: ""}`:                                                      "redis.existingSecret is missing",
		`demo: {enabled: true}`:                                                            "demo.enabled does not go together with redis.existingSecret",
		`keda: {enabled: true, trigger: prometheus}`:                                       "keda.prometheus.serverAddress",
		`ingress: {enabled: true, tlsSecret: a}`:                                           "ingress.tlsSecret needs ingress.host",
		`ingress: {ops: {enabled: true}}`:                                                  "ingress.ops.host",
		`tls: {clientCAKey: ca.crt}`:                                                       "tls.clientCAKey needs tls.existingSecret",
		`tls: {existingSecret: a, clientCASecret: b}`:                                      "tls.clientCASecret needs tls.clientCAKey",
		`ingress: {enabled: true, host: a.example, ops: {enabled: true, host: a.example}}`: "are the same on the same host",
		`imagePullSecrets: [{}]`:                                                           "missing property 'name'",
		`api: {secretFiles: {a: {secret: b}}}`:                                             "missing property 'key'",
		`workers: {default: {drivers: [{name: lab}]}}`:                                     "missing property 'type'",
		// Unknown keys, at each level.
		`replicas: 3`:                                          "additional properties 'replicas' not allowed",
		`image: {name: a}`:                                     "'name' not allowed",
		`redis: {url: "redis://x"}`:                            "'url' not allowed",
		`redis: {keys: {admin: a}}`:                            "'admin' not allowed",
		`secretKey: {secret: a}`:                               "'secret' not allowed",
		`tls: {secretName: a}`:                                 "'secretName' not allowed",
		`api: {replicaCount: 2}`:                               "'replicaCount' not allowed",
		`api: {config: {flet: open}}`:                          "'flet' not allowed",
		`api: {config: {concurrency: 1}}`:                      "'concurrency' not allowed",
		`api: {config: {listen: ":80"}}`:                       "'listen' not allowed",
		`api: {config: {redis-file: /x}}`:                      "'redis-file' not allowed",
		`api: {service: {nodePort: 1}}`:                        "'nodePort' not allowed",
		`api: {resources: {memory: 1Gi}}`:                      "'memory' not allowed",
		`api: {strategy: {maxSurge: 1}}`:                       "'maxSurge' not allowed",
		`api: {image: {repository: a}}`:                        "'repository' not allowed",
		`api: {extraEnv: [{name: A, val: b}]}`:                 "'val' not allowed",
		`admin: {replicas: 2}`:                                 "'replicas' not allowed",
		`workerDefaults: {config: {fleet: open}}`:              "'fleet' not allowed",
		`workerDefaults: {config: {drivers: /x}}`:              "'drivers' not allowed",
		`workers: {default: {replica: 2}}`:                     "'replica' not allowed",
		`workers: {default: {keda: {min: 2}}}`:                 "'min' not allowed",
		`workers: {default: {driversSecret: {existing: a}}}`:   "'existing' not allowed",
		`workers: {default: {networkPolicy: {enabled: true}}}`: "'enabled' not allowed",
		`serviceAccount: {automount: true}`:                    "'automount' not allowed",
		`podDisruptionBudget: {minAvailable: 1}`:               "'minAvailable' not allowed",
		`ingress: {hosts: []}`:                                 "'hosts' not allowed",
		`ingress: {ops: {className: a}}`:                       "'className' not allowed",
		`networkPolicy: {from: []}`:                            "'from' not allowed",
		`networkPolicy: {redis: {port: 1}}`:                    "'port' not allowed",
		`keda: {maxReplicas: 1}`:                               "'maxReplicas' not allowed",
		`keda: {prometheus: {query: a}}`:                       "'query' not allowed",
		`keda: {authenticationRef: {nam: a}}`:                  "'nam' not allowed",
		`serviceMonitor: {namespace: a}`:                       "'namespace' not allowed",
		`prometheusRule: {rules: []}`:                          "'rules' not allowed",
		`dashboard: {folder: a}`:                               "'folder' not allowed",
		`demo: {simulator: true}`:                              "'simulator' not allowed",
		`demo: {redis: {persistence: true}}`:                   "'persistence' not allowed",
		// Wrong types and forms.
		`image: {pullPolicy: Sometimes}`:                                                   "pullPolicy",
		`image: {tag: 1.2}`:                                                                "got number, want string",
		`redis: {existingSecret: "a b"}`:                                                   "existingSecret",
		`redis: {keys: {api: ""}}`:                                                         "/redis/keys/api",
		`api: {replicas: two}`:                                                             "want integer",
		`api: {replicas: -1}`:                                                              "/api/replicas",
		`api: {config: {drain-delay: 5}}`:                                                  "/api/config/drain-delay",
		`api: {config: {drain-delay: 500ms}}`:                                              "/api/config/drain-delay",
		`api: {config: {drain-delay: 1.5h}}`:                                               "/api/config/drain-delay",
		`api: {config: {drain-delay: ""}}`:                                                 "/api/config/drain-delay",
		`api: {config: {fleet: closed}}`:                                                   "/api/config/fleet",
		`api: {config: {ops-path: ops}}`:                                                   "/api/config/ops-path",
		`workerDefaults: {config: {concurrency: 0}}`:                                       "concurrency",
		`api: {config: {max-instances: many}}`:                                             "/api/config/max-instances",
		`api: {config: {trusted-proxies: {a: b}}}`:                                         "/api/config/trusted-proxies",
		`api: {podLabels: {a: 1}}`:                                                         "/api/podLabels/a",
		`workerDefaults: {config: {shutdown-timeout: 10 minutes}}`:                         "shutdown-timeout",
		`workerDefaults: {config: {driver-idempotent: "yes"}}`:                             "driver-idempotent",
		`workers: {default: {config: {attempt-timeout: 5d}}}`:                              "workers",
		`workers: {default: {drivers: [{name: A, type: http}]}}`:                           "workers",
		`workers: {default: {drivers: [{name: a, type: http, attempt_timeout: 1m500ms}]}}`: "workers",
		`workers: {Default: {}}`:                                                           "'Default' not allowed",
		`workers: {a-name-that-is-too-long: {}}`:                                           "not allowed",
		`workers: [{name: a}]`:                                                             "workers",
		`podDisruptionBudget: {maxUnavailable: some}`:                                      "maxUnavailable",
		`ingress: {path: reset}`:                                                           "/ingress/path",
		`keda: {trigger: redis}`:                                                           "/keda/trigger",
		`keda: {url: "ops:9090"}`:                                                          "/keda/url",
		`keda: {pollingInterval: 0}`:                                                       "/keda/pollingInterval",
		`keda: {scaleDownStabilizationSeconds: 3601}`:                                      "/keda/scaleDownStabilizationSeconds",
		`networkPolicy: {redis: {ports: []}}`:                                              "/networkPolicy/redis/ports",
		`networkPolicy: {apiFrom: [{}]}`:                                                   "/networkPolicy/apiFrom",
		`extraManifests: {a: b}`:                                                           "/extraManifests",
		// What does not go together.
		`workers: {default: {config: {driver: simulator}, drivers: [{name: a, type: simulator}]}}`:                       "does not go together",
		`workers: {default: {drivers: [{name: a, type: simulator}], driversSecret: {name: b}}}`:                          "do not go together",
		"keda: {enabled: true}\nworkers: {default: {keda: {minReplicas: 0}}}":                                            "workers",
		"keda: {enabled: true}\nworkers: {default: {keda: {minReplicas: 20}}}":                                           "minReplicas is more than maxReplicas",
		"keda: {enabled: true}\nworkers: {default: {drivers: [{name: a, type: simulator}, {name: a, type: simulator}]}}": "a name is there twice",
		`api: {extraEnv: [{name: BATCHRESET_FLEET, value: open}]}`:                                                       "BATCHRESET_FLEET is set",
		`api: {podLabels: {app.kubernetes.io/name: a}}`:                                                                  "is the chart's own",
		`workerDefaults: {podLabels: {batchreset.group: a}}`:                                                             "is the chart's own",
	} {
		values := of(t, text)
		if _, said := values["redis"]; !said {
			values["redis"] = map[string]any{"existingSecret": "r"}
		} else if redis := values["redis"].(map[string]any); redis["existingSecret"] == nil {
			redis["existingSecret"] = "r"
		}
		if _, err := tryRender(t, values); err == nil {
			t.Errorf("%s is not refused", text)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: the error lacks %q: %v", text, want, err)
		}
	}
	if _, err := tryRender(t, map[string]any{}); err == nil {
		t.Error("a chart without Redis is not refused")
	}
}

// TestDurationsOfTheTemplates is about values that get past the schema, as with 'helm --skip-schema-validation'.
func TestDurationsOfTheTemplates(t *testing.T) {
	c := *loadChart(t)
	c.Schema = nil
	for value, want := range map[string]bool{"1h10m0s": true, "10m": true, "0": true, "45s": true, "1h5s": true, "1.5h": false, "500ms": false, "10": false, "m": false, "5s1m": false, "-5s": false, "5 s": false, "": false} {
		values := map[string]any{"redis": map[string]any{"existingSecret": "r"}, "api": map[string]any{"config": map[string]any{"drain-delay": value}}}
		_, err := renderChart(&c, values)
		if (err == nil) != (want || value == "") { // an empty one is the flag's default
			t.Errorf("%q: %v", value, err)
		}
	}
}
