package api

import (
	"crypto/sha256"
	"net/netip"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/labstack/echo/v4"

	"batchreset/api/ratelimit"
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

// worthALine reports whether the log has not said for a while that strangers are turned away.
func (s *strangers) worthALine() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.said.IsZero() && time.Since(s.said) < sayEvery {
		return false
	}
	s.said = time.Now()
	return true
}

// limitStrangers turns requests of an address away that has asked too much without a valid
// token, before anything is done for them. Probes are not counted: who is taken out of a load
// balancer by a flood can stop nothing.
func (s *server) limitStrangers(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if s.probes[c.Path()] {
			return next(c)
		}
		if _, ok := s.strangers.limit.Take(ratelimit.Network(c.RealIP()), time.Now()); ok {
			c.Set(strangerKey, true)
		} else if !s.strangers.knows(c.Request().Header.Get("X-Auth-Token")) {
			return s.turnAway(c)
		}
		return next(c)
	}
}

// turnAway answers one of too many. They have no line each in the log.
func (s *server) turnAway(c echo.Context) error {
	c.Set(turnedKey, true)
	s.metrics.turnedAway.Inc()
	if s.strangers.worthALine() {
		s.log.Warn("too many requests without a valid token: the address is turned away for now", "remote", c.RealIP(), "path", cut(c.Request().URL.EscapedPath()))
	}
	return tasks.Errorf(tasks.TooManyRequests, "too many requests without a valid token come from this address")
}

// welcome is for a request whose token is valid: it is no stranger's.
func (s *server) welcome(c echo.Context) {
	if c.Get(strangerKey) != nil {
		c.Set(strangerKey, nil)
		s.strangers.limit.GiveBack(ratelimit.Network(c.RealIP()))
	}
}
