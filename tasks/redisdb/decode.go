package redisdb

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"batchreset/tasks"
)

// schemaVersion is written into every record. Records of version 1 are rewritten
// when somebody reads or changes them: see upgrade in lua/record.lua.
const schemaVersion = "2"

// storedRest is what few items have; lua/record.lua explains the names.
type storedRest struct {
	Delivery int        `json:"d"`
	Code     tasks.Code `json:"c"`
	Message  string     `json:"m"`
	History  []struct {
		Number  int        `json:"n"`
		Began   *int64     `json:"b"`
		Ended   *int64     `json:"e"`
		Outcome string     `json:"o"`
		Code    tasks.Code `json:"c"`
		Message string     `json:"m"`
	} `json:"h"`
}

// stateOf is the inverse of NAMES in lua/record.lua.
func stateOf(letter string) tasks.ItemState {
	switch letter {
	case "p":
		return tasks.ItemPending
	case "r":
		return tasks.ItemRunning
	case "w":
		return tasks.ItemRetrying
	case "s":
		return tasks.ItemSucceeded
	case "f":
		return tasks.ItemFailed
	case "u":
		return tasks.ItemUnknown
	case "c":
		return tasks.ItemCancelled
	}
	return ""
}

// decodeJob reads a job hash. Errors: tasks.JobGone for an empty one.
func decodeJob(id string, hash map[string]string) (tasks.Job, error) {
	if len(hash) == 0 {
		return tasks.Job{}, tasks.JobGone
	}
	if v := hash["v"]; v != schemaVersion {
		return tasks.Job{}, fmt.Errorf("job %s has record version %q, this program reads %s", id, v, schemaVersion)
	}
	job := tasks.Job{
		ID:          id,
		RequestID:   hash["request_id"],
		Tenant:      hash["tenant"],
		Queue:       hash["queue"],
		Open:        hash["open"] == "1",
		Fingerprint: hash["fp"],
	}
	if err := decodeHeader(&job, hash["head"], hash["counts"]); err != nil {
		return tasks.Job{}, err
	}
	retention := numbers{fields: []string{hash["tasks"]}}
	job.TaskRetention = time.Duration(retention.count(0)) * time.Second
	if retention.err != nil {
		return tasks.Job{}, fmt.Errorf("job %s: field tasks: %w", id, retention.err)
	}
	var err error
	job.Items = make([]tasks.Item, job.Total)
	for n := range job.Items {
		if job.Items[n], err = decodeItem(job, n, hash[strconv.Itoa(n)]); err != nil {
			return tasks.Job{}, fmt.Errorf("job %s: item %d: %w", id, n, err)
		}
	}
	return job, nil
}

// decodeHeader reads the fields head and counts.
func decodeHeader(job *tasks.Job, head, counts string) error {
	const created, finishBy, started, finished, least = 0, 1, 4, 5, 6
	h := numbers{fields: strings.Split(head, " ")}
	c := numbers{fields: strings.Split(counts, " ")}
	if len(h.fields) < least || len(c.fields) != 1+len(tasks.ItemStates) {
		return fmt.Errorf("job %s has the header %q, %q", job.ID, head, counts)
	}
	job.CreatedAt = tasks.FromMillis(h.count(created))
	job.EndBefore = sinceCreated(job.CreatedAt, h.at(finishBy))
	job.StartedAt = sinceCreated(job.CreatedAt, h.at(started))
	job.FinishedAt = sinceCreated(job.CreatedAt, h.at(finished))
	job.Revision = c.count(0)
	for i, state := range tasks.ItemStates {
		*job.Counts.Of(state) = int(c.count(1 + i))
	}
	if err := errors.Join(h.err, c.err); err != nil {
		return fmt.Errorf("job %s: header: %w", job.ID, err)
	}
	job.Total = job.Counts.Total()
	job.State = job.Counts.State()
	return nil
}

func decodeItem(job tasks.Job, n int, raw string) (tasks.Item, error) {
	const attempts, began, ended, instance, rest = 1, 2, 3, 4, 5
	f := numbers{fields: strings.SplitN(raw, " ", rest+1)}
	if len(f.fields) <= instance {
		return tasks.Item{}, fmt.Errorf("it is %q", raw)
	}
	var more storedRest
	if len(f.fields) > rest {
		if err := json.Unmarshal([]byte(f.fields[rest]), &more); err != nil {
			return tasks.Item{}, err
		}
	}
	item := tasks.Item{
		ID:         tasks.ItemID(job.ID, n),
		InstanceID: f.fields[instance],
		State:      stateOf(f.fields[0]),
		Attempts:   int(f.count(attempts)),
		StartedAt:  sinceCreated(job.CreatedAt, f.at(began)),
		FinishedAt: sinceCreated(job.CreatedAt, f.at(ended)),
		Code:       more.Code,
		Message:    more.Message,
		Delivery:   max(more.Delivery, 1),
	}
	for _, h := range more.History {
		outcome := string(stateOf(h.Outcome))
		if h.Outcome == "l" {
			outcome = "lost"
		}
		item.History = append(item.History, tasks.PastAttempt{
			Number: h.Number, Outcome: outcome, Code: h.Code, Message: strings.ToValidUTF8(h.Message, ""),
			StartedAt: sinceCreated(job.CreatedAt, h.Began), FinishedAt: sinceCreated(job.CreatedAt, h.Ended),
		})
	}
	return item, f.err
}

func sinceCreated(created tasks.Time, ms *int64) tasks.Time {
	if ms == nil {
		return tasks.Time{}
	}
	return tasks.Time{Time: created.Add(time.Duration(*ms) * time.Millisecond)}
}

// numbers reads numbers from fields and keeps the first error.
type numbers struct {
	fields []string
	err    error
}

// at returns a field's number, or nil if it is empty.
func (r *numbers) at(i int) *int64 {
	if r.fields[i] == "" {
		return nil
	}
	n, err := strconv.ParseInt(r.fields[i], 10, 64)
	if err != nil && r.err == nil {
		r.err = err
	}
	return &n
}

// count is at for a number that is 0 if the field is empty.
func (r *numbers) count(i int) int64 {
	if n := r.at(i); n != nil {
		return *n
	}
	return 0
}
