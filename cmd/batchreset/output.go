package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"batchreset/api/client"
	"batchreset/tasks"
)

// outputFlag is how a command prints its result; text unless set.
type outputFlag string

func (f *outputFlag) define(flags *pflag.FlagSet) {
	flags.Var(f, "output", "form of the result: 'text' or 'json'")
}

func (f *outputFlag) json() bool { return *f == "json" }

func (f *outputFlag) String() string {
	if *f == "" {
		return "text"
	}
	return string(*f)
}

// Set implements pflag.Value.
func (f *outputFlag) Set(value string) error {
	if value != "text" && value != "json" {
		return errors.New("must be 'text' or 'json'")
	}
	*f = outputFlag(value)
	return nil
}

// Type implements pflag.Value.
func (f *outputFlag) Type() string { return "format" }

// writeJSON prints one indented document.
func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// failure is an error in JSON output.
type failure struct {
	Code    string `json:"error_code,omitempty"`
	Message string `json:"error_msg"`
}

func newFailure(err error) failure {
	f := failure{Message: err.Error()}
	if e, ok := errors.AsType[*client.Error](err); ok {
		f.Code = e.Code
	}
	return f
}

// table writes rows of cells in columns. Cells may come from the server; an
// empty one, unless it is the last, is shown as a dash.
type table struct{ w *tabwriter.Writer }

func newTable(w io.Writer, header ...string) table {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	t.row(header...)
	return t
}

func (t table) row(cells ...string) {
	for i, cell := range cells {
		if cell == "" && i < len(cells)-1 {
			cell = "-"
		}
		cells[i] = client.Printable(cell)
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
