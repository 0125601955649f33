package httpdriver

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	"batchreset/worker"
)

// Limits of what is taken from an upstream, in bytes.
const (
	maxAnswer  = 1 << 20 // of a body
	maxMessage = 1024
	maxCode    = 64
)

// answer is what an upstream said.
type answer struct{ worker.Answer }

// location is where an accepted reset can be followed.
func (a answer) location() string {
	return cmp.Or(a.Header.Get("Operation-Location"), a.Header.Get("Location"))
}

func (a answer) empty() bool { return a.Broken == nil && len(bytes.TrimSpace(a.Body)) == 0 }

func (a answer) statusText() string {
	return strconv.Itoa(a.Status) + " " + cmp.Or(http.StatusText(a.Status), "(a status that nobody knows)")
}

// rules are what an answer is judged by.
type rules struct {
	definite   []int // server errors after which the reset is certainly not done
	idempotent bool
	words      vocabulary
}

func newRules(cfg Config) (rules, error) {
	for _, status := range cfg.Definite {
		if status/100 != 5 {
			return rules{}, fmt.Errorf("definite must list statuses from 500 to 599, not %d", status)
		}
	}
	words, err := newVocabulary(cfg.Words)
	if err != nil {
		return rules{}, fmt.Errorf("words %w", err)
	}
	return rules{definite: cfg.Definite, idempotent: cfg.Idempotent, words: words}, nil
}

// posted says what the answer to a POST means: done, or accepted and to be followed, or
// what err says. It depends on nothing but the answer.
func (r rules) posted(said answer) (accepted bool, err error) {
	_, readable := said.RetryAfter()
	switch status := said.Status; {
	case status == http.StatusAccepted && said.location() != "":
		return true, nil
	case status/100 == 2:
		return false, r.succeeded(said)
	case status == http.StatusConflict:
		return false, r.refused(said, worker.Busy, "the control plane says that the instance is busy: ")
	case status == http.StatusUnauthorized:
		return false, r.shut(said)
	case notDone(status), status == http.StatusServiceUnavailable && readable, slices.Contains(r.definite, status):
		return false, r.refused(said, worker.Retryable, "the control plane answered ")
	case status/100 == 3:
		return false, r.refused(said, worker.Permanent, "the control plane redirects, which is not followed: ")
	case status/100 == 4:
		return false, r.refused(said, worker.Permanent, "the control plane refused with ")
	}
	return false, r.refused(said, worker.Unknown, "the reset was sent, and whether it happens is not known after ")
}

// notDone says whether a status tells that the request was not even looked at.
func notDone(status int) bool {
	return slices.Contains([]int{http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests}, status)
}

// succeeded says what a 2xx to a POST means that cannot be followed.
func (r rules) succeeded(said answer) error {
	final := slices.Contains([]int{http.StatusOK, http.StatusCreated, http.StatusNoContent}, said.Status)
	if final && said.empty() {
		return nil
	}
	told, s, why := r.read(said)
	switch {
	case why != "":
		return r.notUnderstood("the reset was sent and its answer was not understood: " + why)
	case s == failed:
		return failure(said, told, "the control plane failed: ")
	case s == running:
		return r.notUnderstood("the reset was sent and goes on, and there is no way to follow it")
	case final:
		return nil
	case said.Status == http.StatusAccepted:
		return r.unknown("the control plane accepted the reset and gave no location to follow it")
	}
	return r.notUnderstood("the reset was sent and its answer was not understood: its status is " + said.statusText())
}

// polled says what the answer to a poll means: that the reset has ended, and how, or that
// it is to be asked again. Then verdict is what remains if this answer was the last.
func (r rules) polled(said answer) (over bool, verdict *worker.DriverError) {
	switch {
	case said.Status == http.StatusSeeOther:
		return true, nil // to the result, which there is only after the end
	case said.Status == http.StatusUnauthorized:
		return false, r.pending(said.statusText()+", see --driver-token-file", true)
	case notDone(said.Status), said.Status/100 == 5, said.Status == http.StatusAccepted && said.empty():
		return false, r.pending(said.statusText(), false)
	case said.Status/100 != 2, said.empty():
		return false, r.pending(said.statusText(), true)
	}
	told, s, why := r.read(said)
	switch {
	case why != "":
		return false, r.pending(said.statusText()+", which was not understood: "+why, true)
	case s == failed:
		return true, failure(said, told, "the control plane accepted the reset and failed: ")
	case s == done && (said.Status == http.StatusOK || said.Status == http.StatusCreated):
		return true, nil
	case s == running, said.Status == http.StatusAccepted:
		return false, r.pending(said.statusText(), false)
	}
	return false, r.pending(said.statusText()+", which says nothing of a state", true)
}

// read reads the body of an answer: its state, or why that is not understood.
func (r rules) read(said answer) (told account, s state, why string) {
	if said.Broken != nil {
		return account{}, "", reason(said.Broken)
	}
	if said.empty() {
		return account{}, "", ""
	}
	told = r.words.understand(said.Body)
	s, why = told.fold()
	return told, s, why
}

// refused makes a DriverError of an answer that is no success. Its body may say more.
func (r rules) refused(said answer, verdict worker.Verdict, what string) error {
	e := failure(said, r.words.understand(said.Body), what)
	e.Verdict, e.EndsDoubt = verdict, false
	e.Repeatable = verdict == worker.Unknown && r.idempotent
	return e
}

// shut is the answer of a control plane that refuses our credentials, not this reset.
func (r rules) shut(said answer) error {
	e := failure(said, r.words.understand(said.Body), "")
	e.Verdict, e.EndsDoubt = worker.Unreachable, false
	e.Message = "the control plane does not let us in, see --driver-token-file: " + e.Message
	return e
}

// failure is a reset that has failed, in the words of the answer if it has some.
func failure(said answer, told account, what string) *worker.DriverError {
	wait, _ := said.RetryAfter()
	return &worker.DriverError{
		Verdict: worker.Retryable, RetryAfter: wait, EndsDoubt: true,
		Code: worker.Printable(told.code, maxCode), Message: cmp.Or(worker.Printable(told.message, maxMessage), what+said.statusText()),
	}
}

// unknown leaves the code to the worker, which knows why it is in doubt.
func (r rules) unknown(message string) *worker.DriverError {
	return &worker.DriverError{Verdict: worker.Unknown, Message: message, Repeatable: r.idempotent}
}

func (r rules) notUnderstood(message string) *worker.DriverError {
	e := r.unknown(message)
	e.Code = worker.NotUnderstood
	return e
}

// pending is what there is to say about an accepted reset after a poll, once its time is
// over.
func (r rules) pending(last string, odd bool) *worker.DriverError {
	e := r.unknown("the control plane accepted the reset and had not finished it in time; it last answered " + last)
	if odd {
		e.Code = worker.NotUnderstood
	}
	return e
}

// reason is the text of an error of net/http, which may quote the upstream.
func reason(err error) string {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return "it was cut off"
	}
	return worker.Printable(err.Error(), maxMessage)
}
