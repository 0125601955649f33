package cph

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"batchreset/worker"
)

// order is the request that resets one phone.
type order struct {
	ImageID string       `json:"image_id,omitempty"`
	Phones  []phoneOrder `json:"phones"`
}

type phoneOrder struct {
	ID       string `json:"phone_id"`
	Property string `json:"property,omitempty"`
}

// send asks CPH to reset a phone, at most once. It returns the answer, or an error: with the
// verdict Unknown if the request was sent, and with another one if it certainly was not.
func (d *Driver) send(ctx context.Context, a worker.Attempt, id string) (reply, *worker.DriverError) {
	body, err := json.Marshal(order{ImageID: d.cfg.ImageID, Phones: []phoneOrder{{ID: id, Property: d.cfg.Property}}})
	if err != nil {
		return reply{}, notSent(worker.Permanent, err)
	}
	g := newGate(ctx, body, a.MaySend)
	sending, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(sending, http.MethodPost, d.client.base+"phones/batch-reset", g)
	if err != nil {
		return reply{}, notSent(worker.Permanent, err)
	}
	r.ContentLength = int64(len(body))
	said, err := d.client.exchange(d.client.sender, r, body)
	phase := g.drop()
	switch {
	case err != nil:
		return reply{}, lostAnswer(ctx, phase, g, err)
	case phase != sent: // who refuses need not read all of a request
		return reply{}, early(said)
	case said.Status == http.StatusUnauthorized:
		d.client.auth.renew(r) // for the next attempt
	}
	return said, nil
}

// lostAnswer says what it means that there is no answer.
func lostAnswer(ctx context.Context, phase int32, g *gate, err error) *worker.DriverError {
	switch {
	case phase == sent:
		return &worker.DriverError{Verdict: worker.Unknown, Message: "the reset was sent and its answer was lost: " + unreachable(err).message}
	case phase == late: // net/http may report that as the end of its connection
		return notSent(worker.NotSent, g.refused)
	case ctx.Err() != nil:
		return notSent(worker.NotSent, ctx.Err())
	}
	return unreachable(err).unsent()
}

// early is an answer to a request whose body has not left.
func early(said reply) *worker.DriverError {
	if said.ok() {
		return notSent(worker.Retryable, fmt.Errorf("the request was answered with %d before that", said.Status))
	}
	return refusal(said).unsent()
}

func notSent(verdict worker.Verdict, err error) *worker.DriverError {
	return &worker.DriverError{Verdict: verdict, Message: worker.Printable("nothing was sent: "+err.Error(), maxMessage)}
}

// receipt is the answer to an order: for each phone a job, or why there is none.
type receipt struct {
	RequestID string     `json:"request_id"`
	Jobs      []phoneJob `json:"jobs"`
	Code      string     `json:"error_code"`
	Message   string     `json:"error_msg"`
}

type phoneJob struct {
	PhoneID string `json:"phone_id"`
	JobID   string `json:"job_id"`
	Code    string `json:"error_code"`
	Message string `json:"error_msg"`
}

// accepted reads the answer to an order for a phone: the job, or what was wrong. A fault that is
// not doubtful is a refusal.
func accepted(said reply, id string) (requestID, jobID string, f *fault) {
	var told receipt
	if !said.ok() {
		if f = refusal(said); f.class == gone { // no answer to an order
			f.class = doubtful
		}
		return "", "", f
	}
	if err := said.decode(&told); err != nil {
		return "", "", misread(err.Error())
	}
	mine, f := told.of(id)
	if f != nil {
		return "", "", f
	}
	return worker.Printable(told.RequestID, maxCode), mine.JobID, nil
}

// of finds the job of a phone.
func (r receipt) of(id string) (mine phoneJob, f *fault) {
	found := 0
	for _, j := range r.Jobs {
		if j.PhoneID == id {
			mine, found = j, found+1
		}
	}
	switch {
	case found == 0 && len(r.Jobs) == 0 && r.Code != "":
		return phoneJob{}, refusedPhone(r.Code, r.Message, doubtful)
	case found == 0:
		return phoneJob{}, misread("it does not name the phone")
	case found > 1:
		return phoneJob{}, misread("it names the phone more than once")
	case mine.JobID == "" && mine.Code != "" && mine.Code != "0":
		return phoneJob{}, refusedPhone(mine.Code, mine.Message, later)
	case !plainID.MatchString(mine.JobID):
		return phoneJob{}, misread("it has no job for the phone")
	}
	return mine, nil
}

// refusedPhone is the fault of a phone within a success. We have been let in, so it is this
// phone's, whatever the code; one that is not known means what the caller says.
func refusedPhone(code, message string, unknown class) *fault {
	c, known := classOf(code)
	switch {
	case !known:
		c = unknown
	case c == shut:
		c = hopeless
	case c == gone:
		c = doubtful
	}
	return &fault{class: c, code: worker.Printable(code, maxCode), message: cmp.Or(worker.Printable(message, maxMessage), "no reason was given")}
}
