package main

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// table prints the results. Notes stand below it, under the number of their line.
func table(w io.Writer, m machine, results []result) error {
	fmt.Fprintf(w, "%s, %d cores, Linux %s, %s, Redis %s, asynq %s\ncommit %s, %s, load %s: %s\n\n",
		m.CPU, m.Cores, m.Kernel, m.Go, m.Redis, m.Asynq, m.Commit, m.Date, m.Load, m.Command)
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(columns, "\trow\twhat\tmedian\tmin .. max\ttarget\tverdict")
	for i, r := range results {
		value, span := "-", "-"
		if v := r.verdict(); v != failed {
			s := spreadOf(r.Rounds)
			value, span = number(s.Median)+" "+r.Unit, number(s.Min)+" .. "+number(s.Max)
		}
		fmt.Fprintf(columns, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", i+1, r.Row, r.What, value, span, r.wanted(), r.verdict())
	}
	if err := columns.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for i, r := range results {
		if r.Failure != "" {
			fmt.Fprintf(w, "%d: no figure: %s\n", i+1, r.Failure)
		}
		if r.Note != "" {
			fmt.Fprintf(w, "%d: %s\n", i+1, r.Note)
		}
	}
	return nil
}

// wanted is the target as text.
func (r result) wanted() string {
	if r.Target == nil {
		return ""
	}
	text := "<= " + number(r.Target.Limit)
	if r.Target.AtLeast {
		text = ">= " + number(r.Target.Limit)
	}
	if r.Stretch != 0 {
		text += ", stretch " + number(r.Stretch)
	}
	return text
}

// number prints three significant digits, or whole numbers.
func number(v float64) string {
	switch size := math.Abs(v); {
	case size >= 100:
		return fmt.Sprintf("%.0f", v)
	case size >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
