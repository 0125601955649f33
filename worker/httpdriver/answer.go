package httpdriver

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"batchreset/worker"
)

// Limits of what is taken from an upstream, in bytes.
const (
	maxAnswer  = 64 << 10 // of a body that is read
	maxMessage = 1024
	maxCode    = 64
)

// answer is what an upstream said.
type answer struct {
	status     int
	header     http.Header
	retryAfter time.Duration
	broken     error // the body ended before its time

	// From a JSON body, where there is one.
	code, message, state string
}

// readAnswer reads a response to its end, or as far as maxAnswer.
func readAnswer(response *http.Response) answer {
	var body []byte
	var err error
	// After 101 there is no body but a connection, which no context ends.
	if response.StatusCode != http.StatusSwitchingProtocols {
		body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	}
	_ = response.Body.Close()
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(body, &fields) // a body that is not a JSON object says nothing
	return answer{
		status:     response.StatusCode,
		header:     response.Header,
		retryAfter: worker.RetryAfter(response.Header.Get("Retry-After"), time.Now()),
		broken:     err,
		code:       text(fields["error_code"], maxCode),
		message:    text(fields["error_msg"], maxMessage),
		state:      text(fields["status"], maxCode),
	}
}

// text is a JSON value as text: a string's content, a number's digits.
func text(raw json.RawMessage, limit int) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		s = string(raw)
	}
	return worker.Printable(s, limit)
}

// refused reports whether the body tells of an error, as KooPhone does under
// status 200.
func (a answer) refused() bool { return a.code != "" && a.code != "0" }

// failure makes a DriverError of the answer. what is used if the body gave no
// message.
func (a answer) failure(verdict worker.Verdict, what string) *worker.DriverError {
	e := &worker.DriverError{Verdict: verdict, Code: a.code, Message: a.message, RetryAfter: a.retryAfter}
	if !a.refused() {
		e.Code = ""
	}
	if e.Message == "" {
		e.Message = what + " " + strconv.Itoa(a.status) + " " + http.StatusText(a.status)
	}
	return e
}

// progress reads a poll's answer: whether the reset has ended, and how. It goes
// by the status field, in words as control planes use them or KooPhone's
// numbers; a word that is none of these is taken for running.
func (a answer) progress() (ended bool, err error) {
	switch strings.ToLower(a.state) {
	case "succeeded", "success", "successful", "completed", "complete", "done", "finished", "ok", "2":
		return true, nil
	case "":
		if !a.refused() {
			return true, nil
		}
	case "failed", "failure", "error", "canceled", "cancelled", "aborted", "-1":
	default:
		return false, nil
	}
	return true, a.failure(worker.Retryable, "the control plane accepted the reset and failed:")
}
