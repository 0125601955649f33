package cph

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"batchreset/worker"
)

// mark is what is known of a call that resets a phone: the checkpoint. It is saved before the
// call, with how the phone looked then, and again when the call has a job.
type mark struct {
	PhoneID string `json:"phone_id"`
	// Status and Updated are the phone's before the call; without them it is not known.
	Status  int    `json:"status,omitempty"`
	Updated string `json:"updated,omitempty"`

	RequestID string `json:"request_id,omitempty"`
	JobID     string `json:"job_id,omitempty"`
}

// saveTimeout bounds the saving of a checkpoint, which must not be dropped because the attempt's
// time ends at that moment. It is shorter than the time that the worker leaves a driver to return.
const saveTimeout = 3 * time.Second

func (m mark) save(ctx context.Context, a worker.Attempt) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTimeout)
	defer cancel()
	return a.Save(ctx, string(text))
}

// readMark reads a checkpoint. Of none nothing is known but the phone.
func readMark(checkpoint, id string) (m mark, err error) {
	if checkpoint == "" {
		return mark{PhoneID: id}, nil
	}
	if json.Unmarshal([]byte(checkpoint), &m) != nil || m.PhoneID == "" || m.JobID != "" && !plainID.MatchString(m.JobID) {
		return mark{}, errors.New("the checkpoint of the earlier call is not one of this driver")
	}
	return m, nil
}

// finding is what the state of a phone says about a call.
type finding int

const (
	undecided finding = iota // it does not say
	overdue                  // nor does the job: CPH has stopped waiting for it
	pending                  // something is going on: ask again
	done
	failed
)

// judge says what came of the call. By itself a phone that runs looks the same before and after
// a reset. So it needs to be known that the call's job has succeeded, or that the phone was seen
// while it was being reset, or that its record has changed since just before the call, and its
// state has not, which would explain the change. A job that CPH has stopped waiting for explains it,
// too: the record changes when a reset begins. A phone whose reset had failed before the call
// must have changed, too.
func (m mark) judge(p phone, job finding, seen bool) finding {
	known := job == done || seen
	changed := laterThan(p.Updated, m.Updated)
	switch p.Status {
	case creating, resetting, restarting, shuttingDown:
		return pending
	case resetFailed:
		if known || changed || m.Status != resetFailed {
			return failed
		}
	case running, off:
		if known || changed && p.Status == m.Status && job != overdue {
			return done
		}
	}
	return undecided
}
