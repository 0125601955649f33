package api_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// TestGeneratorsTakeTheContract: OpenAPI allows what is looked for here, but of what
// generators make of it some does not compile. 'make lint' runs them.
func TestGeneratorsTakeTheContract(t *testing.T) {
	raw, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var document map[string]any
	if err := yaml.Unmarshal(raw, &document); err != nil {
		t.Fatal(err)
	}
	status := regexp.MustCompile(`^([1-5]\d\d|default)$`)
	referred := map[string]bool{} // from anything but webhooks
	walk(document, "", func(pointer string, object map[string]any) {
		if _, has := object["const"]; has && object["type"] == nil {
			t.Errorf("%s: a const needs a type", pointer)
		}
		if responses, is := object["responses"].(map[string]any); is && pointer != "/components" {
			for name := range responses {
				if !status.MatchString(name) {
					t.Errorf("%s: %s stands for many statuses", pointer, name)
				}
			}
		}
		if ref, is := object["$ref"].(string); is && !strings.HasPrefix(pointer, "/webhooks/") {
			referred[strings.TrimPrefix(ref, "#")] = true
		}
	})
	components, _ := document["components"].(map[string]any)
	parameters, _ := components["parameters"].(map[string]any)
	if len(parameters) == 0 || len(referred) == 0 {
		t.Fatal("the contract has no parameters, or no references")
	}
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		if pointer := "/components/parameters/" + name; !referred[pointer] {
			t.Errorf("%s: no path has it: write it where it is used", pointer)
		}
	}
}

// walk visits every object of a document.
func walk(node any, pointer string, visit func(pointer string, object map[string]any)) {
	switch node := node.(type) {
	case map[string]any:
		visit(pointer, node)
		for name, child := range node {
			walk(child, pointer+"/"+escape(name), visit)
		}
	case []any:
		for _, child := range node {
			walk(child, pointer+"/-", visit)
		}
	}
}
