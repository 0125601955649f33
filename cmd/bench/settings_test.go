package main

import (
	"io"
	"strings"
	"testing"
)

func TestFlags(t *testing.T) {
	for _, row := range []struct{ args, want string }{
		{"--rounds 0 --rows submit,start", ""},
		{"--quick --profile p --json j --keep k", ""},
		{"--rows submit,finish", `there is no row "finish"; the rows are submit, signed, drain,`},
		{"--rounds 101", "--rounds must be from 1 to 100, not 101"},
		{"now", `unexpected argument "now"`},
	} {
		_, err := parse(strings.Fields(row.args), io.Discard)
		if got := errorText(err); row.want == "" && err != nil || !strings.Contains(got, row.want) {
			t.Errorf("%s: got %q, want %q", row.args, got, row.want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
