package ops

import (
	"hash/maphash"
	"math"
	"net/netip"
	"sync"
	"time"
)

const (
	paceRows  = 4
	paceCells = 1 << 15
)

// who is what tries to log in are counted by: an address, a name, both, or a device.
type who struct {
	from         netip.Prefix
	name, device string
}

// pace lets each who try burst times, and then once in every. It keeps the same few counters
// for all of them: each has one in every row, at a place that only this process knows, and
// the least of them counts. So the tries of many strangers take no memory, and make it
// forget nobody's; they slow somebody down only where all of his counters are theirs, too.
type pace struct {
	burst int
	every time.Duration
	start time.Time
	seeds [paceRows]maphash.Seed

	mu sync.Mutex
	// paid is when, from start on, the tries that were counted there are paid off.
	paid [paceRows][paceCells]time.Duration
}

func newPace(burst int, every time.Duration, start time.Time) *pace {
	p := &pace{burst: burst, every: every, start: start}
	for row := range p.seeds {
		p.seeds[row] = maphash.MakeSeed()
	}
	return p
}

// take counts a try. It returns how many still counted before, and whether one more is
// allowed; if not, it is not counted.
func (p *pace) take(w who, at time.Time) (before int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := at.Sub(p.start)
	var cells [paceRows]*time.Duration
	paid := time.Duration(math.MaxInt64)
	for row := range cells {
		cells[row] = &p.paid[row][maphash.Comparable(p.seeds[row], w)%paceCells]
		paid = min(paid, *cells[row])
	}
	paid = max(paid, now)
	before = int((paid - now + p.every - 1) / p.every)
	if before >= p.burst {
		return before, false
	}
	for _, cell := range cells {
		*cell = max(*cell, paid+p.every)
	}
	return before, true
}
