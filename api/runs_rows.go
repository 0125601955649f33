package api

import (
	"bufio"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// Forms of an answer that is streamed without an envelope, a row for each instance.
const (
	formatLines = "jsonl"
	formatCSV   = "csv"

	typeLines = "application/jsonl"
	typeCSV   = "text/csv; charset=utf-8"
)

// dryRunOf streams what a run would do with each instance now.
func (s *server) dryRunOf(ctx context.Context, c echo.Context, r tasks.RunSubmission) error {
	if err := s.checkNotBefore(r.NotBefore); err != nil {
		return err
	}
	out := newRows(c, typeLines, s.sendTimeout)
	lines := json.NewEncoder(out)
	for some := range slices.Chunk(r.InstanceIDs, runBatch) {
		verdicts, err := s.verdicts(ctx, tokenOf(c), r, some)
		if err != nil {
			return err
		}
		for _, verdict := range verdicts {
			if err := lines.Encode(verdict); err != nil {
				return err
			}
		}
	}
	return out.end()
}

// verdicts says of some instances what a run would do with them. A quota does not refuse a run: what
// is over it waits.
func (s *server) verdicts(ctx context.Context, token tasks.Token, r tasks.RunSubmission, some []string) ([]dryRunInstance, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	fleet, err := s.store.Registered(ctx, some)
	if err != nil {
		return nil, err
	}
	busy, err := s.store.Locked(ctx, some)
	if err != nil {
		return nil, err
	}
	all := make([]dryRunInstance, len(some))
	for n, id := range some {
		in, registered := fleet[id]
		verdict := s.verdict(in, registered, token)
		switch g := r.Generations[id]; {
		case verdict != tasks.VerdictWouldReset:
		case g != 0 && g != in.Generation:
			verdict = tasks.VerdictReassigned
		case busy[id]:
			verdict = tasks.VerdictBusy
		}
		all[n] = dryRunInstance{id, verdict}
	}
	return all, nil
}

// runResults streams a row for each instance of a run, or for those in the given states. A run that
// waits has none.
func (s *server) runResults(c echo.Context) error {
	states, format, err := decodeResults(c.QueryParams())
	if err != nil {
		return err
	}
	run, err := s.findRun(c, s.cfg.Runs.Stored)
	if err != nil {
		return err
	}
	ctx, cancel := patient(c)
	defer cancel()
	mediaType := typeLines
	if format == formatCSV {
		mediaType = typeCSV
	}
	out := newRows(c, mediaType, s.sendTimeout)
	row, flush := rowsAsLines(out), func() error { return nil }
	if format == formatCSV {
		row, flush = rowsAsCSV(out)
	}
	if run.State != tasks.RunWaiting {
		err = s.cfg.Runs.Instances(ctx, run, func(in tasks.RunInstance) error {
			if len(states) > 0 && !slices.Contains(states, in.Item.State) {
				return nil
			}
			return row(resultOf(in))
		})
	}
	switch {
	case errors.Is(err, tasks.RunGone) && !c.Response().Committed:
		return noRun(run.ID)
	case err != nil:
		return err
	}
	if err := flush(); err != nil {
		return err
	}
	return out.end()
}

// runResult is a row of a run's results: the columns are those of 'batchreset submit --result'.
type runResult struct {
	InstanceID string          `json:"instance_id"`
	JobID      string          `json:"job_id,omitempty"`
	ItemID     string          `json:"item_id,omitempty"`
	State      tasks.ItemState `json:"state"`
	Attempts   int             `json:"attempts"`
	Code       tasks.Code      `json:"error_code,omitempty"`
	Message    string          `json:"error_msg,omitempty"`
	StartedAt  tasks.Time      `json:"started_at,omitzero"`
	FinishedAt tasks.Time      `json:"finished_at,omitzero"`
	Evidence   string          `json:"evidence,omitempty"`
}

var resultColumns = []string{"instance_id", "job_id", "item_id", "state", "attempts", "error_code", "error_msg", "started_at", "finished_at", "evidence"}

func resultOf(in tasks.RunInstance) runResult {
	it := in.Item
	return runResult{it.InstanceID, in.JobID, it.ID, it.State, it.Attempts, it.Code, it.Message, it.StartedAt, it.FinishedAt, it.Evidence}
}

func (r runResult) cells() []string {
	moment := func(t tasks.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	return []string{
		r.InstanceID, r.JobID, r.ItemID, string(r.State), strconv.Itoa(r.Attempts), string(r.Code), r.Message,
		moment(r.StartedAt), moment(r.FinishedAt), r.Evidence,
	}
}

func rowsAsLines(w io.Writer) func(runResult) error {
	lines := json.NewEncoder(w)
	lines.SetEscapeHTML(false)
	return func(r runResult) error { return lines.Encode(r) }
}

// rowsAsCSV writes the header at once. What control planes say must not become a formula.
func rowsAsCSV(w io.Writer) (row func(runResult) error, flush func() error) {
	table := csv.NewWriter(w)
	_ = table.Write(resultColumns) // Error tells
	row = func(r runResult) error { return table.Write(tasks.EscapeFormulas(r.cells())) }
	return row, func() error {
		table.Flush()
		return table.Error()
	}
}

// rowsBuffered is what is sent at a time. An error before that is answered as any other; after it the
// connection is broken, so that nobody takes a part for the whole.
const rowsBuffered = 32 << 10

// rows is an answer that is sent while it is made.
type rows struct {
	*bufio.Writer
	to *patientWriter
}

func newRows(c echo.Context, mediaType string, timeout time.Duration) rows {
	w := &patientWriter{c.Response(), http.NewResponseController(c.Response()), timeout, mediaType}
	return rows{bufio.NewWriterSize(w, rowsBuffered), w}
}

// end sends the rest, or an empty body.
func (r rows) end() error {
	if err := r.Flush(); err != nil {
		return err
	}
	r.to.begin()
	return setWriteDeadline(r.to.control, time.Now().Add(r.to.timeout)) // for what is still on its way
}

// patientWriter gives a reader some time for each piece, and not for the whole answer.
type patientWriter struct {
	w         *echo.Response
	control   *http.ResponseController
	timeout   time.Duration
	mediaType string
}

// begin sends the head of the answer, if that was not done.
func (p *patientWriter) begin() {
	if p.w.Committed {
		return
	}
	p.w.Header().Set(echo.HeaderContentType, p.mediaType)
	p.w.Header().Set(echo.HeaderXContentTypeOptions, "nosniff")
	p.w.WriteHeader(http.StatusOK)
}

func (p *patientWriter) Write(b []byte) (n int, err error) {
	err = writeWithin(p.control, p.timeout, func() error {
		p.begin()
		n, err = p.w.Write(b)
		return err
	})
	return n, err
}

// patient is the context of a request without its time for Redis: it ends when the caller hangs up. It
// is for what takes as long as a list is, after the body was read.
func patient(c echo.Context) (context.Context, context.CancelFunc) {
	unhurried(c)
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.Request().Context()))
	stop := context.AfterFunc(caller(c), cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// drain reads the rest of a body that was refused: a caller who is still sending would not see why.
func drain(c echo.Context) { _, _ = io.Copy(io.Discard, c.Request().Body) }
