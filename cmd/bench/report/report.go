package report

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// Report is what the benchmark has found out. Its JSON is what --json writes.
type Report struct {
	Machine Machine  `json:"machine"`
	Quick   bool     `json:"quick"`
	Results []Result `json:"results"`
}

// Write writes the report to a file, as JSON.
func (r Report) Write(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}

// Err returns an error that names the targets that were missed, or nil if there are none.
// A result without a figure counts as missed.
func (r Report) Err() error {
	var names []string
	for _, result := range r.Results {
		if result.Verdict().bad() {
			names = append(names, fmt.Sprintf("%s (%s)", result.Row, result.What))
		}
	}
	switch len(names) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("a target was missed: %s", names[0])
	}
	return fmt.Errorf("%d targets were missed: %s", len(names), strings.Join(names, ", "))
}
