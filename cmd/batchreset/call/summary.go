package call

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// countsInWords tells the counts that are not zero: "1 running, 3 succeeded".
func countsInWords(counts client.Counts) string {
	c := tasks.Counts(counts)
	all := map[string]int{}
	for _, state := range tasks.ItemStates {
		all[string(state)] = *c.Of(state)
	}
	return statesInWords(all)
}

// statesInWords is the same for the states of rows, which are more.
func statesInWords(counts map[string]int) string {
	var words []string
	for _, state := range rowStates {
		if n := counts[state]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, state))
		}
	}
	return strings.Join(words, ", ")
}

// ended is how many items are final.
func ended(c client.Counts) int { return c.Succeeded + c.Failed + c.Unknown + c.Cancelled }

// sum adds up the counts of jobs.
func sum(jobs []client.Job) (total int, counts client.Counts) {
	for _, job := range jobs {
		total += job.Total
		addCounts(&counts, job.Counts, 1)
	}
	return total, counts
}

// addCounts adds some counts, or takes them off with a sign of -1.
func addCounts(to *client.Counts, some client.Counts, sign int) {
	all, more := (*tasks.Counts)(to), tasks.Counts(some)
	for _, state := range tasks.ItemStates {
		*all.Of(state) += sign * *more.Of(state)
	}
}

// writeSummary tells how jobs ended, and lists the instances that were not reset.
func writeSummary(w io.Writer, jobs []client.Job) error {
	total, counts := sum(jobs)
	fmt.Fprintf(w, "%s in %s: %s\n", terminal.Plural(total, "instance"), terminal.Plural(len(jobs), "job"), countsInWords(counts))
	if ended(counts) == counts.Succeeded {
		return nil
	}
	fmt.Fprintln(w)
	t := terminal.NewTable(w, "INSTANCE", "STATE", "ATTEMPTS", "CODE", "MESSAGE")
	for _, job := range jobs {
		for _, it := range job.Items {
			if state := tasks.ItemState(it.State); state.Final() && state != tasks.ItemSucceeded {
				t.Row(it.InstanceID, it.State, strconv.Itoa(it.Attempts), it.Code, it.Message)
			}
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if counts.Unknown > 0 {
		fmt.Fprintln(w, "\nunknown: the reset was sent and nobody can say whether it happened; look at the phone before you reset it again")
	}
	return nil
}
