package login

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/crypto/bcrypt"

	"batchreset/api/ratelimit"
	"batchreset/tasks"
)

// passwordCost makes a guess cost about a quarter of a second of a core.
const passwordCost = 12

// PasswordProblem says what is wrong with a password that was typed twice; empty: nothing.
func PasswordProblem(password, again string) string {
	if err := tasks.CheckPassword(password); err != nil {
		return "The password " + err.Error() + "."
	}
	if password != again {
		return "The passwords differ."
	}
	return ""
}

// HashPassword returns what is kept of a password.
func HashPassword(password string) (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(password), passwordCost)
	return string(hash), err
}

// refusal is an answer to somebody who may not, or not now.
type refusal struct {
	status int
	why    string
}

const (
	// hashingAtOnce bounds the processors that wrong passwords can keep busy. Operators on
	// a device of theirs have one more for themselves.
	hashingAtOnce = 2
	// patience is how long somebody waits for that.
	patience = 10 * time.Second
)

// guesses bounds the tries to log in to this process, in three ways. A name from an address,
// or on a device of the operator: 5 tries may follow each other, then one in 10 s, so that
// nobody who is elsewhere can lock an operator out. An address, whatever the names: 20, then
// one in 5 s. And a name from all addresses together, but for the operator's own devices:
// 100, then one in 10 s, so that whoever has many addresses does not have more guesses
// for that. Meanwhile the operator can log in only on a device that was used before.
type guesses struct {
	people, addresses, names *ratelimit.Limiter[who]
	devices                  *ratelimit.Limiter[who] // of operators, which strangers must not reach
	codes                    *ratelimit.Limiter[who] // of six digits, by name, or by device and name
	strangers, operators     *turns
	now                      func() time.Time
}

func newGuesses(now func() time.Time) *guesses {
	start := now()
	return &guesses{
		now:    now,
		people: ratelimit.New[who](5, 10*time.Second, start), devices: ratelimit.New[who](5, 10*time.Second, start),
		addresses: ratelimit.New[who](20, 5*time.Second, start), names: ratelimit.New[who](100, 10*time.Second, start),
		codes:     ratelimit.New[who](10, 5*time.Minute, start),
		strangers: &turns{free: hashingAtOnce}, operators: &turns{free: 1},
	}
}

// admitCode counts a try with a code after the right password. A code is one of a million, and three are good
// at a time: so there are 10 tries for a name, then one in 5 minutes, and as many on each device.
func (g *guesses) admitCode(t guess, name string) *refusal {
	if !t.welcome && t.device == "" {
		return tooManyTries
	}
	if _, ok := g.codes.Take(who{device: t.device, name: name}, g.now()); !ok {
		return tooManyCodes
	}
	return nil
}

// nobodysHash is compared with the password of a name that does not exist, so that the
// time of the answer does not tell. It is no password's that anybody knows.
var nobodysHash = fmt.Sprintf("$2a$%02d$%s", passwordCost, strings.Repeat(".", 53))

var (
	tooManyCodes = &refusal{http.StatusTooManyRequests, "Too many codes were tried. Use a recovery code, or wait five minutes."}
	wrongCode    = &refusal{http.StatusUnauthorized, "The code is wrong, or was used before. An app shows another one every 30 seconds; the clock of its device must be right."}
	tooManyTries = &refusal{http.StatusTooManyRequests, "Too many tries. Wait a moment."}
	nameIsTried  = &refusal{http.StatusTooManyRequests, "This name is being tried from many places. Log in in a browser where you have logged in before, or try again every few seconds."}
	crowded      = &refusal{http.StatusServiceUnavailable, "Too many people are logging in. Try again in a moment."}
	wrongLogin   = &refusal{http.StatusUnauthorized, "The name or the password is wrong."}
)

// who is what tries to log in are counted by: an address, a name, both, or a device.
type who struct {
	from         netip.Prefix
	name, device string
}

// guess is a try to log in.
type guess struct {
	from   netip.Prefix
	device string // where the operator has logged in before; empty elsewhere
	before int    // tries from there
	// welcome is whether the address may try at all, on devices that are not known.
	welcome bool
}

// from counts a try from an address.
func (g *guesses) from(address string) guess {
	t := guess{from: ratelimit.Network(address)}
	t.before, t.welcome = g.addresses.Take(who{from: t.from}, g.now())
	return t
}

// admit counts a try for a name. It returns where to wait for the turn, and what counts there.
func (g *guesses) admit(t guess, name string) (queue *turns, before int, refused *refusal) {
	now := g.now()
	if t.device != "" {
		before, ok := g.devices.Take(who{device: t.device, name: name}, now)
		if !ok {
			return nil, 0, tooManyTries
		}
		return g.operators, before, nil
	}
	if !t.welcome {
		return nil, 0, tooManyTries
	}
	if _, ok := g.people.Take(who{from: t.from, name: name}, now); !ok {
		return nil, 0, tooManyTries
	}
	if _, ok := g.names.Take(who{name: name}, now); !ok {
		return nil, 0, nameIsTried
	}
	return g.strangers, t.before, nil
}

// check is nil if a password is the operator's of a name. o is empty if there is none.
func (g *guesses) check(ctx context.Context, t guess, name string, o tasks.Operator, password string) *refusal {
	queue, before, refused := g.admit(t, name)
	if refused != nil {
		return refused
	}
	if tasks.CheckPassword(password) != nil {
		return wrongLogin // nobody has such a password
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := queue.wait(ctx, before); err != nil {
		return crowded
	}
	defer queue.done()
	hash := cmp.Or(o.PasswordHash, nobodysHash)
	if bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) != nil || o.PasswordHash == "" {
		return wrongLogin
	}
	return nil
}
