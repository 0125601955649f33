package call

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"batchreset/api/client"
	"batchreset/tasks"
)

// Labels of the jobs of a run. The list is in each of them, so that a list that was
// changed anywhere makes every request another one, and is refused: moved to another
// chunk, an instance would be reset a second time.
const (
	runIDLabel   = "run_id"
	runListLabel = "run_list"
	// runKindLabel finds the retries of results.
	runKindLabel = "run_kind"
	kindRetry    = "retry"
)

// runIDForm is what Airflow allows in the ID of a run of its own. With the number of a
// request it fits into an Idempotency-Key.
var runIDForm = regexp.MustCompile(`^[A-Za-z0-9._:~+-]{1,240}$`)

func checkRunID(id string) error {
	if !runIDForm.MatchString(id) {
		return fmt.Errorf("--run-id must be 1 to 240 characters of A-Z a-z 0-9 . _ : ~ + -, not %.80q", id)
	}
	return nil
}

// newRunID makes up an ID for a run that has none.
func newRunID() string { return strings.ToLower(rand.Text()[:12]) }

// labelled is the batch with the labels of a run. Its kind is empty for a submit.
func labelled(batch client.Batch, runID, kind string, instances []string) (client.Batch, error) {
	labels := maps.Clone(batch.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	own := map[string]string{runIDLabel: runID, runListLabel: digest(instances)}
	if kind != "" {
		own[runKindLabel] = kind
	}
	for name, value := range own {
		if _, taken := labels[name]; taken {
			return batch, fmt.Errorf("--label %s is kept for the run ID", name)
		}
		labels[name] = value
	}
	if err := tasks.CheckLabels(labels); err != nil {
		return batch, fmt.Errorf("--label, with those that say the run, %w", err)
	}
	batch.Labels = labels
	return batch, nil
}

// digest tells one list from another.
func digest(list []string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(list, "\n"))))[:16]
}

// chunks cuts the instances into requests.
func chunks(all client.Batch, instances []string, size int) []client.Batch {
	var list []client.Batch
	for ids := range slices.Chunk(instances, size) {
		b := all
		b.InstanceIDs, b.MaxFailures, b.Generation = ids, min(all.MaxFailures, len(ids)), nil
		for _, id := range ids {
			if n := all.Generation[id]; n != 0 {
				if b.Generation == nil {
					b.Generation = map[string]int{}
				}
				b.Generation[id] = n
			}
		}
		list = append(list, b)
	}
	return list
}

// keyed gives each batch of a run an idempotency key, the same whenever the run is
// repeated.
func keyed(batches []client.Batch, runID string) {
	for n := range batches {
		batches[n].IdempotencyKey = fmt.Sprintf("%s-%d", runID, n)
	}
}

// again is what to say to repeat a run.
func again(runID string, batch client.Batch) string {
	if batch.NotBefore.IsZero() {
		return "--run-id " + runID
	}
	return fmt.Sprintf("--run-id %s --not-before %s", runID, batch.NotBefore.Format("2006-01-02T15:04:05Z"))
}
