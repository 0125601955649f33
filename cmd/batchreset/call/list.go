package call

import (
	"fmt"
	"iter"
	"time"

	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// howMany are the flags that bound a list.
type howMany struct {
	limit int
	all   bool
}

// define adds the flags; one is what is listed, in the singular.
func (h *howMany) define(flags *pflag.FlagSet, one string) {
	flags.IntVarP(&h.limit, "limit", "L", 20, "how many "+one+"s to list at most")
	flags.BoolVar(&h.all, "all", false, "list every "+one+", however many")
	terminal.Alternatives(flags, "limit", "all")
}

// read checks the flags and returns how many to list at most; negative: all.
func (h *howMany) read() (int, error) {
	if h.limit < 1 {
		return 0, fmt.Errorf("--limit must be at least 1, not %d", h.limit)
	}
	if h.all {
		return -1, nil
	}
	return h.limit, nil
}

// period are the flags that say when what is listed was made.
type period struct{ since, until string }

func (p *period) define(flags *pflag.FlagSet, what string) {
	flags.StringVar(&p.since, "since", "", "only "+what+" from this `time` on, such as 2026-01-02T15:04:05Z, or 2h for two hours ago")
	flags.StringVar(&p.until, "until", "", "only "+what+" before this `time`, in the same forms")
}

func (p *period) read(now time.Time) (since, until time.Time, err error) {
	if since, err = terminal.PastTime("since", p.since, now); err != nil {
		return since, until, err
	}
	if until, err = terminal.PastTime("until", p.until, now); err != nil {
		return since, until, err
	}
	if tasks.CheckTimes(since, until) != nil {
		return since, until, fmt.Errorf("--since %s is after --until %s", p.since, p.until)
	}
	return since, until, nil
}

// pageOf is how many of so many, or of all, to ask for at a time.
func pageOf(limit int) int {
	const most = 100 // that the service gives
	if limit > 0 {
		return min(most, limit)
	}
	return most
}

// firstOf are the first of a list; all, if limit is negative.
func firstOf[T any](list iter.Seq2[T, error], limit int) (found []T, err error) {
	for one, err := range list {
		if err != nil {
			return nil, err
		}
		if found = append(found, one); len(found) == limit {
			break
		}
	}
	return found, nil
}
