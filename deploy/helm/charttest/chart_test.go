package charttest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

const (
	chartDir  = "../batchreset"
	release   = "reset"
	namespace = "phones"
)

// sets are the sets of values in ci, by name.
func sets(t *testing.T) map[string]map[string]any {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chartDir, "ci", "*-values.yaml"))
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	all := map[string]map[string]any{}
	for _, file := range files {
		values, err := chartutil.ReadValuesFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(file), "-values.yaml")] = values
	}
	return all
}

var loaded = sync.OnceValues(func() (*chart.Chart, error) { return loader.LoadDir(chartDir) })

// loadChart is the chart as it is, for all tests.
func loadChart(t *testing.T) *chart.Chart {
	t.Helper()
	c, err := loaded()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// of reads values from YAML.
func of(t *testing.T, text string) map[string]any {
	t.Helper()
	values, err := chartutil.ReadValues([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// tryRender renders the chart as 'helm template' does, the schema included. The map is of templates.
func tryRender(t *testing.T, values map[string]any) (map[string]string, error) {
	t.Helper()
	return renderChart(loadChart(t), values)
}

func renderChart(c *chart.Chart, values map[string]any) (map[string]string, error) {
	options := chartutil.ReleaseOptions{Name: release, Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, values, options, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	return engine.Engine{Strict: true}.Render(c, all)
}

// document is an object that the chart makes.
type document struct {
	Template string
	Text     string
	Kind     string
	Object   runtime.Object // of Kubernetes or of Prometheus's operator; else *unstructured.Unstructured
	Meta     metav1.Object
}

// strict decodes what it knows, and refuses unknown and duplicate fields.
var strict = func() runtime.Decoder {
	if err := monitoring.AddToScheme(scheme.Scheme); err != nil {
		panic(err)
	}
	return json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
}()

func decode(text []byte) (document, error) {
	d := document{Text: string(text)}
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(text, &kind); err != nil {
		return d, err
	}
	d.Kind = kind.Kind
	if strings.HasPrefix(kind.APIVersion, "keda.sh/") {
		found := &unstructured.Unstructured{}
		if err := yaml.UnmarshalStrict(text, &found.Object); err != nil {
			return d, err
		}
		d.Object, d.Meta = found, found
		return d, checkScaledObject(found.Object)
	}
	found, _, err := strict.Decode(text, nil, nil)
	if err != nil {
		return d, err
	}
	d.Object, d.Meta = found, found.(metav1.Object)
	return d, nil
}

// documentsOf are all objects in rendered templates.
func documentsOf(t *testing.T, rendered map[string]string) (all []document) {
	t.Helper()
	for template, text := range rendered {
		if strings.Contains(text, "<no value>") || strings.Contains(text, "%!") {
			t.Errorf("%s has a value that is missing:\n%s", template, text)
		}
		if strings.HasSuffix(template, ".txt") || strings.HasSuffix(template, ".tpl") {
			continue
		}
		reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text)))
		for {
			text, err := reader.Read()
			if errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", template, err)
			}
			if isEmpty(text) {
				continue
			}
			d, err := decode(text)
			if err != nil {
				t.Errorf("%s: %v:\n%s", template, err, text)
				continue
			}
			d.Template = template
			all = append(all, d)
		}
	}
	return all
}

func isEmpty(text []byte) bool {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

// eachSet runs a test on what the chart makes of each set of values.
func eachSet(t *testing.T, test func(t *testing.T, s rendering)) {
	for name := range sets(t) {
		t.Run(name, func(t *testing.T) { test(t, renderSet(t, name)) })
	}
}

var renderedSets = map[string]rendering{}

// renderSet is what the chart makes of a set of values, once for all tests.
func renderSet(t *testing.T, name string) rendering {
	t.Helper()
	if _, there := renderedSets[name]; !there {
		renderedSets[name] = render(t, sets(t)[name])
	}
	return renderedSets[name]
}

func TestEverySetIsLintedAndDecoded(t *testing.T) {
	for name, values := range sets(t) {
		t.Run(name, func(t *testing.T) {
			for _, m := range lint.All(chartDir, values, namespace, true).Messages {
				if m.Severity > support.InfoSev {
					t.Error(m)
				}
			}
			seen := map[string]bool{}
			for _, d := range renderSet(t, name).documents {
				id := d.Kind + " " + d.Meta.GetName()
				if seen[id] {
					t.Errorf("%s is there twice", id)
				}
				seen[id] = true
				if problems := validation.IsDNS1123Label(d.Meta.GetName()); len(problems) > 0 {
					t.Errorf("%s: %v", id, problems)
				}
				if n := d.Meta.GetNamespace(); n != "" {
					t.Errorf("%s is in %s, not where the release is", id, n)
				}
				for key, value := range d.Meta.GetLabels() {
					if problems := append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...); len(problems) > 0 {
						t.Errorf("%s: label %s: %v", id, key, problems)
					}
				}
			}
			if len(seen) < 5 {
				t.Errorf("only %v", seen)
			}
		})
	}
}

// TestStrictDecoding makes sure that the other tests see what is wrong.
func TestStrictDecoding(t *testing.T) {
	for text, want := range map[string]string{
		"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {port: 1}":                                                                                                                            "unknown field",
		"apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {}\nspec: {}":                                                                                                                         "already set",
		"apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {name: a}\nspec: {endpoint: []}":                                                                                          "unknown field",
		"apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: a}\nspec: {triggers: []}":                                                                                                    "scaleTargetRef",
		"apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: a}\nspec: {scaleTargetRef: {name: a}, triggers: [], minReplicas: 1}":                                                         "minReplicas",
		"apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: a}\nspec: {scaleTargetRef: {name: a}, triggers: [{type: metrics-api, metadata: {targetValue: 1}}]}":                          "got number, want string",
		"apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata: {name: a}\nspec: {scaleTargetRef: {name: a}, triggers: [{type: metrics-api, metadata: {url: a, valueLocation: b, target: \"1\"}}]}": "does not have target",
	} {
		if _, err := decode([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\n%v, want %s", text, err, want)
		}
	}
}

// rendering is what the chart makes, by kind.
type rendering struct {
	values    map[string]any // with the chart's own
	documents []document
	notes     string
}

func render(t *testing.T, values map[string]any) rendering {
	t.Helper()
	all, err := chartutil.CoalesceValues(loadChart(t), values)
	if err != nil {
		t.Fatal(err)
	}
	texts, err := tryRender(t, values)
	if err != nil {
		t.Fatal(err)
	}
	return rendering{all, documentsOf(t, texts), texts["batchreset/templates/NOTES.txt"]}
}

// value is one of the values.
func (r rendering) value(path string) any {
	var at any = r.values
	for key := range strings.SplitSeq(path, ".") {
		table, ok := at.(map[string]any)
		if !ok {
			if v, is := at.(chartutil.Values); is {
				table = v
			}
		}
		at = table[key]
	}
	return at
}

// all are the objects of a type.
func all[T any](r rendering) (found []T) {
	for _, d := range r.documents {
		if o, ok := d.Object.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

// one is the object of a type with a name.
func one[T metav1.Object](t *testing.T, r rendering, name string) (found T) {
	t.Helper()
	for _, o := range all[T](r) {
		if o.GetName() == name {
			return o
		}
	}
	t.Fatalf("there is no %T %s", found, name)
	return found
}

// environment is that of a container; values from elsewhere are empty.
func environment(c corev1.Container) map[string]string {
	env := map[string]string{}
	for _, e := range c.Env {
		env[e.Name] = e.Value
	}
	return env
}

// TestCopies keeps what the chart has of other directories the same: Helm reads nothing outside of a chart.
// To copy anew: UPDATE_CHART=1 go test -count=1 ./...
func TestCopies(t *testing.T) {
	for to, from := range map[string]string{"rules.yaml": "prometheus/rules.yaml", "dashboard.json": "grafana/batchreset.json"} {
		want, err := os.ReadFile(filepath.Join("../..", from))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(chartDir, "files", to)
		if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, want) {
			continue
		}
		if os.Getenv("UPDATE_CHART") == "" {
			t.Errorf("%s is not deploy/%s: UPDATE_CHART=1 go test -count=1 ./...", path, from)
			continue
		}
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(fmt.Errorf("copy: %w", err))
		}
	}
}
