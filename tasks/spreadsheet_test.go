package tasks

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNoCellIsAFormula(t *testing.T) {
	for cell, want := range map[string]string{
		"phone-1":                    "phone-1",
		"it's 1 + 1 = 2":             "it's 1 + 1 = 2",
		"":                           "",
		"'tis":                       "'tis",
		`=HYPERLINK("http://x","y")`: `'=HYPERLINK("http://x","y")`,
		"+1":                         "'+1",
		"-1":                         "-1",
		"-1+1":                       "'-1+1",
		"@SUM(A1)":                   "'@SUM(A1)",
		"\t=1":                       "'\t'=1",
		"\r=1":                       "'\r'=1",
		" =1":                        "' =1",
		"'=1":                        "''=1",
		"＝1":                         "'＝1",
		"no;=1":                      "no;'=1",
		"no\n=1;x":                   "no\n'=1;x",
		"no\n\n-1":                   "no\n\n'-1",
		`no;"=1`:                     `no;'"=1`,
		`no; "' "-1`:                 `no;' "' "-1`,
		`{"a":"-1"}`:                 `{"a":"-1"}`,
	} {
		if got := EscapeFormulas([]string{cell})[0]; got != want {
			t.Errorf("%q becomes %q, want %q", cell, got, want)
		}
	}
}

func TestCellsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cell := rapid.StringOfN(rapid.RuneFrom([]rune("=+-@\t\r\n; '\"aä＝")), 0, 12, -1).Draw(t, "cell")
		written := EscapeFormulas([]string{cell})[0]
		if got := UnescapeFormulas(written); got != cell {
			t.Fatalf("%q is written as %q and comes back as %q", cell, written, got)
		}
		for _, part := range append(atSemicolons(t, written), strings.FieldsFunc(written, func(r rune) bool { return strings.ContainsRune(";\t\r\n", r) })...) {
			if strings.IndexAny(strings.TrimLeft(part, " "), "=+-@＝") == 0 {
				t.Fatalf("%q has the formula %q", written, part)
			}
		}
	})
}

// atSemicolons are the cells that a spreadsheet finds in a cell of ours, after another one, if
// semicolons are between cells for it.
func atSemicolons(t *rapid.T, cell string) []string {
	var line bytes.Buffer
	table := csv.NewWriter(&line)
	_ = table.Write([]string{"phone-1", cell}) // Error tells
	table.Flush()
	if table.Error() != nil {
		t.Fatal(table.Error())
	}
	cells := strings.Split(line.String(), ";")
	for i := range cells {
		cells[i] = strings.TrimLeft(cells[i], `"`)
	}
	return cells[1:]
}
