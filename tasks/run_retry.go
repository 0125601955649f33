package tasks

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// RunRetry is a round of a run after its first: what of it had not succeeded, again.
type RunRetry struct {
	First   int // its first part
	Skipped int // how many parts before that never became jobs
	Again       // of the rounds before
}

// Again selects what a retry takes: items in one of the states, and with one of the codes if there are any.
type Again struct {
	States []ItemState
	Codes  []Code
}

// Takes reports whether a retry takes an item.
func (a Again) Takes(it Item) bool {
	return slices.Contains(a.States, it.State) && (len(a.Codes) == 0 || slices.Contains(a.Codes, it.Code))
}

// InWords is what it selects, such as "failed or unknown with CPS.0005".
func (a Again) InWords() string {
	if len(a.Codes) == 0 {
		return InWords(a.States)
	}
	return InWords(a.States) + " with " + InWords(a.Codes)
}

// String is what ParseRunRetries reads one of.
func (r RunRetry) String() string {
	states := make([]string, len(r.States))
	for i, state := range r.States {
		states[i] = string(state)
	}
	text := fmt.Sprintf("%d %d %s", r.First, r.Skipped, strings.Join(states, ","))
	if len(r.Codes) == 0 { // as versions before know it
		return text
	}
	codes := make([]string, len(r.Codes))
	for i, code := range r.Codes {
		codes[i] = url.QueryEscape(string(code)) // upstreams make them up
	}
	return text + " " + strings.Join(codes, ",")
}

// FormatRunRetries is what ParseRunRetries reads.
func FormatRunRetries(retries []RunRetry) string {
	texts := make([]string, len(retries))
	for i, r := range retries {
		texts[i] = r.String()
	}
	return strings.Join(texts, ";")
}

// ParseRunRetries reads retries; "" is none.
func ParseRunRetries(text string) (retries []RunRetry, err error) {
	if text == "" {
		return nil, nil
	}
	for one := range strings.SplitSeq(text, ";") {
		fields := strings.Split(one, " ")
		if len(fields) != 3 && len(fields) != 4 {
			return nil, fmt.Errorf("%.80q is not a retry", one)
		}
		var r RunRetry
		if r.First, err = strconv.Atoi(fields[0]); err != nil {
			return nil, err
		}
		if r.Skipped, err = strconv.Atoi(fields[1]); err != nil {
			return nil, err
		}
		for state := range strings.SplitSeq(fields[2], ",") {
			r.States = append(r.States, ItemState(state))
		}
		if len(fields) == 4 {
			for code := range strings.SplitSeq(fields[3], ",") {
				if code, err = url.QueryUnescape(code); err != nil {
					return nil, err
				}
				r.Codes = append(r.Codes, Code(code))
			}
		}
		retries = append(retries, r)
	}
	return retries, nil
}

// RoundOf is in which round a part is, from 1 on.
func (r Run) RoundOf(part int) int {
	round := 1
	for round <= len(r.Retries) && part >= r.Retries[round-1].First {
		round++
	}
	return round
}

// Made reports whether a part was taken to become a job.
func (r Run) Made(part int) bool {
	if round := r.RoundOf(part); round <= len(r.Retries) {
		next := r.Retries[round-1]
		return part < next.First-next.Skipped
	}
	return part < r.Next
}

// Retried reports whether an instance that ended like this, in a part, was taken into a later round: then that one
// says what became of it.
func (r Run) Retried(part int, it Item) bool {
	return slices.ContainsFunc(r.Retries[r.RoundOf(part)-1:], func(later RunRetry) bool { return later.Takes(it) })
}

// FirstPart is the first part of this round.
func (r Run) FirstPart() int {
	if len(r.Retries) == 0 {
		return 0
	}
	return r.Retries[len(r.Retries)-1].First
}
