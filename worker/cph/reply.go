package cph

import (
	"cmp"
	"errors"
	"fmt"
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
type reply struct {
	status int
	header http.Header
	body   []byte
	broken error     // why the body is not whole
	at     time.Time // when it came
}

var errTooLong = fmt.Errorf("it is longer than %d bytes", maxBody)

// readReply reads a response to its end, or as far as maxBody.
func readReply(response *http.Response) reply {
	said := reply{status: response.StatusCode, header: response.Header, at: time.Now()}
	// After 101 there is no body but a connection, which no context ends.
	if response.StatusCode != http.StatusSwitchingProtocols {
		said.body, said.broken = io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	}
	_ = response.Body.Close()
	if len(said.body) > maxBody {
		said.broken = errTooLong
	}
	return said
}

// ok says whether the call succeeded. CPH documents 200, and 201 for POST.
func (r reply) ok() bool { return r.status == http.StatusOK || r.status == http.StatusCreated }

// retryAfter is what the answer asks for, if that can be read.
func (r reply) retryAfter() (wait time.Duration, ok bool) { return worker.RetryAfter(r.header, r.at) }

// decode reads the body. Names must be spelled exactly and stand there once.
func (r reply) decode(into any) error {
	if errors.Is(r.broken, io.ErrUnexpectedEOF) {
		return errors.New("it was cut off")
	}
	if r.broken != nil {
		return r.broken
	}
	if err := json.Unmarshal(r.body, into, jsontext.AllowInvalidUTF8(true)); err != nil {
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
	f := &fault{class: classify(said, told.Code), status: said.status, code: worker.Printable(told.Code, maxCode)}
	f.message = cmp.Or(worker.Printable(told.Message, maxMessage), strconv.Itoa(said.status)+" "+http.StatusText(said.status))
	f.wait, _ = said.retryAfter()
	if f.wait == 0 && f.class == later && said.status == http.StatusTooManyRequests {
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
