package tasks

import (
	"fmt"
	"math"
	"time"
)

// CallKind is what a call of a driver has come to.
type CallKind int

// The kinds of calls. The last two are looks, which change nothing; all others are resets.
const (
	CallDone CallKind = iota
	CallRetry
	CallPermanent
	CallBusy
	CallUnreachable
	CallUnknown
	CallNotSent
	CallSeen
	CallNotSeen // the driver could not look
	CallKinds   // how many there are
)

var callNames = [CallKinds]string{"done", "retry", "permanent", "busy", "unreachable", "unknown", "not sent", "seen", "not seen"}

func (k CallKind) String() string { return callNames[k] }

// Look reports whether it is a look.
func (k CallKind) Look() bool { return k == CallSeen || k == CallNotSeen }

// Answered reports whether the control plane was asked and took its time: only then does it say something of how
// fast it is. One that never answers, until the attempt's time is over, is slow.
func (k CallKind) Answered() bool { return k != CallUnreachable && k != CallNotSent }

// Failed reports whether it is an error that people look at.
func (k CallKind) Failed() bool {
	return k == CallRetry || k == CallPermanent || k == CallUnreachable || k == CallUnknown || k == CallNotSeen
}

// CallFailure is a call that failed.
type CallFailure struct {
	At         Time   `json:"at"`
	Kind       string `json:"kind"`
	Code       string `json:"code,omitempty"`
	Message    string `json:"message,omitempty"` // its beginning
	ItemID     string `json:"item,omitempty"`
	InstanceID string `json:"instance,omitempty"`
}

// Job is the job of the call's item.
func (f CallFailure) Job() string {
	job, _, _ := ParseItemID(f.ItemID)
	return job
}

const (
	// MaxCallFailures is how many failures of a driver are kept, the last ones.
	MaxCallFailures = 10
	// MaxCallMessage is how many bytes of a failure's message are kept.
	MaxCallMessage = 200
)

// LatencyBuckets is how many buckets Latencies have. The first is up to 1 ms, each other one ends at 2^(1/4) times
// the end of the one before, the last one after 70 minutes: a quantile is wrong by a fifth at the most, mostly by far less.
const LatencyBuckets = 89

// LatencyBucket is the bucket of a duration.
func LatencyBucket(d time.Duration) int {
	if d <= time.Millisecond {
		return 0
	}
	return min(int(math.Ceil(4*math.Log2(float64(d)/float64(time.Millisecond)))), LatencyBuckets-1)
}

// latencyEnd is where a bucket ends, in milliseconds.
func latencyEnd(bucket float64) float64 { return math.Exp2(bucket / 4) }

// Latencies are how many calls took how long, by bucket.
type Latencies [LatencyBuckets]int64

// Count is how many calls there were.
func (l *Latencies) Count() (n int64) {
	for _, c := range l {
		n += c
	}
	return n
}

func (l *Latencies) add(more *Latencies) {
	for i, n := range more {
		l[i] += n
	}
}

// Quantile is what a part of the calls, from 0 to 1, took at the most; 0 without calls.
func (l *Latencies) Quantile(part float64) time.Duration {
	rank := part * float64(l.Count())
	if rank == 0 {
		return 0
	}
	before := 0.0
	for i, n := range l {
		if n > 0 && before+float64(n) >= rank {
			ms := latencyEnd(float64(i) - 1 + (rank-before)/float64(n))
			return time.Duration(ms * float64(time.Millisecond))
		}
		before += float64(n)
	}
	return 0
}

// Calls are calls of a driver within some time.
type Calls struct {
	Kinds [CallKinds]int64
	// Resets and Looks are how long those took that were answered.
	Resets, Looks Latencies
}

// Add adds others.
func (c *Calls) Add(more *Calls) {
	for i, n := range more.Kinds {
		c.Kinds[i] += n
	}
	c.Resets.add(&more.Resets)
	c.Looks.add(&more.Looks)
}

// Total is how many calls there were, looks included.
func (c *Calls) Total() (n int64) {
	for _, k := range c.Kinds {
		n += k
	}
	return n
}

const (
	// PlaneMinutes is how many minutes of calls say how a control plane is: the last PlaneNow, the last of which
	// is not over, and the hour before.
	PlaneMinutes = PlaneNow + 60
	// PlaneNow is how many minutes count as now.
	PlaneNow = 5

	// slowTimes is how many times as long as before calls must take so that their control plane counts as slow;
	// slowCalls how many calls each half of the comparison needs; slowLeast what nobody notices.
	slowTimes = 3
	slowCalls = 20
	slowLeast = 100 * time.Millisecond
)

// ControlPlane is what a driver talks to, as its calls show it.
type ControlPlane struct {
	Driver string
	At     Time
	// Minutes are the last PlaneMinutes, oldest first; the last one is not over.
	Minutes  []Calls
	Failures []CallFailure // newest first
	// Workers are the worker processes that have the driver.
	Workers []WorkerView
}

// Now are the calls of the last five minutes, the minute included that is not over.
func (p ControlPlane) Now() (sum Calls) { return sumCalls(p.Minutes[max(len(p.Minutes)-PlaneNow, 0):]) }

// Before are the calls of the hour before.
func (p ControlPlane) Before() (sum Calls) {
	return sumCalls(p.Minutes[:max(len(p.Minutes)-PlaneNow, 0)])
}

func sumCalls(minutes []Calls) (sum Calls) {
	for i := range minutes {
		sum.Add(&minutes[i])
	}
	return sum
}

// Slow is a sentence that says that the control plane has got slow, or empty: the median of the last five minutes is
// at least three times that of the hour before.
func (p ControlPlane) Slow() string {
	now, before := p.Now(), p.Before()
	for _, what := range []struct {
		name        string
		now, before *Latencies
	}{{"calls", &now.Resets, &before.Resets}, {"looks", &now.Looks, &before.Looks}} {
		is, was := what.now.Quantile(.5), what.before.Quantile(.5)
		if what.now.Count() < slowCalls || what.before.Count() < slowCalls || is < slowLeast || is < slowTimes*was {
			continue
		}
		return fmt.Sprintf("The control plane of driver %s answers slowly: half of its %s take %s or more, %.0f times as long as in the hour before (%s).",
			p.Driver, what.name, ShortDuration(is), float64(is)/float64(was), ShortDuration(was))
	}
	return ""
}

// ShortDuration is a duration in two digits or three for people, such as 1.5 s.
func ShortDuration(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return fmt.Sprintf("%.1g ms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Round(time.Millisecond).Milliseconds())
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.2g s", d.Seconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%.0f s", d.Seconds())
	default:
		return fmt.Sprintf("%.0f min", d.Minutes())
	}
}
