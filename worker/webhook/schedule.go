package webhook

import (
	"net/http"
	"strconv"
	"time"

	"batchreset/worker/requeue"
)

// schedule are the delays before the second and each later try, as the Standard
// Webhooks specification recommends: ten tries within some 76 hours.
var schedule = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

const (
	// jitterPart is the part of a delay that is added at random, at most, so that what
	// failed together does not return together.
	jitterPart = 5
	// throttled is how long an endpoint that is overloaded is left alone, if it does not
	// say.
	throttled = 30 * time.Second
)

// verdict is what came of a try to send a notice.
type verdict string

const (
	delivered verdict = "delivered"
	failed    verdict = "failed" // another try follows
	givenUp   verdict = "given_up"
	gone      verdict = "gone" // the endpoint wants no more
)

// result is what follows from an endpoint's reply.
type result struct {
	verdict verdict
	delay   time.Duration // before the next try
	// pause is how long nothing at all is sent to the endpoint by this process.
	pause  time.Duration
	reason string // empty: the notice was taken
}

// judge decides what follows from the reply to a notice that has failed so many times
// before. It is a pure function but for the jitter.
func judge(r Reply, before int) result {
	if r.Err == nil && r.Status/100 == 2 {
		return result{verdict: delivered}
	}
	end := result{verdict: failed, reason: reasonOf(r)}
	switch {
	case r.Status == http.StatusGone:
		end.verdict = gone
	case before >= len(schedule):
		end.verdict = givenUp
	default:
		delay := max(schedule[before], r.RetryAfter)
		end.delay = delay + requeue.Jitter(delay/jitterPart)
	}
	switch r.Status {
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		end.pause = r.RetryAfter
		if r.RetryAfter == 0 && r.Status != http.StatusServiceUnavailable {
			end.pause = throttled
		}
	}
	return end
}

func reasonOf(r Reply) string {
	switch {
	case r.Err != nil:
		return r.Err.Error()
	case r.Status/100 == 3:
		return "status " + strconv.Itoa(r.Status) + ": redirects are not followed"
	}
	return "status " + strconv.Itoa(r.Status)
}
