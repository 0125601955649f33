package report

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"
)

// Table prints the results. Notes stand below it, under the number of their line.
func (r Report) Table(w io.Writer) error {
	m := r.Machine
	fmt.Fprintf(w, "%s, %d cores, Linux %s, %s, Redis %s, asynq %s\ncommit %s, %s, load %s: %s\n\n",
		m.CPU, m.Cores, m.Kernel, m.Go, m.Redis, m.Asynq, m.Commit, m.Date, m.Load, m.Command)
	columns := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(columns, "\trow\twhat\tmedian\tmin .. max\ttarget\tverdict")
	for i, result := range r.Results {
		value, span := "-", "-"
		if result.Verdict() != Failed {
			s := SpreadOf(result.Rounds)
			value, span = Number(s.Median)+" "+result.Unit, s.Range()
		}
		fmt.Fprintf(columns, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", i+1, result.Row, result.What, value, span, result.wanted(), result.Verdict())
	}
	if err := columns.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	for i, result := range r.Results {
		if result.Failure != "" {
			fmt.Fprintf(w, "%d: no figure: %s\n", i+1, result.Failure)
		}
		if result.Note != "" {
			fmt.Fprintf(w, "%d: %s\n", i+1, result.Note)
		}
	}
	return nil
}

// wanted is the target as text.
func (r Result) wanted() string {
	if r.Target == nil {
		return ""
	}
	text := "<= " + Number(r.Target.Limit)
	if r.Target.AtLeast {
		text = ">= " + Number(r.Target.Limit)
	}
	if r.Stretch != 0 {
		text += ", stretch " + Number(r.Stretch)
	}
	return text
}

// Number prints three significant digits, or whole numbers.
func Number(v float64) string {
	switch size := math.Abs(v); {
	case size >= 100:
		return fmt.Sprintf("%.0f", v)
	case size >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}
