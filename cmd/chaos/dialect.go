package main

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"batchreset/cmd/chaos/history"
)

// reply is an answer to an HTTP request.
type reply struct {
	status               int
	location, retryAfter string
	body                 string
}

func (a reply) write(w http.ResponseWriter) {
	kind := "application/json"
	if strings.HasPrefix(a.body, "<") {
		kind = "text/html"
	}
	w.Header().Set("Content-Type", kind)
	if a.location != "" {
		w.Header().Set("Location", a.location)
	}
	if a.retryAfter != "" {
		w.Header().Set("Retry-After", a.retryAfter)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write([]byte(a.body)) // the caller may have gone
}

// dialect is how a control plane tells of a reset: at once, or to those who ask again
// and again. Whatever it says, status 200 alone does not mean that a reset was done.
type dialect struct {
	// Of one that is polled; the bodies under status 200.
	running, done, failed string
	// Of one that answers at once, under status 200.
	wrong string
}

// polled are the conventions for operations that take long.
var polled = []dialect{
	{running: `{"done":false}`, done: `{"done":true,"response":{}}`, failed: `{"done":true,"error":{"code":13,"message":"no"}}`},
	{running: `{"status":"Running"}`, done: `{"status":"Succeeded"}`, failed: `{"status":"Failed"}`},
	{running: `{"state":"RUNNING"}`, done: `{"state":"DONE"}`, failed: `{"state":"FAILED"}`},
	{running: `{"job":{"status":"Running"}}`, done: `{"job":{"status":"Completed"}}`, failed: `{"job":{"status":"Failed"}}`},
	{
		running: `{"properties":{"provisioningState":"Updating"}}`, done: `{"properties":{"provisioningState":"Succeeded"}}`,
		failed: `{"properties":{"provisioningState":"Failed"}}`,
	},
	{running: `{"status":1}`, done: `{"status":2}`, failed: `{"status":-1}`},
}

// atOnce are failures under status 200.
var atOnce = []dialect{
	{wrong: `{"status":"failed"}`},
	{wrong: `{"result":{"state":"ERROR"}}`},
	{wrong: "\ufeff" + `{"error_code":"PLANE.0500","error_msg":"no"}`},
	{wrong: `{"padding":"` + strings.Repeat("x", 70<<10) + `","error_code":"PLANE.0500"}`},
}

// drawDialect draws how a reset with this outcome is told, and how long it takes: one
// that is polled so long that somebody asks before its end.
func drawDialect(r *rand.Rand, answer string, latency time.Duration) (*dialect, time.Duration) {
	switch {
	case answer == history.Refusal:
		return nil, latency
	case answer == history.Failure && r.IntN(2) == 0:
		return &atOnce[r.IntN(len(atOnce))], latency
	}
	return &polled[r.IntN(len(polled))], latency + 1500*time.Millisecond + time.Duration(r.Int64N(int64(2*time.Second)))
}

// polls says whether the reset goes on after the answer to the call.
func (d *dialect) polls() bool { return d != nil && d.running != "" }

// answer is what a call is answered: for a reset that is polled at once, for others when
// it has ended.
func (r *reset) reply() reply {
	switch {
	case r.dialect.polls():
		return reply{status: http.StatusAccepted, location: "/poll/" + r.id}
	case r.dialect != nil:
		return reply{status: http.StatusOK, body: r.dialect.wrong}
	}
	return plainly(r.answer)
}

// poll is what who asks about a reset is told.
func (r *reset) poll() reply {
	select {
	case <-r.done:
	default:
		return reply{status: http.StatusOK, body: r.dialect.running}
	}
	if r.answer == history.Success || r.answer == history.Lie {
		return reply{status: http.StatusOK, body: r.dialect.done}
	}
	return reply{status: http.StatusOK, body: r.dialect.failed}
}
