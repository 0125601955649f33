package tasks

import (
	"strconv"
	"strings"
	"time"
)

// Steps say when an attempt did what: a letter and the milliseconds since it began, by the worker's clock, such as
// "s120 c340 l2010". It is this short because the record keeps it.
type Steps string

// StepKind is what an attempt did.
type StepKind byte

// The kinds of steps.
const (
	StepSent   StepKind = 's' // the driver was told that it may send: the reset may have been sent since
	StepSaved  StepKind = 'c' // the first checkpoint was stored
	StepLooked StepKind = 'l' // the last look at the instance was over
)

// Step is one of Steps.
type Step struct {
	Kind  StepKind
	After time.Duration // the attempt had begun
}

// With is s and one step more.
func (s Steps) With(kind StepKind, after time.Duration) Steps {
	text := string(rune(kind)) + strconv.FormatInt(max(0, after.Milliseconds()), 10)
	if s == "" {
		return Steps(text)
	}
	return s + " " + Steps(text)
}

// All reads them. What this version does not know is left out.
func (s Steps) All() (all []Step) {
	for text := range strings.FieldsSeq(string(s)) {
		kind := StepKind(text[0])
		ms, err := strconv.ParseInt(text[1:], 10, 64)
		if err != nil || kind != StepSent && kind != StepSaved && kind != StepLooked {
			continue
		}
		all = append(all, Step{kind, time.Duration(ms) * time.Millisecond})
	}
	return all
}
