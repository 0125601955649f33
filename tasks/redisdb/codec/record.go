package codec

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"batchreset/tasks"
)

// Version is written into every job record. A record of another version is not read, and the
// scripts change none.
const Version = "2"

// storedRest is what few items have; lua/lib/record.lua explains the names.
type storedRest struct {
	Delivery   int        `json:"d"`
	Code       tasks.Code `json:"c"`
	Message    string     `json:"m"`
	Driver     string     `json:"dr"`
	Generation int        `json:"gn"`
	Evidence   string     `json:"o"`
	Address    string     `json:"j"`
	Checkpoint string     `json:"p"`
	NotBefore  *int64     `json:"w"`
	Busy       int64      `json:"u"`
	Began      *int64     `json:"at"`
	Worker     string     `json:"wk"`
	Steps      string     `json:"st"`
	History    []struct {
		Number  int        `json:"n"`
		Began   *int64     `json:"b"`
		Ended   *int64     `json:"e"`
		Outcome string     `json:"o"`
		Code    tasks.Code `json:"c"`
		Message string     `json:"m"`
		Address string     `json:"j"`
		Driver  string     `json:"dr"`
		Worker  string     `json:"wk"`
		Steps   string     `json:"st"`
	} `json:"h"`
}

// StateOf is the state that a record has as a letter, or "".
func StateOf(letter string) tasks.ItemState {
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

// Job reads a job record. Errors: tasks.JobGone for an empty one, else a *Damage.
func Job(id string, hash map[string]string) (tasks.Job, error) {
	job, err := decodeHash(id, hash)
	if err != nil && !errors.Is(err, tasks.JobGone) {
		err = &Damage{err}
	}
	return job, err
}

func decodeHash(id string, hash map[string]string) (tasks.Job, error) {
	if len(hash) == 0 {
		return tasks.Job{}, tasks.JobGone
	}
	if v := hash["v"]; v != Version {
		return tasks.Job{}, fmt.Errorf("job %s has record version %q, this program reads %s", id, v, Version)
	}
	job := tasks.Job{
		ID:                id,
		RunID:             hash["run"],
		RequestID:         hash["request_id"],
		Tenant:            hash["tenant"],
		Queue:             hash["queue"],
		Epoch:             hash["epoch"],
		AllowUnregistered: hash["open"] == "1",
		Fingerprint:       hash["fp"],
		Stop:              tasks.Code(hash["stop"]),
		Reason:            hash["reason"],
		Traceparent:       hash["trace"],
	}
	since, reason, _ := strings.Cut(hash["held"], " ")
	job.From, job.By, _ = strings.Cut(hash[ByField], " ") // older versions kept none
	end, notBefore, _ := strings.Cut(hash["end"], " ")
	f := numbers{fields: []string{hash["created"], end, hash["tasks"], hash["total"], hash["rev"], notBefore, hash[ToldField], since}}
	job.CreatedAt, job.EndBefore = tasks.FromMillis(f.count(0)), tasks.FromMillis(f.count(1))
	job.TaskRetention, job.Total = time.Duration(f.count(2))*time.Second, int(f.count(3))
	job.Revision = f.count(4)
	job.NotBefore, job.Told = tasks.FromMillis(f.count(5)), int(f.count(6))
	job.Held = tasks.Held{Reason: reason, Since: tasks.FromMillis(f.count(7))}
	if f.err != nil {
		return tasks.Job{}, fmt.Errorf("job %s: header: %w", id, f.err)
	}
	if job.Total < 1 || job.Total > len(hash) { // each item has a field
		return tasks.Job{}, fmt.Errorf("job %s: header: a total of %d, with %d fields", id, job.Total, len(hash))
	}
	var err error
	if job.Labels, err = Labels(hash["labels"]); err != nil {
		return tasks.Job{}, fmt.Errorf("job %s: labels: %w", id, err)
	}
	job.Items = make([]tasks.Item, job.Total)
	for n := range job.Items {
		it, err := decodeItem(job, n, hash[strconv.Itoa(n)])
		if err != nil {
			return tasks.Job{}, fmt.Errorf("job %s: item %d: %w", id, n, err)
		}
		if it.State == tasks.ItemFailed || it.State == tasks.ItemUnknown {
			it.Told, _ = strconv.Atoi(hash[ItemToldField(n)]) // absent: never
		}
		job.Items[n] = it
		if job.StartedAt.IsZero() || !it.StartedAt.IsZero() && it.StartedAt.Before(job.StartedAt.Time) {
			job.StartedAt = it.StartedAt
		}
		if it.FinishedAt.After(job.FinishedAt.Time) {
			job.FinishedAt = it.FinishedAt
		}
	}
	job.Counts = tasks.Count(job.Items)
	job.State = job.Counts.State()
	if !job.State.Final() {
		job.FinishedAt = tasks.Time{}
	} else {
		job.Held = tasks.Held{}
	}
	return job, nil
}

// Labels reads labels that are kept as JSON, or "" for none.
func Labels(raw string) (labels map[string]string, err error) {
	if raw != "" {
		err = json.Unmarshal([]byte(raw), &labels)
	}
	return labels, err
}

// EncodeLabels is the inverse of Labels.
func EncodeLabels(labels map[string]string) (string, error) {
	if len(labels) == 0 {
		return "", nil
	}
	b, err := json.Marshal(labels)
	return string(b), err
}

func decodeItem(job tasks.Job, n int, raw string) (tasks.Item, error) {
	const attempts, began, ended, instance, token, lastBegan, doubt = 1, 2, 3, 4, 5, 6, 7
	const least = instance + 1
	raw, rest, _ := strings.Cut(raw, " {")
	f := numbers{fields: strings.Split(raw, " ")}
	if len(f.fields) < least {
		return tasks.Item{}, fmt.Errorf("it is %q", raw)
	}
	var more storedRest
	if rest != "" {
		if err := json.Unmarshal([]byte("{"+rest), &more); err != nil {
			return tasks.Item{}, err
		}
	}
	item := tasks.Item{
		ID:         tasks.ItemID(job.ID, n),
		InstanceID: f.fields[instance],
		State:      StateOf(f.fields[0]),
		Attempts:   int(f.count(attempts)),
		StartedAt:  sinceCreated(job.CreatedAt, f.at(began)),
		FinishedAt: sinceCreated(job.CreatedAt, f.at(ended)),
		Code:       more.Code,
		Message:    more.Message,
		Checkpoint: more.Checkpoint,
		Driver:     more.Driver,
		Generation: more.Generation,
		Evidence:   more.Evidence,
		Address:    more.Address,
		Delivery:   max(more.Delivery, 1),
	}
	if item.State == "" { // nobody may take what is not understood for done
		return tasks.Item{}, fmt.Errorf("its state is %q", f.fields[0])
	}
	if !item.State.Final() {
		item.NotBefore = sinceCreated(job.CreatedAt, more.NotBefore)
	}
	item.BusyFor = time.Duration(more.Busy) * time.Millisecond
	switch {
	case item.State == tasks.ItemRunning && len(f.fields) > doubt:
		const unsent = 4 // see record.lua
		item.Last = tasks.LastAttempt{
			StartedAt: sinceCreated(job.CreatedAt, f.at(lastBegan)), Worker: WorkerOf(f.fields[token]), MaySend: f.count(doubt) < unsent,
		}
	case item.State == tasks.ItemSucceeded:
		item.Last = tasks.LastAttempt{StartedAt: sinceCreated(job.CreatedAt, more.Began), Worker: more.Worker, Steps: tasks.Steps(more.Steps)}
	}
	for _, h := range more.History {
		outcome := string(StateOf(h.Outcome))
		if h.Outcome == "l" {
			outcome = "lost"
		}
		item.History = append(item.History, tasks.PastAttempt{
			Number: h.Number, Outcome: outcome, Code: h.Code, Message: strings.ToValidUTF8(h.Message, ""), Address: h.Address, Driver: h.Driver, Worker: h.Worker, Steps: tasks.Steps(h.Steps),
			StartedAt: sinceCreated(job.CreatedAt, h.Began), FinishedAt: sinceCreated(job.CreatedAt, h.Ended),
		})
	}
	return item, f.err
}

// NewItem is an item that was never tried, as create.lua takes it.
func NewItem(instance, driver string, generation int) string {
	if driver == "" && generation == 0 {
		return instance
	}
	rest, err := json.Marshal(struct {
		Driver     string `json:"dr,omitempty"`
		Generation int    `json:"gn,omitempty"`
	}{driver, generation})
	if err != nil {
		panic(err) // a string and a number always encode
	}
	return instance + " " + string(rest)
}

func sinceCreated(created tasks.Time, ms *int64) tasks.Time {
	if ms == nil {
		return tasks.Time{}
	}
	// Older versions wrote negative times when clocks differed.
	return tasks.Time{Time: created.Add(time.Duration(max(0, *ms)) * time.Millisecond)}
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

// WorkerIDLength is that of the ID of a worker process.
const WorkerIDLength = 8

// WorkerOf is the ID of the worker process that made a token, or empty: older versions made
// tokens that say nothing of it.
func WorkerOf(token string) string {
	if len(token) != 2*WorkerIDLength {
		return ""
	}
	return token[:WorkerIDLength]
}

// HeldBy reads an item as lua/lib/record.lua stores it: whether it is open for the delivery, and
// the token of the attempt that is running.
func HeldBy(raw string, delivery int) (open bool, token string, err error) {
	const place = 5 // of the token
	item := struct {
		State    string `json:"s"`
		Token    string `json:"t"`
		Delivery int    `json:"d"`
	}{}
	raw, rest, _ := strings.Cut(raw, "{")
	if rest != "" {
		if err := json.Unmarshal([]byte("{"+rest), &item); err != nil {
			return false, "", fmt.Errorf("item %.80q: %w", raw+"{"+rest, err)
		}
	}
	if fields := strings.Split(strings.TrimSuffix(raw, " "), " "); fields[0] != "" {
		item.State, item.Token = fields[0], ""
		if len(fields) > place {
			item.Token = fields[place]
		}
	}
	state := StateOf(item.State)
	open = state != "" && !state.Final() && max(item.Delivery, 1) == delivery
	if state != tasks.ItemRunning {
		item.Token = ""
	}
	return open, item.Token, nil
}
