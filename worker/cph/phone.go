package cph

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"batchreset/worker"
)

// The states of a phone that matter here, as ShowCloudPhoneDetail tells them.
const (
	creating     = 1
	running      = 2
	resetting    = 3
	restarting   = 4
	shuttingDown = 7
	off          = 8
	resetFailed  = -5
)

// stateNames are the words of the documentation.
var stateNames = map[int]string{
	creating: "creating", running: "running", resetting: "resetting", restarting: "restarting", 6: "frozen",
	shuttingDown: "shutting down", off: "shut down", resetFailed: "reset failed", -6: "restart failed", -7: "abnormal",
	-8: "creation failed", -9: "stop failed",
}

func stateText(state int) string {
	if name, ok := stateNames[state]; ok {
		return fmt.Sprintf("%d (%s)", state, name)
	}
	return fmt.Sprintf("%d, which is not documented", state)
}

// phone is what ShowCloudPhoneDetail says.
type phone struct {
	ID      string `json:"phone_id"`
	Status  int    `json:"status"` // 0: it was not told
	Image   string `json:"image_id"`
	Updated string `json:"update_time"`
}

func (p phone) String() string {
	return fmt.Sprintf("phone %s in state %s, image %s, updated %s (ShowCloudPhoneDetail)",
		p.ID, stateText(p.Status), worker.Printable(p.Image, 40), worker.Printable(p.Updated, 24))
}

// phone asks for a phone. What comes back has a state.
func (c *client) phone(ctx context.Context, id string) (p phone, f *fault) {
	switch f = c.get(ctx, "phones/"+id, &p); {
	case f != nil:
		return phone{}, f
	case p.ID != id:
		return phone{}, misread(fmt.Sprintf("it is about phone %.64q", p.ID))
	case p.Status == 0:
		return phone{}, misread("it has no status")
	}
	return p, nil
}

// The states of a job.
const (
	jobRunning   = 1
	jobSucceeded = 2
	jobFailed    = -1
)

// job is what ShowJob says. What is null or left out is zero.
type job struct {
	ID      string `json:"job_id"`
	PhoneID string `json:"phone_id"`
	Status  int    `json:"status"`
	Code    string `json:"error_code"`
	Message string `json:"error_msg"`
	Ended   string `json:"end_time"`
}

// job asks for a job. What comes back has one of the states above, and is about the phone.
func (c *client) job(ctx context.Context, id, phoneID string) (j job, f *fault) {
	switch f = c.get(ctx, "jobs/"+id, &j); {
	case f != nil && f.status == http.StatusNotFound && f.class == hopeless:
		f.class = gone
		return job{}, f
	case f != nil:
		return job{}, f
	case j.ID != "" && j.ID != id, j.PhoneID != "" && j.PhoneID != phoneID:
		return job{}, misread("it is about another job or phone")
	case j.Status != jobRunning && j.Status != jobSucceeded && j.Status != jobFailed:
		return job{}, misread(fmt.Sprintf("a job has no status %d", j.Status))
	}
	return j, nil
}

// failure is what a job says that has failed. The call is over: it is tried again, or that is of
// no use.
func (j job) failure() *fault {
	f := &fault{class: later, code: worker.Printable(j.Code, maxCode), message: cmp.Or(worker.Printable(j.Message, maxMessage), "no reason was given")}
	if c, _ := classOf(j.Code); c == hopeless {
		f.class = hopeless
	}
	return f
}

// timedOut says whether CPH only stopped waiting for the job, which may go on.
func (j job) timedOut() bool { return j.Status == jobFailed && plainCode(j.Code) == "CPS.0054" }

// laterThan compares two times of CPH's. One that cannot be read is not later.
func laterThan(a, b string) bool {
	x, errA := time.Parse(time.RFC3339, a)
	y, errB := time.Parse(time.RFC3339, b)
	return errA == nil && errB == nil && x.After(y)
}
