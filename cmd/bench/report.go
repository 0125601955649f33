package main

import (
	"encoding/json"
	"os"
)

// report is what --json writes.
type report struct {
	Machine machine  `json:"machine"`
	Quick   bool     `json:"quick"`
	Results []judged `json:"results"`
}

// judged is a result with what follows from it.
type judged struct {
	result
	Spread  *spread `json:"spread,omitempty"`
	Verdict verdict `json:"verdict"`
}

func judge(r result) judged {
	j := judged{result: r, Verdict: r.verdict()}
	if j.Verdict == failed {
		j.Rounds = nil // JSON has no NaN
		return j
	}
	s := spreadOf(r.Rounds)
	j.Spread = &s
	return j
}

// write writes the report to a file.
func (r report) write(file string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(text, '\n'), 0o644)
}
