package ops

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"html/template"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// query is a query that a link of a page has as a whole: templates would escape the signs between its parts.
type query = template.URL

func queryOf(values url.Values) query { return query(values.Encode()) } //nolint:gosec // encoded

// chip is a filter of a list that is in force.
type chip struct {
	Name, Value string
	Without     query // of the list without it
}

// filterName is a filter as the query calls it, and as people do.
type filterName struct{ param, name string }

// chipsOf are the filters of a request that say something.
func chipsOf(c echo.Context, names ...filterName) (chips []chip) {
	for _, f := range names {
		value := c.QueryParam(f.param)
		if value == "" {
			continue
		}
		rest := url.Values{}
		for name, values := range c.QueryParams() {
			if name != f.param && name != "cursor" {
				rest[name] = values
			}
		}
		chips = append(chips, chip{f.name, value, queryOf(rest)})
	}
	return chips
}

// exportLimit is how many rows of a list a file has at the most.
const exportLimit = 100_000

// list is a list that can be had as a file.
type list[T any] struct {
	name  string // of the file
	heads []string
	cells func(T) []string
	// record is a row as JSON has it; nil: the row itself.
	record func(T) any
	// next returns a page of it, and the cursor of the next one, or an empty one.
	next func(cursor string) ([]T, string, error)
}

// formats are how a list can be exported, by what the query says.
var formats = map[string]string{"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl"}

// wantsFile reports whether a request asks for a list as a file.
func wantsFile(c echo.Context) bool { return c.QueryParams().Has("format") }

// export answers with a list as a file: a table for spreadsheets, or the records, one in a line. If something goes
// wrong on the way, the answer is cut off, so that nobody takes a part of the list for all of it.
func export[T any](s *site, c echo.Context, l list[T]) error {
	format := c.QueryParam("format")
	kind, known := formats[format]
	if !known {
		return s.refuse(c, http.StatusBadRequest, noChoice("format", format, slices.Sorted(maps.Keys(formats))))
	}
	rows, cursor, err := l.next(c.QueryParam("cursor"))
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return s.refuse(c, http.StatusBadRequest, e.Message)
	}
	if err != nil {
		return err
	}
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, kind)
	h.Set(echo.HeaderContentDisposition, mime.FormatMediaType("attachment", map[string]string{"filename": l.name + "." + format}))
	h.Set(echo.HeaderCacheControl, "no-store")
	h.Set(echo.HeaderXContentTypeOptions, "nosniff")
	write := writerOf(c, format, l)
	for written := 0; ; {
		for _, row := range rows[:min(len(rows), exportLimit-written)] {
			if err := write(row); err != nil {
				return nil //nolint:nilerr // whoever asked has gone
			}
			written++
		}
		if cursor == "" || written == exportLimit {
			return nil
		}
		c.Response().Flush()
		if rows, cursor, err = l.next(cursor); err != nil {
			s.Log.Error("export cut off", "path", c.Request().URL.Path, "error", err)
			panic(http.ErrAbortHandler)
		}
	}
}

// writerOf writes rows in a format.
func writerOf[T any](c echo.Context, format string, l list[T]) func(T) error {
	if format == "jsonl" {
		e := json.NewEncoder(c.Response())
		e.SetEscapeHTML(false)
		return func(row T) error {
			if l.record != nil {
				return e.Encode(l.record(row))
			}
			return e.Encode(row)
		}
	}
	w := csv.NewWriter(c.Response())
	line := func(cells []string) error {
		_ = w.Write(tasks.EscapeFormulas(cells)) // kept by w
		w.Flush()
		return w.Error()
	}
	_ = line(l.heads) // met again by the first row
	return func(row T) error { return line(l.cells(row)) }
}

// exportQuery is the query of the list as a file, from its beginning.
func exportQuery(c echo.Context, format string) query {
	q := c.QueryParams()
	all := url.Values{"format": {format}}
	for name, values := range q {
		if name != "cursor" && name != "sort" && name != "format" {
			all[name] = values
		}
	}
	return queryOf(all)
}

// exports are the queries of a list as a file.
type exports struct{ CSV, JSON query }

func exportsOf(c echo.Context) exports {
	return exports{exportQuery(c, "csv"), exportQuery(c, "jsonl")}
}

// whole are the rows of a list that is read at once.
func whole[T any](rows []T) func(string) ([]T, string, error) {
	return func(string) ([]T, string, error) { return rows, "", nil }
}

// countCells are the total and the counts of instances, as cells of a table.
func countCells(c tasks.Counts) []string {
	cells := make([]string, 0, 8)
	for _, n := range []int{c.Total(), c.Pending, c.Running, c.Retrying, c.Succeeded, c.Failed, c.Unknown, c.Cancelled} {
		cells = append(cells, strconv.Itoa(n))
	}
	return cells
}

// labelsShown is how many labels of a row are not folded away.
const labelsShown = 2

// pathedExports are the ways to a list as a file.
type pathedExports struct {
	Path    string
	Exports exports
}

// labelTexts are labels as name=value, by name.
func labelTexts(labels map[string]string) []string {
	texts := make([]string, 0, len(labels))
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		texts = append(texts, name+"="+labels[name])
	}
	return texts
}

// labelCell are labels as a cell of a table.
func labelCell(labels map[string]string) string { return strings.Join(labelTexts(labels), " ") }

// cellOf is a time as a cell of a table.
func cellOf(t tasks.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}
