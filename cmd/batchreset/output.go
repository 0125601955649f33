package main

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"batchreset/api/client"
	"batchreset/tasks"
)

// outputForms are what --output takes. The first one is for people, and is meant where
// nothing is said.
var outputForms = []string{"text", "json", "jsonl", "yaml", "csv", "table"}

// outputFlag is how a command prints its result.
type outputFlag string

func (f *outputFlag) define(flags *pflag.FlagSet) {
	flags.VarP(f, "output", "o", "`form` of the result: text; json or yaml, one document; jsonl, csv or table, its rows")
	flags.BoolP("quiet", "q", false, "say nothing on standard error but what went wrong")
}

// isText reports whether the result is for people.
func (f *outputFlag) isText() bool { return f.String() == "text" }

// isDocument reports whether all that there is to say goes into one object.
func (f *outputFlag) isDocument() bool { return *f == "json" || *f == "yaml" }

func (f *outputFlag) String() string { return cmp.Or(string(*f), outputForms[0]) }

// Set implements pflag.Value.
func (f *outputFlag) Set(value string) error {
	if !slices.Contains(outputForms, value) {
		return fmt.Errorf("must be one of %s", strings.Join(outputForms, ", "))
	}
	*f = outputFlag(value)
	return nil
}

// Type implements pflag.Value.
func (f *outputFlag) Type() string { return "form" }

// view is what a command shows, in whatever form is asked for.
type view struct {
	document any                             // json and yaml; always an object
	list     string                          // or: the name of the array in it that the rows are
	rows     func(add func(any) error) error // jsonl, csv and table; nil: the document is the only one
	columns  []string                        // of csv: names of fields as they are in JSON; nil: all
	text     func(w io.Writer) error         // nil: the table
	table    func(w io.Writer) error         // nil: the columns of csv
}

// each are the rows that a list has.
func each[T any](list []T) func(add func(any) error) error {
	return func(add func(any) error) error {
		for _, row := range list {
			if err := add(row); err != nil {
				return err
			}
		}
		return nil
	}
}

// show prints what a command has to show.
func (f *outputFlag) show(w io.Writer, v view) error {
	if v.rows == nil {
		v.rows = each([]any{v.document})
	}
	switch f.String() {
	case "json", "yaml":
		return f.showDocument(w, v)
	case "jsonl":
		return v.rows(jsonLines(w).Encode)
	case "csv":
		return v.writeCSV(w)
	case "text":
		if v.text != nil {
			return v.text(w)
		}
	}
	if v.table != nil {
		return v.table(w)
	}
	return v.writeTable(w)
}

func (f *outputFlag) showDocument(w io.Writer, v view) error {
	if v.list != "" {
		all := []any{}
		if err := v.rows(func(row any) error { all = append(all, row); return nil }); err != nil {
			return err
		}
		v.document = map[string]any{v.list: all}
	}
	if *f == "json" {
		return writeJSON(w, v.document)
	}
	return writeYAML(w, v.document)
}

// said shows that something was done: to people in words, on standard error.
func (f *outputFlag) said(std *streams, document any, format string, args ...any) error {
	return f.show(std.out, view{document: document, text: func(io.Writer) error {
		_, err := fmt.Fprintf(std.err, format+"\n", args...)
		return err
	}})
}

func jsonLines(w io.Writer) *json.Encoder {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder
}

// writeJSON prints one indented document.
func writeJSON(w io.Writer, v any) error {
	encoder := jsonLines(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// writeYAML prints what JSON would be as YAML, in the same order.
func writeYAML(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var document yaml.Node // JSON is YAML, in a style of its own
	if err := errors.Join(yaml.Unmarshal(text, &document), restyle(&document)); err != nil {
		return err
	}
	encoder := yaml.NewEncoder(w)
	encoder.SetIndent(2)
	return errors.Join(encoder.Encode(&document), encoder.Close())
}

// restyle has a document from JSON look as YAML does. Text that some reader of YAML would not
// take for text, such as no, keeps its quotes.
func restyle(n *yaml.Node) error {
	if n.ShortTag() == "!!str" {
		return n.Encode(n.Value)
	}
	n.Style = 0
	for _, within := range n.Content {
		if err := restyle(within); err != nil {
			return err
		}
	}
	return nil
}

func (v view) writeCSV(w io.Writer) error {
	table := csv.NewWriter(w)
	err := v.writeCells(func(cells []string) error { return table.Write(asText(cells)) })
	table.Flush()
	return errors.Join(err, table.Error())
}

func (v view) writeTable(w io.Writer) error {
	table := newTable(w)
	head := true
	err := v.writeCells(func(cells []string) error {
		if head {
			for i, name := range cells {
				cells[i] = strings.ToUpper(strings.ReplaceAll(name, "_", " "))
			}
			head = false
		}
		table.row(cells...)
		return nil
	})
	return errors.Join(err, table.flush())
}

// writeCells has the names of the columns written, and then the cells of each row.
func (v view) writeCells(write func([]string) error) error {
	if v.columns != nil {
		if err := write(slices.Clone(v.columns)); err != nil {
			return err
		}
	}
	return v.rows(func(row any) error {
		fields, err := fieldsOf(row)
		if err != nil {
			return err
		}
		if v.columns == nil {
			v.columns = slices.Sorted(maps.Keys(fields))
			if err := write(slices.Clone(v.columns)); err != nil {
				return err
			}
		}
		cells := make([]string, len(v.columns))
		for i, name := range v.columns {
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

// failure is an error in JSON output.
type failure struct {
	Code       string `json:"error_code,omitempty"`
	Message    string `json:"error_msg"`
	HTTPStatus int    `json:"http_status,omitempty"`
	RequestID  string `json:"request_id,omitempty"`

	err error // for people
}

// newFailure takes an error apart. Its message does not repeat what has a field of its own.
func newFailure(err error) failure {
	f := failure{Message: err.Error(), err: err}
	if e, ok := errors.AsType[*client.Error](err); ok {
		f.Code, f.HTTPStatus, f.RequestID = e.Code, e.HTTPStatus, e.RequestID
		f.Message = strings.Replace(f.Message, e.Error(), e.Message, 1)
	} else if e, ok := errors.AsType[*tasks.Error](err); ok {
		f.Code = string(e.Code)
		f.Message = strings.Replace(f.Message, e.Error(), e.Message, 1)
	}
	return f
}

// trouble is the error that a command ends with, for programs.
type trouble struct {
	failure
	ExitCode int `json:"exit_code"`
}

// complain says on standard error what went wrong: to programs that asked for JSON, YAML or
// lines as one object, the last line there is.
func (f *outputFlag) complain(w io.Writer, err error, code int) {
	t := trouble{failure: newFailure(err), ExitCode: code}
	written := errors.New("nobody asked")
	switch f.String() {
	case "json", "jsonl":
		written = jsonLines(w).Encode(t)
	case "yaml":
		written = writeYAML(w, t)
	}
	if written != nil {
		fmt.Fprintln(w, "batchreset:", tasks.VisibleLines(err.Error()))
	}
}

// outputOf is the form that a command line asks for, or else the environment, also where
// something else of it cannot be read.
func outputOf(args, environ []string) (output outputFlag) {
	for _, variable := range environ {
		if value, ours := strings.CutPrefix(variable, environmentVariable("output")+"="); ours {
			_ = output.Set(value) // what cannot be understood is text
		}
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.ParseErrorsAllowlist.UnknownFlags = true
	flags.SetOutput(io.Discard)
	flags.VarP(&output, "output", "o", "")
	_ = flags.Parse(args) // what is wrong with them was said
	return output
}

// table writes rows of cells in columns. Cells may come from the server; an
// empty one, unless it is the last, is shown as a dash.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, header ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if header != nil {
		t.row(header...)
	}
	return t
}

func (t table) row(cells ...string) {
	for i, cell := range cells {
		if cell == "" && i < len(cells)-1 {
			cell = "-"
		}
		cells[i] = tasks.Visible(cell)
	}
	fmt.Fprintln(t.w, strings.Join(cells, "\t"))
}

func (t table) flush() error { return t.w.Flush() }

// clock prints a time of a record, or a dash while it is not known.
func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// took is the time between two times of a record, or a dash.
func took(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return "-"
	}
	return to.Sub(from).Round(100 * time.Millisecond).String()
}

// plural is "1 job", "2 jobs".
func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return strconv.Itoa(n) + " " + word + "s"
}

// countsInWords tells the counts that are not zero: "1 running, 3 succeeded".
func countsInWords(counts client.Counts) string {
	c := tasks.Counts(counts)
	all := map[string]int{}
	for _, state := range tasks.ItemStates {
		all[string(state)] = *c.Of(state)
	}
	return statesInWords(all)
}

// statesInWords is the same for the states of rows, which are more.
func statesInWords(counts map[string]int) string {
	var words []string
	for _, state := range rowStates {
		if n := counts[state]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(words, ", ")
}

// ended is how many items are final.
func ended(c client.Counts) int { return c.Succeeded + c.Failed + c.Unknown + c.Cancelled }

// sum adds up the counts of jobs.
func sum(jobs []client.Job) (total int, counts client.Counts) {
	for _, job := range jobs {
		total += job.Total
		addCounts(&counts, job.Counts, 1)
	}
	return total, counts
}

// addCounts adds some counts, or takes them off with a sign of -1.
func addCounts(to *client.Counts, some client.Counts, sign int) {
	all, more := (*tasks.Counts)(to), tasks.Counts(some)
	for _, state := range tasks.ItemStates {
		*all.Of(state) += sign * *more.Of(state)
	}
}

// writeSummary tells how jobs ended, and lists the instances that were not reset.
func writeSummary(w io.Writer, jobs []client.Job) error {
	total, counts := sum(jobs)
	fmt.Fprintf(w, "%s in %s: %s\n", plural(total, "instance"), plural(len(jobs), "job"), countsInWords(counts))
	if ended(counts) == counts.Succeeded {
		return nil
	}
	fmt.Fprintln(w)
	t := newTable(w, "INSTANCE", "STATE", "ATTEMPTS", "CODE", "MESSAGE")
	for _, job := range jobs {
		for _, it := range job.Items {
			if state := tasks.ItemState(it.State); state.Final() && state != tasks.ItemSucceeded {
				t.row(it.InstanceID, it.State, strconv.Itoa(it.Attempts), it.Code, it.Message)
			}
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	if counts.Unknown > 0 {
		fmt.Fprintln(w, "\nunknown: the reset was sent and nobody can say whether it happened; look at the phone before you reset it again")
	}
	return nil
}
