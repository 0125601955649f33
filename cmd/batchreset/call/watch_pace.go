package call

import (
	"fmt"
	"time"
)

// paceOver is the time over which the pace is measured: long enough to be steady, short
// enough to follow the workers.
const paceOver = 30 * time.Second

// pace measures how fast instances end.
type pace struct{ samples []sample }

type sample struct {
	at    time.Time
	ended int
}

// text tells the pace and the time that is left, or nothing until they are known.
func (p *pace) text(now time.Time, ended, total int) string {
	if n := len(p.samples); n == 0 || now.Sub(p.samples[n-1].at) >= time.Second {
		p.samples = append(p.samples, sample{now, ended})
	}
	for len(p.samples) > 1 && now.Sub(p.samples[0].at) > paceOver {
		p.samples = p.samples[1:]
	}
	first := p.samples[0]
	took, done := now.Sub(first.at), ended-first.ended
	if took < 2*time.Second || done <= 0 || ended == total {
		return ""
	}
	perSecond := float64(done) / took.Seconds()
	left := time.Duration(float64(total-ended) / perSecond * float64(time.Second))
	return fmt.Sprintf("%.3g/s, about %s to go", perSecond, left.Round(time.Second))
}
