// Package ratelimit bounds how often each of any number of strangers may do something, in memory
// that does not grow with them.
package ratelimit

import (
	"hash/maphash"
	"math"
	"net/netip"
	"sync"
	"time"
)

const (
	rows  = 4
	cells = 1 << 15
)

// Limiter lets each key do something burst times, and then once in every. It keeps the same few
// counters for all of them: each key has one in every row, at a place that only this process
// knows, and the least of them counts. So many keys take no memory, and make it forget none;
// they slow one down only where all of its counters are theirs, too.
type Limiter[K comparable] struct {
	burst int
	every time.Duration
	start time.Time
	seeds [rows]maphash.Seed

	mu sync.Mutex
	// paid is when, from start on, what was counted there is paid off.
	paid [rows][cells]time.Duration
}

// New returns a Limiter that counts from start on.
func New[K comparable](burst int, every time.Duration, start time.Time) *Limiter[K] {
	l := &Limiter[K]{burst: burst, every: every, start: start}
	for row := range l.seeds {
		l.seeds[row] = maphash.MakeSeed()
	}
	return l
}

// Take counts one more for a key. It returns how many still counted before, and whether one
// more is allowed; if not, it is not counted.
func (l *Limiter[K]) Take(key K, at time.Time) (before int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := at.Sub(l.start)
	counters, paid := l.counters(key)
	paid = max(paid, now)
	before = int((paid - now + l.every - 1) / l.every)
	if before >= l.burst {
		return before, false
	}
	for _, counter := range counters {
		*counter = max(*counter, paid+l.every)
	}
	return before, true
}

// GiveBack takes back what was counted for a key. Where others have counted more it stays.
func (l *Limiter[K]) GiveBack(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	counters, paid := l.counters(key)
	for _, counter := range counters {
		if *counter == paid {
			*counter -= l.every
		}
	}
}

// counters are those of a key, with the least that one of them says.
func (l *Limiter[K]) counters(key K) (counters [rows]*time.Duration, paid time.Duration) {
	paid = math.MaxInt64
	for row := range counters {
		counters[row] = &l.paid[row][maphash.Comparable(l.seeds[row], key)%cells]
		paid = min(paid, *counters[row])
	}
	return counters, paid
}

// Network is what an address is counted as: of IPv6 everybody has a /64. Addresses that are
// none count as one.
func Network(address string) netip.Prefix {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}
	}
	ip = ip.Unmap()
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(ip, bits).Masked()
}
