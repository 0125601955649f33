package call

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// rowAccepted is the state of a row of which no more is known than that it was accepted.
const rowAccepted = "accepted"

// rowStates are all states of rows, in the order in which they are told. The last ones are in
// results of earlier versions alone.
var rowStates = append(terminal.Strings(tasks.ItemStates), rowAccepted, "refused", "uncertain", "not_accepted")

// resultRow says what became of one instance.
type resultRow struct {
	InstanceID string    `json:"instance_id"`
	JobID      string    `json:"job_id,omitempty"`
	ItemID     string    `json:"item_id,omitempty"`
	State      string    `json:"state"`
	Attempts   int       `json:"attempts"`
	Code       string    `json:"error_code,omitempty"`
	Message    string    `json:"error_msg,omitempty"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	Evidence   string    `json:"evidence,omitempty"`
}

var resultColumns = []string{"instance_id", "job_id", "item_id", "state", "attempts", "error_code", "error_msg", "started_at", "finished_at", "evidence"}

// rowsOf are the rows of jobs.
func rowsOf(jobs []client.Job) (rows []resultRow) {
	for _, job := range jobs {
		for _, it := range job.Items {
			rows = append(rows, resultRow{it.InstanceID, job.ID, it.ItemID, it.State, it.Attempts, it.Code, it.Message, it.StartedAt, it.FinishedAt, it.Evidence})
		}
	}
	return rows
}

func (r resultRow) cells() []string {
	moment := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Format(time.RFC3339Nano)
	}
	return []string{r.InstanceID, r.JobID, r.ItemID, r.State, strconv.Itoa(r.Attempts), r.Code, r.Message, moment(r.StartedAt), moment(r.FinishedAt), r.Evidence}
}

// resultFile is where the rows go: to a file that is there as a whole or not at all, or
// to standard output.
type resultFile struct {
	path string // - is standard output
}

// newResultFile checks, before anything is sent, that the result can be written. An
// empty path gives none. The file of the instances is not overwritten.
func newResultFile(path, input string, output terminal.Output) (*resultFile, error) {
	switch extension := filepath.Ext(path); {
	case path == "":
		return nil, nil
	case path == "-" && !output.IsText():
		return nil, fmt.Errorf("--result - and --output %s do not go together: both are standard output", output.String())
	case path == "-":
		return &resultFile{path}, nil
	case extension != ".csv" && extension != ".jsonl" && reportsByExtension[extension] == nil:
		return nil, fmt.Errorf("--result must be a file called ….csv, ….jsonl, ….xml or ….md, or -, not %q", path)
	}
	r := &resultFile{path}
	if there, err := os.Stat(path); err == nil {
		if there.IsDir() {
			return nil, fmt.Errorf("--result %s is a directory", path)
		}
		if from, err := os.Stat(input); err == nil && os.SameFile(there, from) {
			return nil, fmt.Errorf("--result %s is the file that the instances are read from", path)
		}
	}
	f, err := r.part()
	if err == nil {
		err = errors.Join(f.Close(), os.Remove(f.Name()))
	}
	if err != nil {
		return nil, fmt.Errorf("--result cannot be written: %w", err)
	}
	return r, nil
}

// onOutput reports whether standard output is taken.
func (r *resultFile) onOutput() bool { return r != nil && r.path == "-" }

// part makes the file that is the result while it is being written: under a name that
// nothing has, so that nothing is behind it, and for its owner alone.
func (r *resultFile) part() (*os.File, error) {
	return os.CreateTemp(filepath.Dir(r.path), filepath.Base(r.path)+".*.part")
}

// eachRow calls add with rows, one after the other, until there are no more or it fails.
type eachRow func(add func(resultRow) error) error

// write writes the rows of jobs, if that is wanted.
func (r *resultFile) write(out io.Writer, jobs []client.Job) error {
	return r.writeEach(out, reportOfJobs(jobs), rowsIn(jobs))
}

// rowsIn has the rows of jobs one after the other.
func rowsIn(jobs []client.Job) eachRow {
	return func(add func(resultRow) error) error {
		for _, row := range rowsOf(jobs) {
			if err := add(row); err != nil {
				return err
			}
		}
		return nil
	}
}

// writeEach writes rows as they come, and puts the file in its place when it is whole. head is what a
// report says of all of them.
func (r *resultFile) writeEach(out io.Writer, head report, rows eachRow) error {
	if r == nil {
		return nil
	}
	if r.onOutput() {
		return writeRows(out, head, rows, ".csv")
	}
	f, err := r.part()
	if err != nil {
		return terminal.WithCode(terminal.ExitOther, fmt.Errorf("write --result: %w", err))
	}
	err = writeRows(f, head, rows, filepath.Ext(r.path))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), r.path)
	}
	if err != nil {
		return terminal.WithCode(terminal.ExitOther, fmt.Errorf("write --result: %w", errors.Join(err, os.Remove(f.Name()))))
	}
	return nil
}

func writeRows(w io.Writer, head report, rows eachRow, extension string) error {
	if write := reportsByExtension[extension]; write != nil {
		return write(w, head, rows)
	}
	buffered := bufio.NewWriter(w)
	if extension == ".jsonl" {
		lines := json.NewEncoder(buffered)
		lines.SetEscapeHTML(false)
		err := rows(func(row resultRow) error { return lines.Encode(row) })
		return errors.Join(err, buffered.Flush())
	}
	table := csv.NewWriter(buffered)
	_ = table.Write(resultColumns) // Error tells
	err := rows(func(row resultRow) error { return table.Write(tasks.EscapeFormulas(row.cells())) })
	table.Flush()
	return errors.Join(err, table.Error(), buffered.Flush())
}
