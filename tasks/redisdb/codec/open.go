package codec

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"batchreset/tasks"
)

// Open is what a census reads of a job record.
type Open struct {
	// Job has its ID, Tenant, RunID, Queue, NotBefore, Held, Stop, Total, Counts and State, and the items that have not ended
	// with State, Driver and NotBefore.
	tasks.Job
	// Since is when the items were asked for: when the job was made, or, later, when somebody had it tried again.
	Since tasks.Time
}

// OpenItems reads a job record. fields are names and values by turns. Errors: those of Job.
func OpenItems(id string, fields []string) (Open, error) {
	job, err := openItems(id, fields)
	if err != nil && !errors.Is(err, tasks.JobGone) {
		err = &Damage{err}
	}
	return job, err
}

func openItems(id string, fields []string) (Open, error) {
	if len(fields) == 0 {
		return Open{}, tasks.JobGone
	}
	open := Open{Job: tasks.Job{ID: id}}
	var version, total, held, end, created, again string
	var items []int // where in fields
	for i := 0; i+1 < len(fields); i += 2 {
		switch name, value := fields[i], fields[i+1]; name {
		case "v":
			version = value
		case "total":
			total = value
		case "held":
			held = value
		case "end":
			end = value
		case "created":
			created = value
		case AgainField:
			again = value
		case "tenant":
			open.Tenant = value
		case "run":
			open.RunID = value
		case "queue":
			open.Queue = value
		case "stop":
			open.Stop = tasks.Code(value)
		default:
			if name != "" && name[0] >= '0' && name[0] <= '9' {
				items = append(items, i)
			}
		}
	}
	if version != Version {
		return Open{}, fmt.Errorf("job %s has record version %q, this program reads %s", id, version, Version)
	}
	_, notBefore, _ := strings.Cut(end, " ")
	since, reason, _ := strings.Cut(held, " ")
	f := numbers{fields: []string{created, again, notBefore, since}}
	open.CreatedAt = tasks.FromMillis(f.count(0))
	open.Since = cmp.Or(tasks.FromMillis(f.count(1)), open.CreatedAt)
	open.NotBefore = tasks.FromMillis(f.count(2))
	open.Held = tasks.Held{Reason: reason, Since: tasks.FromMillis(f.count(3))}
	if f.err != nil {
		return Open{}, fmt.Errorf("job %s: header: %w", id, f.err)
	}
	for _, i := range items {
		if err := open.add(fields[i+1]); err != nil {
			return Open{}, fmt.Errorf("job %s: item %s: %w", id, fields[i], err)
		}
	}
	open.Total = open.Counts.Total()
	if total != strconv.Itoa(open.Total) || open.Total == 0 {
		return Open{}, fmt.Errorf("job %s: header: a total of %.20q, with %d items", id, total, open.Total)
	}
	open.State = open.Counts.State()
	return open, nil
}

// add counts an item, and keeps one that has not ended.
func (o *Open) add(raw string) error {
	state, rest, more, err := headOf(raw)
	if err != nil {
		return err
	}
	it := tasks.Item{State: state}
	*o.Counts.Of(it.State)++
	if it.State.Final() {
		return nil
	}
	if more {
		var stored struct {
			Driver    string `json:"dr"`
			NotBefore *int64 `json:"w"`
		}
		if err := json.Unmarshal([]byte("{"+rest), &stored); err != nil {
			return err
		}
		it.Driver, it.NotBefore = stored.Driver, sinceCreated(o.CreatedAt, stored.NotBefore)
	}
	o.Items = append(o.Items, it)
	return nil
}
