package terminal

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"batchreset/tasks"
)

func (v View) writeCSV(w io.Writer) error {
	table := csv.NewWriter(w)
	err := v.writeCells(func(cells []string) error { return table.Write(tasks.EscapeFormulas(cells)) })
	table.Flush()
	return errors.Join(err, table.Error())
}

func (v View) writeTable(w io.Writer) error {
	table := NewTable(w)
	head := true
	err := v.writeCells(func(cells []string) error {
		if head {
			for i, name := range cells {
				cells[i] = strings.ToUpper(strings.ReplaceAll(name, "_", " "))
			}
			head = false
		}
		table.Row(cells...)
		return nil
	})
	return errors.Join(err, table.Flush())
}

// writeCells has the names of the columns written, and then the cells of each row.
func (v View) writeCells(write func([]string) error) error {
	if v.Columns != nil {
		if err := write(slices.Clone(v.Columns)); err != nil {
			return err
		}
	}
	return v.Rows(func(row any) error {
		fields, err := fieldsOf(row)
		if err != nil {
			return err
		}
		if v.Columns == nil {
			v.Columns = slices.Sorted(maps.Keys(fields))
			if err := write(slices.Clone(v.Columns)); err != nil {
				return err
			}
		}
		cells := make([]string, len(v.Columns))
		for i, name := range v.Columns {
			cells[i] = fields.cell(name)
		}
		return write(cells)
	})
}

// fields are what a row has in JSON.
type fields map[string]any

func fieldsOf(row any) (f fields, err error) {
	text, err := json.Marshal(row)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	return f, decoder.Decode(&f)
}

// cell is a field as text; a.b is the field b of the field a.
func (f fields) cell(name string) string {
	name, within, deeper := strings.Cut(name, ".")
	switch value := f[name].(type) {
	case nil:
		return ""
	case map[string]any:
		if deeper {
			return fields(value).cell(within)
		}
	case []any:
		if !slices.ContainsFunc(value, isObject) {
			return strings.TrimSuffix(fmt.Sprintln(value...), "\n") // with spaces between them
		}
	default:
		return fmt.Sprint(value)
	}
	text, err := json.Marshal(f[name])
	if err != nil {
		return err.Error() // cannot be: it was read from JSON
	}
	return string(text)
}

func isObject(v any) bool {
	_, is := v.(map[string]any)
	return is
}

// Table writes rows of cells in columns. Cells may come from the server; an
// empty one, unless it is the last, is shown as a dash.
type Table struct{ w *tabwriter.Writer }

// NewTable makes a table that goes to w when it is flushed. Without a header it has none.
func NewTable(w io.Writer, header ...string) Table {
	t := Table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if header != nil {
		t.Row(header...)
	}
	return t
}

// Row adds a row.
func (t Table) Row(cells ...string) {
	for i, cell := range cells {
		if cell == "" && i < len(cells)-1 {
			cell = "-"
		}
		cells[i] = tasks.Visible(cell)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

// Flush writes the table.
func (t Table) Flush() error { return t.w.Flush() }
