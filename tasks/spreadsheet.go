package tasks

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// number is a cell that is one, whatever a spreadsheet does with it.
var number = regexp.MustCompile(`^-?[0-9]+(\.[0-9]+)?$`)

// EscapeFormulas has a spreadsheet show the cells of a table as they are: a cell that would be a
// formula gets an apostrophe before it, as people type one. Their text comes from elsewhere,
// from a control plane for example. One that splits lines at semicolons or in the middle of
// a quoted cell finds no formula there either: to such a one, the quote that is doubled after a
// semicolon is an empty text before what follows.
func EscapeFormulas(cells []string) []string {
	for i, cell := range cells {
		if number.MatchString(cell) {
			continue
		}
		var b strings.Builder
		begins := true
		for j := range len(cell) {
			if begins && isFormula(cell[j:]) {
				b.WriteByte('\'')
			}
			b.WriteByte(cell[j])
			begins = mayEndCell(cell[j])
		}
		cells[i] = b.String()
	}
	return cells
}

// UnescapeFormulas undoes EscapeFormulas for one cell.
func UnescapeFormulas(cell string) string {
	var b strings.Builder
	begins := true
	for j := range len(cell) {
		if begins && cell[j] == '\'' && isFormula(cell[j:]) {
			begins = false
			continue
		}
		b.WriteByte(cell[j])
		begins = mayEndCell(cell[j])
	}
	return b.String()
}

// isFormula reports whether a cell may be taken for a formula, now or without apostrophes and quotes.
func isFormula(cell string) bool {
	cell = strings.TrimLeft(cell, `'" `)
	return strings.IndexAny(cell, "=+-@\t\r＝＋－＠") == 0
}

func mayEndCell(b byte) bool { return strings.IndexByte(";\t\r\n", b) >= 0 }

// CSVColumns finds the columns of a table by its first line, which has no others.
func CSVColumns(header, known []string) (map[string]int, error) {
	columns := map[string]int{}
	for i, name := range header {
		name = strings.TrimSpace(name)
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("unknown column %.80q%s", name, DidYouMean(name, known))
		}
		if _, again := columns[name]; again {
			return nil, fmt.Errorf("the column %s is there twice", name)
		}
		columns[name] = i
	}
	return columns, nil
}
