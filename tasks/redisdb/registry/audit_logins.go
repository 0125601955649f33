package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"batchreset/tasks"
)

const (
	// Of log-ins that fail, failedBurst have an entry of their own, and then one every
	// failedEvery, in each process. All others of that time share one entry, so that nobody
	// who guesses can fill the trail, or Redis.
	failedBurst = 10
	failedEvery = time.Minute
	// failedNames is how many names such an entry has.
	failedNames = 10
)

// failedLogins are those that share the next entry.
type failedLogins struct {
	alone *rate.Limiter
	all   atomic.Int64
	mu    sync.Mutex
	as    map[string]int // by name
	from  string         // where the last one came from
}

func newFailedLogins() *failedLogins {
	return &failedLogins{alone: rate.NewLimiter(rate.Every(failedEvery), failedBurst), as: map[string]int{}}
}

// FailedLogin puts a log-in that failed into the audit trail, at once or within a minute,
// with others; name is empty if it is no operator's.
func (a *Audit) FailedLogin(ctx context.Context, name, from string) {
	a.failed.all.Add(1)
	name = cmp.Or(name, "nobody who is known")
	if a.failed.alone.Allow() && a.enterFailedLogin(ctx, "as "+name, from) == nil {
		return
	}
	a.failed.add(map[string]int{name: 1}, from)
}

// FailedLogins is how many log-ins have failed in this process.
func (a *Audit) FailedLogins() int64 { return a.failed.all.Load() }

func (a *Audit) enterFailedLogin(ctx context.Context, detail, from string) error {
	ctx, cancel := context.WithTimeout(ctx, entryPatience)
	defer cancel()
	e := tasks.Actor{By: "dashboard", From: from}.Entry(tasks.ActionFailedLogin)
	e.Detail = detail
	if err := a.enterNow(ctx, e); err != nil {
		return err
	}
	a.Announce(e, nil)
	return nil
}

// writeFailedLogins writes the entry of those that share one.
func (a *Audit) writeFailedLogins(ctx context.Context) {
	as, from := a.failed.take()
	if len(as) == 0 {
		return
	}
	if a.enterFailedLogin(ctx, inWords(as), from) != nil {
		a.failed.add(as, from) // with those of the next minute
	}
}

// inWords is "3 more: 2 as alice, 1 as bob".
func inWords(as map[string]int) string {
	total, names := 0, []string{}
	for _, name := range slices.Sorted(maps.Keys(as)) {
		total += as[name]
		if len(names) < failedNames {
			names = append(names, fmt.Sprintf("%d as %s", as[name], name))
		}
	}
	if len(as) > failedNames {
		names = append(names, "…")
	}
	return fmt.Sprintf("%d more: %s", total, strings.Join(names, ", "))
}

func (f *failedLogins) add(as map[string]int, from string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, n := range as {
		f.as[name] += n
	}
	f.from = from
}

func (f *failedLogins) take() (as map[string]int, from string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	as, f.as = f.as, map[string]int{}
	return as, f.from
}
