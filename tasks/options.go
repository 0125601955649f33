package tasks

import (
	"fmt"
	"time"
	"unicode"
	"unicode/utf8"
)

// Limits of what a caller may say about a batch.
const (
	MaxReason     = 256 // characters
	MaxLabels     = 8
	MaxLabelName  = 64  // characters
	MaxLabelValue = 256 // characters
	// MaxNotBefore is how far in the future a job's start may be.
	MaxNotBefore = 7 * 24 * time.Hour
)

// CheckReason returns a sentence that says what is wrong with a reason, or nil.
func CheckReason(reason string) error { return checkText(reason, MaxReason) }

// CheckRunName returns a sentence that says what is wrong with the name of a run, or nil.
func CheckRunName(name string) error { return checkText(name, MaxRunName) }

// CheckLabels returns a sentence that says what is wrong with the labels, or nil.
func CheckLabels(labels map[string]string) error {
	if len(labels) > MaxLabels {
		return fmt.Errorf("has %d labels, the limit is %d", len(labels), MaxLabels)
	}
	for name, value := range labels {
		if name == "" {
			return fmt.Errorf("has a label without a name")
		}
		if err := checkText(name, MaxLabelName); err != nil {
			return fmt.Errorf("has the name %.80q, which %w", name, err)
		}
		if err := checkText(value, MaxLabelValue); err != nil {
			return fmt.Errorf("has the label %.80q, which %w", name, err)
		}
	}
	return nil
}

func checkText(s string, limit int) error {
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return fmt.Errorf("has a character that cannot be printed")
		}
	}
	if n := utf8.RuneCountInString(s); n > limit {
		return fmt.Errorf("is %d characters long, the limit is %d", n, limit)
	}
	return nil
}

// CheckNotBefore returns a sentence that says what is wrong with the time at which a
// job's first attempt may begin, or nil.
func CheckNotBefore(t, now time.Time) error {
	switch {
	case !t.After(now):
		return fmt.Errorf("is in the past")
	case t.After(now.Add(MaxNotBefore)):
		return fmt.Errorf("is more than %d days ahead", MaxNotBefore/(24*time.Hour))
	}
	return nil
}

// Verdict is what a dry run says of an instance.
type Verdict string

// The verdicts, the first that fits.
const (
	VerdictUnknown    Verdict = "unknown"    // not registered, or another tenant's
	VerdictReassigned Verdict = "reassigned" // it has another generation than the request says
	VerdictProtected  Verdict = "protected"
	VerdictBusy       Verdict = "busy"       // being reset: it would wait
	VerdictOverQuota  Verdict = "over_quota" // more than the tenant's limits allow now
	VerdictWouldReset Verdict = "would_reset"
)
