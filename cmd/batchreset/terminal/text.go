package terminal

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"batchreset/tasks"
)

// Strings are strings of another type as strings.
func Strings[S ~string](list []S) (all []string) {
	for _, s := range list {
		all = append(all, string(s))
	}
	return all
}

// PastTime reads a time, or a duration before now; the zero time if text is empty.
func PastTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	ago, err := time.ParseDuration(text)
	if err != nil || ago < 0 {
		return time.Time{}, fmt.Errorf("--%s must be a time such as 2026-01-02T15:04:05Z or a duration such as 2h, not %q", flag, text)
	}
	return now.Add(-ago), nil
}

// ComingTime reads a time, or a duration from now; the zero time if text is empty.
func ComingTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		var ahead time.Duration
		if ahead, err = time.ParseDuration(text); err != nil {
			return time.Time{}, fmt.Errorf("--%s must be a time such as 2027-01-02T15:04:05Z or a duration such as 48h, not %q", flag, text)
		}
		t = now.Add(ahead)
	}
	if !t.After(now) {
		return time.Time{}, fmt.Errorf("--%s is in the past", flag)
	}
	return t.UTC(), nil
}

// Clock prints a time of a record, or a dash while it is not known.
func Clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

// Took is the time between two times of a record, or a dash.
func Took(from, to time.Time) string {
	if from.IsZero() || to.IsZero() {
		return "-"
	}
	return to.Sub(from).Round(100 * time.Millisecond).String()
}

// Plural is "1 job", "2 jobs".
func Plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return strconv.Itoa(n) + " " + word + "s"
}

// WithoutCode drops the code from an error that is shown on a terminal.
func WithoutCode(err error) error {
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return errors.New(e.Message)
	}
	return err
}

// NotNil makes an empty list of none, for JSON.
func NotNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// Line is the text of a view that is one line.
func Line(text string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := fmt.Fprintln(w, text)
		return err
	}
}

// Join lists names as flags do.
func Join[S ~string](names []S) string { return strings.Join(Strings(names), ",") }

// SomeIDs names IDs, if they are not too many for a sentence.
func SomeIDs(ids []string) string {
	const atMost = 8
	if len(ids) > atMost {
		return strings.Join(ids[:atMost], " ") + " …"
	}
	return strings.Join(ids, " ")
}
