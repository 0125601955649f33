package execdriver

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"batchreset/worker"
)

// Limits of what is taken from a program, in bytes.
const (
	maxOutput   = 1 << 20
	maxLine     = 32 << 10 // a checkpoint may be written in escapes, six times as long
	maxMessage  = 1024
	maxCode     = 64
	maxProgress = 200
)

// maxRetryAfter is the longest delay that a program can ask for: the worker's own limit.
const maxRetryAfter = time.Hour

// Words for results.
const (
	resultDone    = "done"
	resultUnknown = "unknown"
)

// verdicts are what the other results mean.
var verdicts = map[string]worker.Verdict{
	"retry":       worker.Retryable,
	"permanent":   worker.Permanent,
	"busy":        worker.Busy,
	"unreachable": worker.Unreachable,
	resultUnknown: worker.Unknown,
}

// strict refuses a field that is not known; that one is there twice is refused anyway.
var strict = json.RejectUnknownMembers(true)

// line is one line of a program's output. It has exactly one of the first four.
type line struct {
	Checkpoint *string `json:"checkpoint"`
	Progress   *string `json:"progress"`
	Result     *string `json:"result"`
	Initial    *bool   `json:"initial"`

	Code       string  `json:"code"`
	Message    string  `json:"message"`
	RetryAfter float64 `json:"retry_after"` // seconds
	Evidence   string  `json:"evidence"`
}

// text is what a line with a result says, for people.
func (l *line) text() string {
	return cmp.Or(worker.Printable(l.Message, maxMessage), "the program says "+*l.Result)
}

func (l *line) evidence() string { return worker.Printable(l.Evidence, worker.MaxEvidence) }

func (l *line) retryAfter() time.Duration {
	return time.Duration(min(l.RetryAfter, maxRetryAfter.Seconds()) * float64(time.Second))
}

// said is what a program has said.
type said struct {
	answer   *line  // its result, or what it saw
	progress string // the last
	saved    bool   // a checkpoint of this run is stored
	trouble  string // why it is not understood, or empty
}

// listener reads what a program says.
type listener struct {
	said

	looks  bool                         // in mode look
	chatty bool                         // lines that do not begin with { are not for us
	save   func(checkpoint string) bool // in mode reset
	lines  int
}

// listen reads to the end, however long that is: a program that is held up, or loses its reader,
// would stop half-way through a reset.
func (l *listener) listen(r io.Reader) {
	limited := &io.LimitedReader{R: r, N: maxOutput}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, 0, 512), maxLine)
	for lines.Scan() {
		l.lines++
		l.take(bytes.TrimSpace(lines.Bytes()))
	}
	switch err := lines.Err(); {
	case limited.N == 0:
		l.trouble = fmt.Sprintf("it is longer than %d bytes", maxOutput)
	case errors.Is(err, bufio.ErrTooLong):
		l.lines++
		l.doubt(fmt.Sprintf("is longer than %d bytes", maxLine))
	case err != nil:
		l.trouble = "it could not be read to its end: " + err.Error()
	}
	_, _ = io.Copy(io.Discard, r) // fails if it is broken, which is known by now
}

// take takes one line.
func (l *listener) take(text []byte) {
	if len(text) == 0 || l.trouble != "" || l.chatty && text[0] != '{' {
		return
	}
	var said line
	if err := json.Unmarshal(text, &said, strict); err != nil {
		l.doubt(why(err, text))
		return
	}
	if l.answer != nil {
		l.doubt("comes after the result")
		return
	}
	if trouble := l.hear(&said); trouble != "" {
		l.doubt(trouble)
	}
}

// doubt keeps the first reason not to understand the program.
func (l *listener) doubt(why string) {
	if l.trouble == "" {
		l.trouble = fmt.Sprintf("line %d %s", l.lines, why)
	}
}

// hear takes what a line says, and says what is wrong with it.
func (l *listener) hear(said *line) (trouble string) {
	kinds := 0
	for _, has := range []bool{said.Checkpoint != nil, said.Progress != nil, said.Result != nil, said.Initial != nil} {
		if has {
			kinds++
		}
	}
	if kinds != 1 {
		return "must have one of checkpoint, progress, result and initial"
	}
	switch {
	case said.Progress != nil:
		l.progress = worker.Printable(*said.Progress, maxProgress)
	case said.Checkpoint != nil:
		return l.checkpoint(*said.Checkpoint)
	case said.Result != nil:
		return l.result(said)
	case !l.looks:
		return "has initial, which is for the mode look"
	default:
		l.answer = said
	}
	return ""
}

func (l *listener) checkpoint(text string) (trouble string) {
	switch {
	case l.looks:
		return "has a checkpoint, which is for the mode reset"
	case text == "":
		return "has an empty checkpoint"
	case len(text) > worker.MaxCheckpoint:
		return fmt.Sprintf("has a checkpoint of %d bytes, and the limit is %d", len(text), worker.MaxCheckpoint)
	}
	l.saved = l.save(text) || l.saved
	return ""
}

func (l *listener) result(said *line) (trouble string) {
	_, known := verdicts[*said.Result]
	switch {
	case *said.Result == resultDone && l.looks:
		return "says done, which is no answer to a look"
	case *said.Result != resultDone && !known:
		return "has the result " + quoted(*said.Result) + ", which is not known"
	case said.RetryAfter < 0:
		return "has a negative retry_after"
	}
	l.answer = said
	return ""
}

// why says what is wrong with a line that could not be decoded.
func why(err error, text []byte) string {
	semantic, _ := errors.AsType[*json.SemanticError](err)
	syntactic, _ := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case errors.Is(err, json.ErrUnknownName):
		return "has the unknown field " + quoted(semantic.JSONPointer.LastToken())
	case errors.Is(err, jsontext.ErrDuplicateName):
		return "has twice the field " + quoted(syntactic.JSONPointer.LastToken())
	case semantic != nil && semantic.JSONPointer != "":
		return "has a value of the wrong type in " + quoted(semantic.JSONPointer.LastToken())
	}
	return "is not a JSON object: " + quoted(string(text))
}

// quoted is text from a program, for people to read.
func quoted(text string) string { return fmt.Sprintf("%q", worker.Printable(text, maxCode)) }
