package cph

import (
	"cmp"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"batchreset/worker"
)

// Limits of what is taken from outside, in bytes.
const (
	maxBody    = 256 << 10
	maxHeader  = 64 << 10 // a token of IAM may have 32 KiB
	maxMessage = 1024
	maxCode    = 64
)

// throttled is how long we wait after 429 if the answer does not say: refused calls count, too.
const throttled = time.Minute

// reply is what CPH, or the gateway in front of it, answered.
type reply struct{ worker.Answer }

// ok says whether the call succeeded. CPH documents 200, and 201 for POST.
func (r reply) ok() bool { return r.Status == http.StatusOK || r.Status == http.StatusCreated }

// decode reads the body. Names must be spelled exactly and stand there once.
func (r reply) decode(into any) error {
	if errors.Is(r.Broken, io.ErrUnexpectedEOF) {
		return errors.New("it was cut off")
	}
	if r.Broken != nil {
		return r.Broken
	}
	if err := json.Unmarshal(r.Body, into, jsontext.AllowInvalidUTF8(true)); err != nil {
		return errors.New(worker.Printable(err.Error(), 200))
	}
	return nil
}

// fault is why a call brought no answer that can be used.
type fault struct {
	class   class
	status  int // of the answer, or 0
	code    string
	message string
	wait    time.Duration // that the answer asks for, or 0
}

// refusal is the fault of an answer that is no success.
func refusal(said reply) *fault {
	var told struct {
		Code    string `json:"error_code"`
		Message string `json:"error_msg"`
	}
	if said.decode(&told) != nil { // what was read of it until then is no answer: its status must do
		told.Code, told.Message = "", ""
	}
	f := &fault{class: classify(said, told.Code), status: said.Status, code: worker.Printable(told.Code, maxCode)}
	f.message = cmp.Or(worker.Printable(told.Message, maxMessage), strconv.Itoa(said.Status)+" "+http.StatusText(said.Status))
	f.wait, _ = said.RetryAfter()
	if f.wait == 0 && f.class == later && said.Status == http.StatusTooManyRequests {
		f.wait = throttled
	}
	return f
}

// misread is the fault of a success that says nothing that we understand.
func misread(why string) *fault {
	return &fault{class: doubtful, code: worker.NotUnderstood, message: "its answer was not understood: " + why}
}

// Error makes a fault an error, for those that authorize.
func (f *fault) Error() string { return strings.TrimSpace(f.code + " " + f.message) }

// as makes it a driver's error. What says what was being done.
func (f *fault) as(verdict worker.Verdict, what string) *worker.DriverError {
	if verdict == worker.Unreachable && f.status != 0 {
		what += ": we are not let in (see access_key_file or iam_user, project_id, endpoint)"
	}
	return &worker.DriverError{Verdict: verdict, Code: f.code, Message: worker.Printable(what+": "+f.message, maxMessage), RetryAfter: f.wait}
}

// unsent makes it the error of an attempt that has sent nothing, so that nothing is in doubt.
func (f *fault) unsent() *worker.DriverError {
	verdict := f.class.verdict()
	if verdict == worker.Unknown {
		verdict = worker.Retryable
	}
	return f.as(verdict, "nothing was sent")
}
