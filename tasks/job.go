package tasks

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Job is the job status record, as callers read it.
type Job struct {
	ID         string   `json:"job_id"`
	State      JobState `json:"state"`
	RunID      string   `json:"run_id,omitempty"` // of the run that it is a part of, if it is one of any
	RequestID  string   `json:"request_id"`
	CreatedAt  Time     `json:"created_at,omitzero"`
	StartedAt  Time     `json:"started_at,omitzero"`
	FinishedAt Time     `json:"finished_at,omitzero"`
	Total      int      `json:"total"`
	Counts     Counts   `json:"counts"`
	Items      []Item   `json:"items,omitempty"`
	// NotBefore is when the first attempt may begin.
	NotBefore Time              `json:"not_before,omitzero"`
	Held      Held              `json:"held,omitzero"`
	Reason    string            `json:"reason,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`

	Tenant string `json:"-"`
	Queue  string `json:"-"`
	// Epoch tells the job's tasks from those of an earlier record with the same ID. Records
	// of older versions have none.
	Epoch       string `json:"-"`
	Fingerprint string `json:"-"`
	// Stop is why no attempt of the job may begin any more: Cancelled or Stopped. It is
	// empty while attempts may begin.
	Stop Code `json:"-"`
	// TaskRetention is how long asynq keeps the job's finished tasks.
	TaskRetention time.Duration `json:"-"`
	// Revision grows with every change of the record.
	Revision int64 `json:"-"`
	// AllowUnregistered says that the instances did not have to be registered.
	AllowUnregistered bool `json:"-"`
	// EndBefore is when an item that has not ended may no longer start.
	EndBefore Time `json:"-"`
	// Traceparent is the W3C trace context of the request that made the job, if that is
	// traced.
	Traceparent string `json:"-"`
	// By and From are who asked for the job, and the address that the request came from: see
	// AuditEntry. Records of older versions have neither.
	By, From string `json:"-"`
	// Barred is what keeps all of the job from beginning, in a record that is read for a caller. Held says so if something waits.
	Barred Held `json:"-"`
	// Told is the number of the last ending that endpoints were told of: see UntoldEvents.
	Told int `json:"-"`
}

// Held says why items that could begin do not, if the sweeper has found a reason that is not their own.
type Held struct {
	Reason string `json:"reason"`
	Since  Time   `json:"since"`
}

// Item is one instance within a job.
type Item struct {
	ID         string    `json:"item_id"`
	InstanceID string    `json:"instance_id"`
	State      ItemState `json:"state"`
	// Attempts counts every attempt that was begun, whatever became of it.
	Attempts   int  `json:"attempts"`
	StartedAt  Time `json:"started_at,omitzero"`
	FinishedAt Time `json:"finished_at,omitzero"`
	// NotBefore is when the next attempt is due, if that is known.
	NotBefore Time   `json:"not_before,omitzero"`
	Code      Code   `json:"error_code,omitempty"`
	Message   string `json:"error_msg,omitempty"`
	// Evidence is what was seen of the instance after its last attempt, by a driver that can look.
	Evidence string `json:"evidence,omitempty"`
	// History lists the attempts that did not succeed, the last 20 of them. It
	// survives a retry of the job.
	History []PastAttempt `json:"history,omitempty"`

	// Checkpoint is what the driver needs to resume the last attempt, if its outcome is
	// not known.
	Checkpoint string `json:"-"`
	// Delivery is the number of the item's current delivery, from 1.
	Delivery int `json:"-"`
	// Driver is the name of the driver that is to reset the instance; empty: DefaultDriver.
	Driver string `json:"-"`
	// Generation is the instance's that the job is for; 0: any.
	Generation int `json:"-"`
	// Address is where the driver of the last attempt found the instance, if the fleet says so.
	Address string `json:"-"`
	// Told is the delivery whose failure endpoints were told of last.
	Told int `json:"-"`
	// Last is the attempt that runs, or the one that succeeded: all others are in History.
	Last LastAttempt `json:"-"`
	// BusyFor is for how long the item has found its instance busy by now.
	BusyFor time.Duration `json:"-"`
}

// LastAttempt is what a record knows of the attempt that runs or has succeeded. Of the latter it keeps that with items
// alone that have evidence or history, for the sake of memory; older versions kept nothing.
type LastAttempt struct {
	StartedAt Time
	Worker    string // ID of the process that made it; empty: not known
	// MaySend says of one that runs that it may have sent its reset.
	MaySend bool
	Steps   Steps // of one that has succeeded
}

// DriverName is the name of the driver that is to reset the instance.
func (it Item) DriverName() string { return cmp.Or(it.Driver, DefaultDriver) }

// PastAttempt is an attempt that has ended without success.
type PastAttempt struct {
	Number     int    `json:"attempt"`
	StartedAt  Time   `json:"started_at,omitzero"`
	FinishedAt Time   `json:"finished_at,omitzero"`
	Outcome    string `json:"outcome"` // retrying, failed, unknown, or lost: its worker died
	Code       Code   `json:"error_code,omitempty"`
	Message    string `json:"error_msg,omitempty"` // its beginning
	Address    string `json:"-"`                   // of the instance
	Driver     string `json:"-"`                   // its name; empty: DefaultDriver
	Worker     string `json:"-"`                   // ID of the process that made it; empty: not known
	Steps      Steps  `json:"-"`
}

// DriverName is the name of the driver that was to reset the instance.
func (p PastAttempt) DriverName() string { return cmp.Or(p.Driver, DefaultDriver) }

// Submission is a request that passed every check and is to become a job.
type Submission struct {
	Tenant      string
	RequestID   string
	InstanceIDs []string // checked, without repeats
	// AllowUnregistered allows instances that are not registered in the fleet.
	AllowUnregistered bool
	// Drivers are those of the instances that do not have the default one.
	Drivers map[string]string
	// Generations are those of the fleet's counters that the instances must have; without one
	// any will do.
	Generations map[string]int
	// MaxFailures stops the rest of the job once so many items failed; 0 = never.
	MaxFailures int
	NotBefore   Time // zero: at once
	// GiveUpAfter is how long after that its items may still start; 0 = as long as those of any job.
	GiveUpAfter time.Duration
	Reason      string
	Labels      map[string]string
	// By and From are for the audit trail and the record: see AuditEntry.
	By, From string
	// Traceparent is the Job's.
	Traceparent string
	// RunID and Part say of which run the job is a part; that makes its ID, too.
	RunID string
	Part  int
	// IdempotencyKey makes the same request of a tenant the same job, for as long
	// as the job's record exists. Empty: every request is a new job.
	IdempotencyKey string
}

// Audited is the entry of the audit trail for the submission that becomes a job.
func (s Submission) Audited(job string) AuditEntry {
	return AuditEntry{
		Action: ActionSubmit, By: s.By, From: s.From, Tenant: s.Tenant, Job: job, RequestID: s.RequestID, Reason: s.Reason,
	}.About(s.InstanceIDs)
}

// JobID is the ID of the job that the submission becomes: random, or made from the
// tenant and the idempotency key, so that the record is the idempotency record.
func (s Submission) JobID() string {
	switch {
	case s.RunID != "":
		return PartJobID(s.RunID, s.Part)
	case s.IdempotencyKey == "":
		return NewJobID()
	}
	return digest(s.Tenant, s.IdempotencyKey)
}

// Fingerprint tells one request of a tenant from another. The request ID is no
// part of it.
func (s Submission) Fingerprint() string {
	parts := append([]string{s.Tenant, strconv.Itoa(s.MaxFailures)}, s.InstanceIDs...)
	// Options that are not given are left out, so that an older request keeps its
	// fingerprint when options are added. No instance ID has an equals sign.
	if !s.NotBefore.IsZero() {
		parts = append(parts, "not_before="+strconv.FormatInt(s.NotBefore.UnixMilli(), 10))
	}
	if s.Reason != "" {
		parts = append(parts, "reason="+s.Reason)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Labels)) {
		parts = append(parts, "label="+name, "="+s.Labels[name])
	}
	for _, instance := range s.InstanceIDs {
		if n := s.Generations[instance]; n != 0 {
			parts = append(parts, "generation="+strconv.Itoa(n), instance)
		}
	}
	return digest(parts...)
}

// digest is 32 characters of a SHA-256 over the parts, each with its length, so
// that no two lists of parts are the same text.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		_, _ = fmt.Fprintf(h, "%d:%s", len(p), p) // never fails
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// OpenJob is an entry of the index of open jobs.
type OpenJob struct {
	ID  string
	Due Time // of its next sweep
}

// TraceID is the ID of the job's trace, or empty.
func (j Job) TraceID() string { return traceID(j.Traceparent) }

// traceID is the ID in a W3C trace context, or empty.
func traceID(traceparent string) string {
	if parts := strings.Split(traceparent, "-"); len(parts) == 4 {
		return parts[1]
	}
	return ""
}

// Tag changes with every change of the record, and when something begins to hold it or ends.
func (j Job) Tag() string {
	tag := fmt.Sprintf("%d.%d", j.CreatedAt.UnixMilli(), j.Revision)
	if j.Barred.Reason == "" {
		return tag
	}
	return tag + "." + digest(j.Barred.Reason, strconv.FormatInt(j.Barred.Since.UnixMilli(), 10))[:8]
}

// Deliveries returns the current delivery of every item that is not final.
func (j Job) Deliveries() []Delivery {
	ds := make([]Delivery, 0, len(j.Items))
	for _, it := range j.Items {
		if !it.State.Final() {
			ds = append(ds, Delivery{
				ItemID: it.ID, Number: it.Delivery, InstanceID: it.InstanceID,
				Tenant: j.Tenant, Driver: it.Driver, Generation: it.Generation, Run: j.RunID, AllowUnregistered: j.AllowUnregistered, Epoch: j.Epoch,
			})
		}
	}
	return ds
}

// QueueOf is the queue of a delivery.
func (j Job) QueueOf(d Delivery) string { return QueueOf(j.Queue, d.Driver) }

// Time is a moment on the wire and in the record: RFC 3339, UTC, milliseconds.
// The zero Time means "not yet known".
type Time struct{ time.Time }

// timeLayout always prints three decimals, unlike time.RFC3339Nano.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// FromMillis makes a Time from Unix milliseconds; 0 is "not yet known".
func FromMillis(ms int64) Time {
	if ms == 0 {
		return Time{}
	}
	return Time{time.UnixMilli(ms).UTC()}
}

// MarshalJSON writes the time in UTC with exactly three decimals.
func (t Time) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(nil, `"`+timeLayout+`"`), nil
}

// NewJobID returns a new random job ID: 32 lower-case hex characters.
func NewJobID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, says crypto/rand
	return hex.EncodeToString(b[:])
}

// ValidJobID reports whether id has the form of a job ID. Anything else need
// not be looked up: there is no such job.
func ValidJobID(id string) bool {
	return len(id) == 32 && strings.Trim(id, "0123456789abcdef") == ""
}

// ItemID names item n (from 0) of a job.
func ItemID(job string, n int) string { return job + "-" + strconv.Itoa(n) }

// ParseItemID is the inverse of ItemID.
func ParseItemID(id string) (job string, n int, ok bool) {
	job, num, ok := strings.Cut(id, "-")
	if !ok || !ValidJobID(job) {
		return "", 0, false
	}
	n, err := strconv.Atoi(num)
	if err != nil || n < 0 || ItemID(job, n) != id {
		return "", 0, false
	}
	return job, n, true
}
