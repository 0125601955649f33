package httpdriver

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"batchreset/worker"
)

// maxAnswer is how much of an answer's body is read.
const maxAnswer = 64 << 10

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
	a := answer{status: response.StatusCode, header: response.Header}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	_ = response.Body.Close()
	a.broken = err
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(body, &fields) // a body that is not a JSON object says nothing
	a.code, a.message, a.state = text(fields["error_code"]), text(fields["error_msg"]), text(fields["status"])
	a.retryAfter = retryAfter(response.Header.Get("Retry-After"), time.Now())
	return a
}

// text is a JSON value as text: a string's content, a number's digits.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		s = string(raw)
	}
	return printable(s)
}

// printable makes text from outside harmless in logs and on terminals.
func printable(s string) string {
	return strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s), "")
}

// retryAfter reads a Retry-After header in either form; 0 when there is none.
func retryAfter(header string, now time.Time) time.Duration {
	if header == "" {
		return 0
	}
	if seconds, err := strconv.Atoi(header); err == nil {
		seconds = min(max(0, seconds), int(maxRetryAfter.Seconds()))
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return min(max(0, at.Sub(now)), maxRetryAfter)
	}
	return 0
}

// maxRetryAfter bounds what an upstream can ask for: an item's time is a day.
const maxRetryAfter = 24 * time.Hour

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

// progress is how far a polled reset has come.
type progress int

const (
	running progress = iota
	done
	failed
)

// progress reads the status field of a poll's answer: words as control planes
// use them, or KooPhone's numbers. Without one, the answer's own status counts.
func (a answer) progress() progress {
	switch strings.ToLower(a.state) {
	case "":
		if a.refused() {
			return failed
		}
		return done
	case "succeeded", "success", "successful", "completed", "complete", "done", "finished", "ok", "2":
		return done
	case "failed", "failure", "error", "canceled", "cancelled", "aborted", "-1":
		return failed
	}
	return running
}
