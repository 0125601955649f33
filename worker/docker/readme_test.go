package docker

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"batchreset/worker"
)

// What a worker asks of a driver that it calls again and looks with.
var _ interface {
	worker.Driver
	worker.Looker
	worker.Repeater
} = (*Driver)(nil)

func TestTheExampleHasSettingsThatThereAre(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(text), "```yaml\n")
	example, _, found := strings.Cut(example, "```\n")
	var file struct{ Drivers []map[string]any }
	if err := yaml.Unmarshal([]byte(example), &file); err != nil || !found || len(file.Drivers) == 0 {
		t.Fatalf("there is no example: %v", err)
	}
	for _, settings := range file.Drivers {
		if settings["type"] != "docker" {
			t.Errorf("an example of type %v", settings["type"])
		}
		for _, every := range []string{"name", "type", "concurrency", "rate", "attempt_timeout"} { // those of every type
			delete(settings, every)
		}
		own, err := yaml.Marshal(settings)
		if err != nil {
			t.Fatal(err)
		}
		var cfg Config
		d := yaml.NewDecoder(bytes.NewReader(own))
		d.KnownFields(true)
		if err := d.Decode(&cfg); err != nil {
			t.Error(err)
		}
		if err := cfg.complete(); err != nil {
			t.Error(err)
		}
	}
}
