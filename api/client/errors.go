package client

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
)

// ErrNoAnswer says that no whole answer came: the server could not be reached, or the
// connection was lost.
var ErrNoAnswer = errors.New("no answer")

// ErrUncertain says that no answer tells whether a batch, or a run, was accepted.
var ErrUncertain = errors.New("it may have been accepted all the same; " +
	"look with 'batchreset jobs --instance ID' (a run: 'batchreset run list') before you send it again")

// Error is an answer of the server that is not a success.
type Error struct {
	HTTPStatus int
	// Code is the envelope's error_code, or empty if the answer was none of the
	// service's: a proxy's error page, a redirect, half an answer.
	Code string
	// Message is fit for a terminal. Without a Code it says which URL answered what.
	Message   string
	RequestID string
	// RetryAfter is how long the server wants us to wait, or 0.
	RetryAfter time.Duration
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Code != "" {
		fmt.Fprintf(&b, "%s: ", e.Code)
	}
	fmt.Fprintf(&b, "%s (HTTP %d, request %s)", e.Message, e.HTTPStatus, e.RequestID)
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, "; the server asks to wait %s", e.RetryAfter)
	}
	return b.String()
}

// passing reports whether err may go away by itself: the server could not be
// reached, is overloaded or is broken.
func passing(err error) bool {
	e, answered := errors.AsType[*Error](err)
	return !answered || e.HTTPStatus >= 500 || e.HTTPStatus == http.StatusTooManyRequests
}

// refused reports whether err is an answer after which nothing was accepted for
// certain. A 5xx is not: the server, or a proxy before it, may have lost track.
func refused(err error) bool {
	const (
		tokenServiceDown = "APIGW.0613" // asked before anything is stored
		storageFull      = "RESET.0006" // nothing was stored
	)
	e, answered := errors.AsType[*Error](err)
	return answered && (e.HTTPStatus >= 300 && e.HTTPStatus < 500 || e.Code == tokenServiceDown || e.Code == storageFull)
}

func tooMany(err error) bool {
	e, answered := errors.AsType[*Error](err)
	return answered && e.HTTPStatus == http.StatusTooManyRequests
}

func retryAfter(err error) time.Duration {
	if e, answered := errors.AsType[*Error](err); answered {
		return e.RetryAfter
	}
	return 0
}

// printable makes text from elsewhere fit for one line on a terminal: whatever
// could move the cursor, change colours or turn the writing direction becomes a
// space or a question mark.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsPrint(r):
			return r
		default:
			return '?'
		}
	}, s)
}
