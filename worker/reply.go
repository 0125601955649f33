package worker

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"batchreset/tasks"
)

// Answer is what an upstream said to a driver over HTTP.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	Broken error     // why the body is not whole
	At     time.Time // when it came
}

// ReadAnswer reads a response to its end. A body of more than limit bytes is broken, and not read
// further. The caller closes it.
func ReadAnswer(response *http.Response, limit int64) Answer {
	said := Answer{Status: response.StatusCode, Header: response.Header, At: time.Now()}
	// After 101 there is no body but a connection, which no context ends.
	if response.StatusCode != http.StatusSwitchingProtocols {
		said.Body, said.Broken = io.ReadAll(io.LimitReader(response.Body, limit+1))
	}
	if int64(len(said.Body)) > limit {
		said.Broken = fmt.Errorf("it is longer than %d bytes", limit)
	}
	return said
}

// RetryAfter is the delay that the answer asks for, see the function RetryAfter.
func (a Answer) RetryAfter() (wait time.Duration, ok bool) { return RetryAfter(a.Header, a.At) }

// maxRetryAfter is the longest delay that an answer can ask for. An item ends after a day, and an
// upstream may ask for a year by mistake.
const maxRetryAfter = time.Hour

// RetryAfter reads the Retry-After header of an answer that came at now: whole seconds, or
// a time, which is judged by the answer's own Date if it has one, because the sender's
// clock need not be ours. At most an hour comes out. ok says whether there was one that
// can be read; a time that has passed is 0.
func RetryAfter(header http.Header, now time.Time) (wait time.Duration, ok bool) {
	value := header.Get("Retry-After")
	if value != "" && strings.Trim(value, "0123456789") == "" {
		seconds, err := strconv.Atoi(value)
		if err != nil || seconds > int(maxRetryAfter/time.Second) { // the error is that it is too large
			return maxRetryAfter, true
		}
		return time.Duration(seconds) * time.Second, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now = date
	}
	return min(max(0, at.Sub(now)), maxRetryAfter), true
}

// Printable makes text from outside harmless in logs and on terminals, and cuts
// it to limit bytes on a UTF-8 boundary.
func Printable(s string, limit int) string {
	s = tasks.Visible(s)
	return strings.ToValidUTF8(s[:min(len(s), limit)], "")
}
