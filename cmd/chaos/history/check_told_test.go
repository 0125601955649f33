package history

import (
	"strings"
	"testing"
	"time"

	"batchreset/cmd/chaos/fault"
	"batchreset/tasks"
)

// told is a webhook about the end that a read shows.
func told(at time.Duration, id string, end Event) Event {
	return Event{Kind: Told, Begin: at, End: at, Job: end.Job, Key: id, Record: end.Record}
}

func TestEveryEndIsTold(t *testing.T) {
	end := read(30, 31, jobA, tasks.ItemSucceeded, 1, "")
	end.Record.FinishedAt = history("always").Start.Add(at(20))
	earlier := read(25, 26, jobA, tasks.ItemFailed, 1, "")
	earlier.Record.FinishedAt = history("always").Start.Add(at(10))
	for _, row := range []struct {
		name   string
		redis  string
		events []Event
		want   string
	}{
		{"once", "always", []Event{told(at(21), "a-1", end)}, ""},
		{"twice, under the same ID", "always", []Event{told(at(21), "a-1", end), told(at(22), "a-1", end)}, ""},
		{"and the end before it, too", "always", []Event{told(at(11), "a-1", earlier), told(at(21), "a-2", end)}, ""},
		{"never", "always", nil, "nobody was told"},
		{"not the last one", "always", []Event{told(at(11), "a-1", earlier)}, "nobody was told"},
		{"two under one ID", "always", []Event{told(at(11), "a-1", earlier), told(at(21), "a-1", end)}, "two ends are told as a-1"},
		{"never, but Redis forgot", "everysec", []Event{broke(20.5, 21, fault.RedisKill, "redis")}, ""},
		{"never, and Redis could not forget", "everysec", []Event{broke(25, 26, fault.RedisKill, "redis")}, "nobody was told"},
	} {
		t.Run(row.name, func(t *testing.T) {
			h := untoldHistory(row.redis, append(row.events, end, submitted(), called(1, 2, itemA, "k", 1, Success))...)
			vs := index(h).checkI9EveryEndIsTold()
			if (len(vs) == 1) != (row.want != "") || len(vs) > 1 || row.want != "" && !strings.Contains(vs[0].String(), row.want) {
				t.Errorf("violations %v", vs)
			}
		})
	}
}
