package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
)

// row is what a run comes to, or several with Redis run in one way.
type row struct {
	history.Totals
	name                               string // the seed, or how many there were
	redis                              setup
	injured                            map[fault.Kind]int
	repairs, exits, violations, seeded int
}

func newRow(p plan, r result, violations int) row {
	return row{
		Totals: history.Count(r.history), name: fmt.Sprint(p.seed), redis: p.setup, injured: r.injured,
		repairs: r.repairs, exits: r.exits, violations: violations, seeded: 1,
	}
}

// add makes r the sum of r and other.
func (r *row) add(other row) {
	if r.injured == nil {
		r.injured = map[fault.Kind]int{}
	}
	for kind, n := range other.injured {
		r.injured[kind] += n
	}
	r.Add(other.Totals)
	r.repairs += other.repairs
	r.exits += other.exits
	r.violations += other.violations
	r.seeded += other.seeded
	r.name = fmt.Sprintf("%d seeds", r.seeded)
}

func (r row) String() string {
	var faults []string
	for _, kind := range fault.All() {
		if n := r.injured[kind]; n > 0 {
			faults = append(faults, fmt.Sprintf("%d %s", n, kind))
		}
	}
	return fmt.Sprintf("%s\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d", r.name, r.redis, strings.Join(faults, ", "),
		r.Runs, r.Jobs, r.Items, r.Attempts, r.Calls, r.repairs, r.exits, r.violations)
}

// report prints a line for each run, and their sums if there is more than one. It
// returns the number of violations.
func report(w io.Writer, rows []row) (violations int, err error) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "seed\tredis\tfaults\truns\tjobs\titems\tattempts\tcalls\trepairs\texits\tviolations")
	sums := map[setup]*row{}
	total := row{redis: "all"}
	for _, r := range rows {
		fmt.Fprintln(table, r)
		if sums[r.redis] == nil {
			sums[r.redis] = &row{redis: r.redis}
		}
		sums[r.redis].add(r)
		total.add(r)
	}
	if len(rows) > 1 {
		for _, s := range setups {
			if sums[s] != nil {
				fmt.Fprintln(table, *sums[s])
			}
		}
		fmt.Fprintln(table, total)
	}
	return total.violations, table.Flush()
}
