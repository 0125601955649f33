package tasks

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// JobFilter selects among a tenant's jobs. An empty field selects everything.
type JobFilter struct {
	State      JobState
	InstanceID string
	// Labels are texts name=value, of which a job must have all.
	Labels []string
	// Since and Until bound the time of creation: from Since on, and before Until.
	Since, Until time.Time
	// Request is that of the job; operators look for it.
	Request RequestFilter
	Limit   int    // at least 1
	Cursor  string // from the answer before
}

// Match reports whether the filter's state, instance and labels fit the job.
func (f JobFilter) Match(job Job) bool {
	return (f.State == "" || f.State == job.State) &&
		(f.InstanceID == "" || slices.ContainsFunc(job.Items, func(it Item) bool {
			return it.InstanceID == f.InstanceID
		})) &&
		hasLabels(job.Labels, f.Labels) && f.Request.Match(job.RequestID, job.Traceparent)
}

// Possible reports whether a job may match, judged by what is known without reading its items:
// whether it has ended, and whether it was ever stopped.
func (f JobFilter) Possible(ended, stopped bool) bool {
	switch f.State {
	case "":
		return true
	case JobCancelled:
		return ended && stopped
	default:
		return ended == f.State.Final()
	}
}

// RequestFilter selects what a request has made. An empty field selects everything.
type RequestFilter struct {
	RequestID, TraceID string
	Either             string // the ID of the request, or of its trace
}

// Match reports whether the IDs of a request and of its trace fit.
func (f RequestFilter) Match(requestID, traceparent string) bool {
	trace := traceID(traceparent)
	return (f.RequestID == "" || f.RequestID == requestID) && (f.TraceID == "" || f.TraceID == trace) &&
		(f.Either == "" || f.Either == requestID || f.Either == trace)
}

// hasLabels reports whether labels have all of those that a filter says. It compares their texts as a
// whole: a name may have an equals sign in it.
func hasLabels(labels map[string]string, texts []string) bool {
	for _, text := range texts {
		found := false
		for name, value := range labels {
			found = found || name+"="+value == text
		}
		if !found {
			return false
		}
	}
	return true
}

// Fingerprint differs for filters that select different jobs. Limit and Cursor are not part of
// it.
func (f JobFilter) Fingerprint() string {
	parts := []string{string(f.State), f.InstanceID}
	for _, bound := range []time.Time{f.Since, f.Until} {
		parts = append(parts, strconv.FormatInt(bound.UnixMilli(), 10))
	}
	if f.Request != (RequestFilter{}) { // else a cursor of an older version stays good
		parts = append(parts, "request", f.Request.RequestID, f.Request.TraceID, f.Request.Either)
	}
	labels := slices.Sorted(slices.Values(f.Labels))
	return digest(append(parts, slices.Compact(labels)...)...)[:8]
}

// JobSearch selects among the jobs of all tenants. An empty field selects everything.
type JobSearch struct {
	JobFilter
	Tenant string
	// Code is an error code of a failed or unknown item.
	Code Code
}

// Match reports whether the job fits.
func (s JobSearch) Match(job Job) bool {
	return s.JobFilter.Match(job) &&
		(s.Tenant == "" || s.Tenant == job.Tenant) &&
		(s.Since.IsZero() || !job.CreatedAt.Before(s.Since)) &&
		(s.Until.IsZero() || job.CreatedAt.Before(s.Until)) &&
		(s.Code == "" || slices.ContainsFunc(job.Items, func(it Item) bool { return it.Code == s.Code && it.State.Final() }))
}

// CheckLabelFilter returns a sentence that says what is wrong with the labels of a
// filter, or nil.
func CheckLabelFilter(labels []string) error {
	if len(labels) > MaxLabels {
		return fmt.Errorf("is given %d times, the limit is %d", len(labels), MaxLabels)
	}
	for _, label := range labels {
		const limit = MaxLabelName + len("=") + MaxLabelValue
		switch i := strings.Index(label, "="); {
		case i < 0:
			return fmt.Errorf("must be name=value, not %.80q", label)
		case i == 0:
			return fmt.Errorf("%.80q has no name before the equals sign", label)
		case utf8.RuneCountInString(label) > limit:
			return fmt.Errorf("%.80q is longer than a label can be", label)
		}
		if err := checkText(label, limit); err != nil {
			return fmt.Errorf("%.80q %w", label, err)
		}
	}
	return nil
}

// CheckTimes returns a sentence that says what is wrong with the first bound of a
// filter, given the second, or nil. Bounds that are equal select nothing.
func CheckTimes(since, until time.Time) error {
	if !until.IsZero() && since.After(until) {
		return fmt.Errorf("is after until")
	}
	return nil
}
