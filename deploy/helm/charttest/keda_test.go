package charttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	appsv1 "k8s.io/api/apps/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// scaledObjectSchema is that of KEDA's own CustomResourceDefinition, and refuses unknown keys.
var scaledObjectSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	text, err := os.ReadFile("testdata/keda.sh_scaledobjects.yaml")
	if err != nil {
		return nil, err
	}
	var crd apiextensions.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &crd); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(crd.Spec.Versions[0].Schema.OpenAPIV3Schema)
	if err != nil {
		return nil, err
	}
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	properties := schema.(map[string]any)["properties"].(map[string]any)
	properties["metadata"] = map[string]any{"type": "object", "additionalProperties": true}
	closeSchema(schema)
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("crd.json", schema); err != nil {
		return nil, err
	}
	return compiler.Compile("crd.json")
})

// closeSchema has a schema refuse keys that it does not name, as the API server with strict field validation does.
func closeSchema(schema any) {
	switch s := schema.(type) {
	case map[string]any:
		if _, open := s["additionalProperties"]; !open && s["properties"] != nil && s["type"] == "object" {
			s["additionalProperties"] = false
		}
		for _, part := range s {
			closeSchema(part)
		}
	case []any:
		for _, part := range s {
			closeSchema(part)
		}
	}
}

// triggerKeys are what scalers of KEDA v2.21.0 take, those that must be there first: pkg/scalers/metrics_api_scaler.go,
// prometheus_scaler.go and authentication/authentication_types.go.
var triggerKeys = map[string]struct{ must, may []string }{
	"metrics-api": {[]string{"url", "valueLocation", "targetValue"}, []string{"activationTargetValue", "format", "unsafeSsl", "aggregateFromKubeServiceEndpoints", "aggregationType", "timeout", "authMode", "authModes"}},
	"prometheus":  {[]string{"serverAddress", "query", "threshold"}, []string{"activationThreshold", "ignoreNullValues", "unsafeSsl", "namespace", "customHeaders", "queryParameters", "timeout", "authModes"}},
}

// checkScaledObject returns an error unless KEDA takes the object.
func checkScaledObject(object map[string]any) error {
	schema, err := scaledObjectSchema()
	if err != nil {
		return err
	}
	raw, err := json.Marshal(object)
	if err != nil {
		return err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	if err := schema.Validate(document); err != nil {
		return err
	}
	for _, tr := range triggersOf(object) {
		keys, known := triggerKeys[tr.Type]
		if !known {
			err = errors.Join(err, fmt.Errorf("trigger %s is not known here", tr.Type))
		}
		for key := range tr.Metadata {
			if !slices.Contains(append(keys.must, keys.may...), key) {
				err = errors.Join(err, fmt.Errorf("the scaler %s does not have %s", tr.Type, key))
			}
		}
		for _, key := range keys.must {
			if tr.Metadata[key] == "" {
				err = errors.Join(err, fmt.Errorf("the scaler %s needs %s", tr.Type, key))
			}
		}
	}
	return err
}

// trigger is a trigger of a ScaledObject.
type trigger struct {
	Type       string            `json:"type"`
	MetricType string            `json:"metricType"`
	Metadata   map[string]string `json:"metadata"`
}

// scaled is the part of a ScaledObject that the tests look at.
type scaled struct {
	Spec struct {
		ScaleTargetRef   struct{ Name string }
		MinReplicaCount  int
		MaxReplicaCount  int
		Triggers         []trigger
		CooldownPeriod   *int
		IdleReplicaCount *int
	}
}

// scaledOf panics if the object is none, which checkScaledObject has seen before.
func scaledOf(object map[string]any) (s scaled) {
	raw, err := json.Marshal(object)
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	if err != nil {
		panic(err)
	}
	return s
}

func triggersOf(object map[string]any) []trigger { return scaledOf(object).Spec.Triggers }

// desired is the number of workers that an autoscaler of Kubernetes wants for an external metric of the type AverageValue: kube-controller-manager's
// GetExternalPerPodMetricReplicas, with its tolerance.
func desired(value, target float64, replicas int) int {
	if ratio := value / (target * float64(replicas)); math.Abs(ratio-1) <= 0.1 {
		return replicas
	}
	return int(math.Ceil(value / target))
}

// TestNoBusyWorkerIsTakenAway is about a long queue that has run dry: what matters is what runs.
func TestNoBusyWorkerIsTakenAway(t *testing.T) {
	const running, waiting = 10_000, 0
	for _, row := range []struct {
		values string
		slots  int // of one worker, for the driver that is busy
	}{
		{`workers: {default: {keda: {maxReplicas: 1000}}}`, 100},
		{`workers: {default: {config: {concurrency: 64}, keda: {maxReplicas: 1000}}}`, 64},
		{`workers: {default: {keda: {maxReplicas: 1000}, drivers: [{name: default, type: http, url: x, concurrency: 30}, {name: lab, type: simulator}]}}`, 30},
		{`workers: {default: {keda: {maxReplicas: 1000}, drivers: [{name: default, type: http, url: x, concurrency: 30}, {name: lab, type: simulator}]}}`, 100},
		{`workers: {default: {keda: {maxReplicas: 2000}, config: {driver: http, driver-url: x, driver-concurrency: 8}}}`, 8},
		{`workers: {default: {keda: {maxReplicas: 2000}, driversSecret: {names: [a, b], leastConcurrency: 9}}}`, 9},
	} {
		values := of(t, "redis: {existingSecret: r}\nkeda: {enabled: true}\n"+row.values)
		objects := all[*unstructured.Unstructured](render(t, values))
		if len(objects) != 1 {
			t.Fatal(objects)
		}
		s := scaledOf(objects[0].Object)
		tr := s.Spec.Triggers[0]
		target, err := strconv.ParseFloat(tr.Metadata["targetValue"], 64)
		if err != nil || tr.MetricType != "AverageValue" || tr.Metadata["valueLocation"] != "items_open" || tr.Metadata["activationTargetValue"] != "" {
			t.Fatal(err, tr)
		}
		// Full workers have slots items each, and none less than that can be taken away without an item.
		busy := (running + row.slots - 1) / row.slots
		for _, replicas := range []int{1, busy / 2, busy, busy + 1} {
			want := desired(running+waiting, target, replicas)
			if replicas >= busy && want < busy {
				t.Errorf("%s: %d busy workers of %d, and %d are wanted", row.values, busy, replicas, want)
			}
			if replicas < busy*9/10 && want <= replicas {
				t.Errorf("%s: %d workers are not enough, and %d are wanted", row.values, replicas, want)
			}
		}
		if int(target) == row.slots && desired(running, target, busy) != int(math.Ceil(running/target)) {
			t.Errorf("%s: %d", row.values, desired(running, target, busy))
		}
		if s.Spec.MaxReplicaCount < busy || s.Spec.MinReplicaCount < 1 || s.Spec.IdleReplicaCount != nil {
			t.Errorf("%s: %+v", row.values, s.Spec)
		}
		// What waiting alone would do.
		if got := desired(waiting, target, busy); got != 0 {
			t.Errorf("%d", got)
		}
	}
}

func TestWhatKEDAScales(t *testing.T) {
	eachSet(t, func(t *testing.T, r rendering) {
		scaledBy := map[string]scaled{}
		for _, o := range all[*unstructured.Unstructured](r) {
			s := scaledOf(o.Object)
			scaledBy[s.Spec.ScaleTargetRef.Name] = s
		}
		for _, d := range all[*appsv1.Deployment](r) {
			_, is := scaledBy[d.Name]
			if is != (d.Spec.Replicas == nil) {
				t.Errorf("%s: scaled by KEDA: %t, replicas %v", d.Name, is, d.Spec.Replicas)
			}
			delete(scaledBy, d.Name)
		}
		if len(scaledBy) > 0 {
			t.Errorf("nothing has these names: %v", scaledBy)
		}
	})
	trigger := func(set, name string) trigger {
		return scaledOf(one[*unstructured.Unstructured](t, renderSet(t, set), name).Object).Spec.Triggers[0]
	}
	for name, want := range map[string]string{
		"reset-batchreset-worker-default": "http://reset-batchreset-ops.phones.svc:9090/scale?driver=default 64",
		"reset-batchreset-worker-phones":  "http://reset-batchreset-ops.phones.svc:9090/scale?driver=cph&driver=lab 20",
	} {
		tr := trigger("keda", name)
		if got := tr.Metadata["url"] + " " + tr.Metadata["targetValue"]; got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		if _, err := url.Parse(tr.Metadata["url"]); err != nil {
			t.Error(err)
		}
	}
	if tr := trigger("tls", "reset-batchreset-worker-default"); !strings.HasPrefix(tr.Metadata["url"], "https://") || tr.Metadata["unsafeSsl"] != "true" {
		t.Error(tr)
	}
	if tr := trigger("keda-prometheus", "reset-batchreset-worker-default"); tr.Metadata["threshold"] != "25" || tr.Metadata["ignoreNullValues"] != "false" {
		t.Error(tr)
	}
}

// TestQueryOfKEDA has Prometheus's own tool ask the query: what runs counts, and what waits, unless its queue is paused or it is of
// other drivers.
func TestQueryOfKEDA(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatal("this test needs promtool: run .ci/setup, or install your system's prometheus package")
	}
	tr := scaledOf(one[*unstructured.Unstructured](t, renderSet(t, "keda-prometheus"), "reset-batchreset-worker-default").Object).Spec.Triggers[0]
	const test = `
evaluation_interval: 1m
rule_files: []
tests:
  - interval: 1m
    input_series:
      - {series: 'batchreset_queue_tasks{namespace="reset", instance="a1", queue="reset-0", state="active"}', values: 9000x10}
      - {series: 'batchreset_queue_tasks{namespace="reset", instance="a2", queue="reset-0", state="active"}', values: 9000x10}
      - {series: 'batchreset_queue_tasks{namespace="reset", instance="a1", queue="reset-lab-0", state="active"}', values: 1000x10}
      - {series: 'batchreset_queue_tasks{namespace="reset", instance="a1", queue="reset-0", state="pending"}', values: 0 20x9}
      - {series: 'batchreset_queue_tasks{namespace="reset", instance="a1", queue="reset-1", state="pending"}', values: 0 500x9}
      - {series: 'batchreset_queue_tasks{namespace="reset", instance="a1", queue="reset-0", state="retry"}', values: 77x10}
      - {series: 'batchreset_queue_tasks{namespace="reset", instance="a1", queue="reset-other-0", state="active"}', values: 77x10}
      - {series: 'batchreset_queue_tasks{namespace="test", instance="a1", queue="reset-0", state="active"}', values: 77x10}
      - {series: 'batchreset_queue_paused{namespace="reset", instance="a1", queue="reset-0"}', values: 0x10}
      - {series: 'batchreset_queue_paused{namespace="reset", instance="a1", queue="reset-1"}', values: 1x10}
    promql_expr_test:
      - {eval_time: 0m, expr: QUERY, exp_samples: [{value: 10000}]}
      - {eval_time: 5m, expr: QUERY, exp_samples: [{value: 10020}]}
  - interval: 1m
    input_series:
      - {series: 'batchreset_queue_paused{namespace="reset", instance="a1", queue="reset-0"}', values: 0x10}
    promql_expr_test:
      - {eval_time: 5m, expr: QUERY, exp_samples: []} # no api: KEDA must not take that for 0
`
	query, err := json.Marshal(tr.Metadata["query"])
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "test.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(test, "QUERY", string(query))), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", query, err, out)
	}
}
