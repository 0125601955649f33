package call

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// submit resets the failed rows of the file again.
func (r *retryFlags) submit(ctx context.Context, std *terminal.Streams, flags *callerFlags) error {
	rows, err := readResult(r.from)
	if err != nil {
		return fmt.Errorf("--failed-from %s: %w", r.from, err)
	}
	batch, err := r.read("", time.Now())
	if err != nil {
		return err
	}
	result, err := newResultFile(r.result, r.from, flags.output)
	if err != nil {
		return err
	}
	chosen, left := r.choose(rows)
	notices := &notices{w: std.Err}
	s := submission{
		kind: kindRetry, listed: instancesOf(chosen), result: result, wait: r.wait,
		output: flags.output, out: std.Out, notices: notices,
	}
	if len(chosen) == 0 {
		fmt.Fprintf(notices, "nothing to reset again (left alone: %s)\n", left)
		return errors.Join(s.show(following{errors: []jobError{}}), result.write(std.Out, nil))
	}
	c, err := flags.connect(notices)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := r.prepare(ctx, c, &s, chosen); err != nil {
		return err
	}
	if n := len(s.instances); n > 0 {
		fmt.Fprintf(notices, "%s to reset again (left alone: %s)\n", terminal.Plural(n, "instance"), left)
		if !r.yes && terminal.IsTerminal(std.In) {
			if err := askFirst(ctx, std, c, s.instances); err != nil {
				return err
			}
		}
	}
	return s.run(ctx, c, batch, r.batchOptions)
}

// choose returns the rows that are to be reset again, and says what the others are.
func (r *retryFlags) choose(rows []resultRow) (chosen []resultRow, left string) {
	others := map[string]int{}
	for _, row := range rows {
		if r.chooses(row) {
			chosen = append(chosen, row)
		} else {
			others[row.State]++
		}
	}
	return chosen, cmp.Or(statesInWords(others), "none")
}

func (r *retryFlags) chooses(row resultRow) bool {
	state := tasks.ItemState(row.State)
	return state == tasks.ItemFailed || state == tasks.ItemUnknown && r.unknown
}

// prepare decides what is sent of the rows: what the newest record of each says, not the file.
func (r *retryFlags) prepare(ctx context.Context, c *client.Client, s *submission, chosen []resultRow) error {
	h, err := readHistory(ctx, c, chosen)
	if err != nil {
		return err
	}
	var first, again []resultRow // before any retry of a file, and now
	gone := 0
	for _, row := range chosen {
		source, ok := h.source(row)
		if !ok {
			gone++
			s.skipped = append(s.skipped, row)
			continue
		}
		if r.chooses(source) {
			first = append(first, source)
		}
		if now := h.newest[row.InstanceID]; r.chooses(now) {
			again = append(again, now)
		} else {
			s.skipped = append(s.skipped, now)
		}
	}
	if gone > 0 {
		fmt.Fprintf(s.notices, "%s left alone: the record is not what the file says, or is not kept any more\n", terminal.Plural(gone, "instance"))
	}
	h.tell(s.notices, chosen)
	if h.brokeOff(first) {
		// The same requests under the same keys: what was accepted, or is only now, is found.
		again = first
	}
	s.instances, s.runID = instancesOf(again), retryID(again)
	s.also = h.open(s.skipped)
	return nil
}

// retryID is the run ID of a retry: made from what each row says in a way that no later
// failure of its item has.
func retryID(rows []resultRow) string {
	all := make([]string, len(rows))
	for i, row := range rows {
		all[i] = fmt.Sprintf("%s %d", row.ItemID, row.Attempts)
	}
	return "retry-" + digest(all)
}

func instancesOf(rows []resultRow) []string {
	ids := make([]string, len(rows))
	for i, row := range rows {
		ids[i] = row.InstanceID
	}
	return ids
}

// history is what the service knows of the rows of a file and of their retries.
type history struct {
	sources map[string]resultRow // the rows of the file's own jobs now, by item
	newest  map[string]resultRow // by instance: its newest row
	jobs    map[string]client.Job
	retries []client.Job // from files
}

// readHistory reads the jobs that the rows name, and the retries that were submitted since.
func readHistory(ctx context.Context, c *client.Client, rows []resultRow) (*history, error) {
	h := &history{sources: map[string]resultRow{}, newest: map[string]resultRow{}, jobs: map[string]client.Job{}}
	named := map[string]bool{}
	for _, row := range rows {
		job, _, _ := tasks.ParseItemID(row.ItemID) // was checked
		named[job] = true
	}
	if err := h.read(ctx, c, slices.Collect(maps.Keys(named))); err != nil || len(h.jobs) == 0 {
		return h, err
	}
	filter := client.JobsFilter{Labels: []string{runKindLabel + "=" + kindRetry}}
	inOrder := slices.Collect(maps.Values(h.jobs))
	for _, job := range inOrder {
		for _, it := range job.Items {
			h.sources[it.ItemID] = rowOf(job.ID, it)
		}
		if filter.Since.IsZero() || job.CreatedAt.Before(filter.Since) {
			filter.Since = job.CreatedAt
		}
	}
	listed, err := listJobs(ctx, c, filter, -1)
	if err != nil {
		return h, err
	}
	ids := make([]string, len(listed))
	for i, job := range listed {
		ids[i] = job.ID
	}
	if err := h.read(ctx, c, ids); err != nil {
		return h, err
	}
	for _, id := range ids {
		h.retries = append(h.retries, h.jobs[id])
	}
	inOrder = append(inOrder, h.retries...)
	slices.SortStableFunc(inOrder, func(a, b client.Job) int { return a.CreatedAt.Compare(b.CreatedAt) })
	for _, job := range inOrder {
		for _, it := range job.Items {
			h.newest[it.InstanceID] = rowOf(job.ID, it)
		}
	}
	return h, nil
}

// read reads records. Those that are not kept any more are left out.
func (h *history) read(ctx context.Context, c *client.Client, ids []string) error {
	_, err := c.Read(ctx, ids, func(job client.Job) { h.jobs[job.ID] = job })
	return err
}

// source is a row of the file as its job has it now. There is none if the file is of
// another job, or knows of more attempts than the record.
func (h *history) source(row resultRow) (resultRow, bool) {
	source, ok := h.sources[row.ItemID]
	return source, ok && source.InstanceID == row.InstanceID && source.Attempts >= row.Attempts
}

// tell says which rows of the file were retried since, as which job.
func (h *history) tell(notices *notices, rows []resultRow) {
	counts := map[string]map[string]int{} // by job and state
	for _, row := range rows {
		now := h.newest[row.InstanceID]
		if _, ok := h.source(row); !ok || now.ItemID == row.ItemID && now.Attempts == row.Attempts && now.State == row.State {
			continue
		}
		if counts[now.JobID] == nil {
			counts[now.JobID] = map[string]int{}
		}
		counts[now.JobID][now.State]++
	}
	for _, job := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(notices, "already retried as job %s: %s\n", job, statesInWords(counts[job]))
	}
}

// brokeOff reports whether rows are the list of a retry of which some requests were
// accepted, and not all.
func (h *history) brokeOff(rows []resultRow) bool {
	id, list := retryID(rows), digest(instancesOf(rows))
	accepted := 0
	for _, job := range h.retries {
		if job.Labels[runIDLabel] == id && job.Labels[runListLabel] == list {
			accepted += len(job.Items)
		}
	}
	return accepted > 0 && accepted < len(rows)
}

// open are the jobs of those rows that are being reset, which can be followed.
func (h *history) open(rows []resultRow) (jobs []client.Job) {
	for _, row := range rows {
		job := h.jobs[row.JobID]
		if !tasks.ItemState(row.State).Final() && !slices.ContainsFunc(jobs, func(j client.Job) bool { return j.ID == job.ID }) {
			jobs = append(jobs, job)
		}
	}
	return jobs
}
