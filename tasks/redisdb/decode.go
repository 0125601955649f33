package redisdb

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"batchreset/tasks"
)

// schemaVersion is written into every record, for the code that comes after.
const schemaVersion = "1"

// storedItem is an item as the scripts keep it; lua/record.lua explains the names.
type storedItem struct {
	Instance string     `json:"i"`
	State    string     `json:"s"`
	Delivery int        `json:"d"`
	Attempts int        `json:"a"`
	Began    *int64     `json:"b"`
	Ended    *int64     `json:"e"`
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
	header := reader{hash: hash}
	created := header.number("created")
	job := tasks.Job{
		ID:            id,
		RequestID:     hash["request_id"],
		Tenant:        hash["tenant"],
		Queue:         hash["queue"],
		Open:          hash["open"] == "1",
		Fingerprint:   hash["fp"],
		TaskRetention: time.Duration(header.number("tasks")) * time.Second,
		CreatedAt:     tasks.FromMillis(created),
		StartedAt:     tasks.FromMillis(header.number("started")),
		FinishedAt:    tasks.FromMillis(header.number("finished")),
		EndBefore:     tasks.FromMillis(header.number("end")),
		Total:         int(header.number("total")),
		Revision:      header.number("rev"),
	}
	for _, state := range tasks.ItemStates {
		*job.Counts.Of(state) = int(header.number(string(state)))
	}
	if header.err != nil {
		return tasks.Job{}, fmt.Errorf("job %s: %w", id, header.err)
	}
	job.State = job.Counts.State()
	job.Items = make([]tasks.Item, job.Total)
	for n := range job.Items {
		var it storedItem
		if err := json.Unmarshal([]byte(hash[strconv.Itoa(n)]), &it); err != nil {
			return tasks.Job{}, fmt.Errorf("job %s: item %d: %w", id, n, err)
		}
		job.Items[n] = tasks.Item{
			ID:         tasks.ItemID(id, n),
			InstanceID: it.Instance,
			State:      stateOf(it.State),
			Attempts:   it.Attempts,
			StartedAt:  sinceCreated(job.CreatedAt, it.Began),
			FinishedAt: sinceCreated(job.CreatedAt, it.Ended),
			Code:       it.Code,
			Message:    it.Message,
			Delivery:   max(it.Delivery, 1),
		}
		for _, h := range it.History {
			outcome := string(stateOf(h.Outcome))
			if h.Outcome == "l" {
				outcome = "lost"
			}
			job.Items[n].History = append(job.Items[n].History, tasks.PastAttempt{
				Number: h.Number, Outcome: outcome, Code: h.Code, Message: strings.ToValidUTF8(h.Message, ""),
				StartedAt: sinceCreated(job.CreatedAt, h.Began), FinishedAt: sinceCreated(job.CreatedAt, h.Ended),
			})
		}
	}
	return job, nil
}

func sinceCreated(created tasks.Time, ms *int64) tasks.Time {
	if ms == nil {
		return tasks.Time{}
	}
	return tasks.Time{Time: created.Add(time.Duration(*ms) * time.Millisecond)}
}

// reader reads numbers from a hash and keeps the first error; an absent field is 0.
type reader struct {
	hash map[string]string
	err  error
}

func (r *reader) number(field string) int64 {
	s, ok := r.hash[field]
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("field %s: %w", field, err)
	}
	return n
}
