package api

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/labstack/echo/v4"

	"batchreset/api/auth"
	"batchreset/api/ratelimit"
	"batchreset/tasks"
)

const (
	// An address may send strangerBurst requests without a valid token, and then one every
	// strangerEvery: far more than people do, and little work for this process.
	strangerBurst = 1000
	strangerEvery = 10 * time.Millisecond
	// knownTokens is how many tokens are remembered that were valid.
	knownTokens = 4096
	// sayEvery is how often it is worth a line in the log that strangers are turned away.
	sayEvery = 10 * time.Second
)

// strangers limits the requests of each address without a valid token. Requests with a valid token
// do not count, however many share an address. A token that was valid here before is checked even
// if its address is over the limit, so that strangers behind a proxy do not lock out others.
type strangers struct {
	limit *ratelimit.Limiter[netip.Prefix]
	known *lru.Cache[[sha256.Size]byte, struct{}]

	mu   sync.Mutex
	said time.Time
}

func newStrangers() *strangers {
	known, err := lru.New[[sha256.Size]byte, struct{}](knownTokens)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &strangers{limit: ratelimit.New[netip.Prefix](strangerBurst, strangerEvery, time.Now()), known: known}
}

func (s *strangers) remember(secret string) { s.known.Add(sha256.Sum256([]byte(secret)), struct{}{}) }

func (s *strangers) forget(secret string) { s.known.Remove(sha256.Sum256([]byte(secret))) }

func (s *strangers) knows(secret string) bool { return s.known.Contains(sha256.Sum256([]byte(secret))) }

// worthALine reports whether it is time to log again that strangers are turned away.
func (s *strangers) worthALine() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.said.IsZero() && time.Since(s.said) < sayEvery {
		return false
	}
	s.said = time.Now()
	return true
}

// limitStrangers refuses requests of an address that has sent too many without a valid token,
// before any other work. Probes are not counted: a flood must not take the api out of a load
// balancer, because then nobody could halt or cancel anything.
func (s *server) limitStrangers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if s.probes[c.Path()] {
			return next(c)
		}
		if _, ok := s.strangers.limit.Take(ratelimit.Network(c.RealIP()), time.Now()); ok {
			c.Set(strangerKey, true)
		} else if !s.strangers.knows(auth.Credential(c.Request(), ratelimit.Network(c.RealIP()).String())) {
			return s.turnAway(c)
		}
		return next(c)
	}
}

// turnAway answers a request above the limit. Not each of them is logged.
func (s *server) turnAway(c echo.Context) error {
	c.Set(turnedKey, true)
	s.metrics.turnedAway.Inc()
	if s.strangers.worthALine() {
		s.log.Warn("too many requests without a valid token: the address is turned away for now", "remote", c.RealIP(), "path", cut(c.Request().URL.EscapedPath()))
	}
	return tasks.Errorf(tasks.TooManyRequests, "too many requests without a valid token come from this address")
}

// welcome is called for a request whose token is valid: it does not count as a stranger's.
func (s *server) welcome(c echo.Context) {
	if c.Get(strangerKey) != nil {
		c.Set(strangerKey, nil)
		s.strangers.limit.GiveBack(ratelimit.Network(c.RealIP()))
	}
}
