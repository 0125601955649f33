package api

import (
	"crypto/sha256"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

const (
	// An address may ask strangerBurst times without a valid token, and then once in
	// strangerEvery: far more than people do, and nothing for this process.
	strangerBurst = 1000
	strangerEvery = 10 * time.Millisecond
	// knownTokens is how many tokens are remembered that were valid.
	knownTokens = 4096
	// sayEvery is how often it is worth a line in the log that strangers are turned away.
	sayEvery = 10 * time.Second
)

// strangers bounds what each address asks without a valid token. Requests with one do not
// count, however many share an address; and one that was valid here before is looked at even
// if its address asks too much: strangers behind the same proxy shut nobody out.
//
// Its memory is the same whoever comes, and nobody is forgotten for others to come: an
// address counts in one slot of each row, and is refused if those of all rows are full.
type strangers struct {
	start time.Time
	rows  [2]row
	known *lru.Cache[[sha256.Size]byte, struct{}]
	said  atomic.Int64 // since start
}

// row has a time for each slot: when what was asked so far is worn off, since start.
type row struct {
	seed  maphash.Seed
	slots [1 << 16]atomic.Int64
}

func newStrangers() *strangers {
	known, err := lru.New[[sha256.Size]byte, struct{}](knownTokens)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	s := &strangers{start: time.Now(), rows: [2]row{{seed: maphash.MakeSeed()}, {seed: maphash.MakeSeed()}}, known: known}
	s.said.Store(-int64(sayEvery))
	return s
}

func (s *strangers) slots(address netip.Prefix) (slots [2]*atomic.Int64) {
	for i := range s.rows {
		r := &s.rows[i]
		slots[i] = &r.slots[maphash.Comparable(r.seed, address)%uint64(len(r.slots))]
	}
	return slots
}

// take counts a request, unless there were too many from its address: then it returns when
// there is room for one again.
func (s *strangers) take(address netip.Prefix) (wait time.Duration) {
	now := int64(time.Since(s.start))
	slots := s.slots(address)
	late := min(slots[0].Load(), slots[1].Load()) - now
	if wait = time.Duration(late) - (strangerBurst-1)*strangerEvery; wait > 0 {
		return wait
	}
	for _, slot := range slots {
		for old := slot.Load(); !slot.CompareAndSwap(old, max(old, now)+int64(strangerEvery)); old = slot.Load() {
		}
	}
	return 0
}

// giveBack takes the counting of a request back.
func (s *strangers) giveBack(address netip.Prefix) {
	for _, slot := range s.slots(address) {
		slot.Add(-int64(strangerEvery))
	}
}

func (s *strangers) remember(secret string) { s.known.Add(sha256.Sum256([]byte(secret)), struct{}{}) }

func (s *strangers) forget(secret string) { s.known.Remove(sha256.Sum256([]byte(secret))) }

func (s *strangers) knows(secret string) bool { return s.known.Contains(sha256.Sum256([]byte(secret))) }

// addressOf is what a limit is for: an IPv4 address, or the network that a customer of an
// IPv6 provider has at the least.
func addressOf(ip string) netip.Prefix {
	address, err := netip.ParseAddr(ip)
	if err != nil {
		return netip.Prefix{}
	}
	address = address.Unmap().WithZone("")
	prefix, _ := address.Prefix(min(address.BitLen(), 64))
	return prefix
}

// limitStrangers turns requests of an address away that has asked too much without a valid
// token, before anything is done for them. Probes are not counted: who is taken out of a load
// balancer by a flood can stop nothing.
func (s *server) limitStrangers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if s.probes[c.Path()] {
			return next(c)
		}
		if wait := s.strangers.take(addressOf(c.RealIP())); wait == 0 {
			c.Set(strangerKey, true)
		} else if !s.strangers.knows(c.Request().Header.Get("X-Auth-Token")) {
			return s.turnAway(c, wait)
		}
		return next(c)
	}
}

// turnAway answers one of too many. They have no line each in the log.
func (s *server) turnAway(c echo.Context, wait time.Duration) error {
	c.Set(turnedKey, true)
	s.metrics.turnedAway.Inc()
	now, said := int64(time.Since(s.strangers.start)), s.strangers.said.Load()
	if now-said >= int64(sayEvery) && s.strangers.said.CompareAndSwap(said, now) {
		s.log.Warn("too many requests without a valid token: the address is turned away for now", "remote", c.RealIP(), "path", cut(c.Request().URL.EscapedPath()))
	}
	return &tasks.Error{Code: tasks.TooManyRequests, Message: "too many requests without a valid token come from this address", RetryAfter: wait}
}

// welcome is for a request whose token is valid: it is no stranger's.
func (s *server) welcome(c echo.Context, secret string) {
	s.strangers.remember(secret)
	if c.Get(strangerKey) != nil {
		c.Set(strangerKey, nil)
		s.strangers.giveBack(addressOf(c.RealIP()))
	}
}
