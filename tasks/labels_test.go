package tasks_test

import (
	"maps"
	"testing"

	"batchreset/tasks"
)

// What a form or a list shows of labels says the same when it comes back.
func TestLabelTextIsReadBack(t *testing.T) {
	t.Parallel()
	for want, labels := range map[string]map[string]string{
		"":                        nil,
		"rack=7":                  {"rack": "7"},
		"rack=7;site=k 1":         {"site": "k 1", "rack": "7"},
		"formula=a=b":             {"formula": "a=b"},
		`{"rack":"7;site=lab"}`:   {"rack": "7;site=lab"},
		`{"a=b":"<c>"}`:           {"a=b": "<c>"},
		`{"{\"rack\":\"":"7\"}"}`: {`{"rack":"`: `7"}`},
	} {
		text := tasks.LabelText(labels)
		if text != want {
			t.Errorf("%v are %s, not %s", labels, text, want)
		}
		if len(labels) == 0 {
			continue
		}
		if again, err := tasks.ParseLabels(text); err != nil || !maps.Equal(again, labels) {
			t.Errorf("%s is read as %v, %v", text, again, err)
		}
	}
}
