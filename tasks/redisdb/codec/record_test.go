package codec_test

import (
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// created is when the records of these tests were made, in ms since 1970.
const created = 1_700_000_000_000

const jobID = "00000000000000000000000000000001"

// record is a job record with these items, as the scripts write it.
func record(items ...string) map[string]string {
	hash := map[string]string{
		"v": codec.Version, "created": strconv.Itoa(created), "end": strconv.Itoa(created + 86_400_000),
		"tasks": "3600", "total": strconv.Itoa(len(items)), "rev": "42", "tenant": "acme", "queue": "reset-3",
	}
	for n, item := range items {
		hash[strconv.Itoa(n)] = item
	}
	return hash
}

// with is a hash with other fields.
func with(hash map[string]string, fields ...string) map[string]string {
	hash = maps.Clone(hash)
	for i := 0; i < len(fields); i += 2 {
		hash[fields[i]] = fields[i+1]
	}
	return hash
}

// after is the time so many ms after the record was made.
func after(ms int64) tasks.Time { return tasks.FromMillis(created + ms) }

func TestAnItemIsReadInEveryState(t *testing.T) {
	for _, row := range []struct {
		name, raw string
		want      tasks.Item
	}{
		{"pending", "p    phone-1", tasks.Item{State: tasks.ItemPending}},
		{
			"running, nothing sent", "r 1 100  phone-1 token 100 5 key",
			tasks.Item{State: tasks.ItemRunning, Attempts: 1, StartedAt: after(100), Last: tasks.LastAttempt{StartedAt: after(100)}},
		},
		{
			"running, and it may have sent", "r 2 100  phone-1 WORKER22AAAABBBB 300  key",
			tasks.Item{State: tasks.ItemRunning, Attempts: 2, StartedAt: after(100), Last: tasks.LastAttempt{StartedAt: after(300), Worker: "WORKER22", MaySend: true}},
		},
		{
			"retrying, and its attempt is known well", `w 1 100  phone-1 {"u":1500,"v":200,"h":[{"n":1,"b":100,"e":200,"o":"w","dr":"lab","wk":"WORKER22","st":"s20"}]}`,
			tasks.Item{
				State: tasks.ItemRetrying, Attempts: 1, StartedAt: after(100), BusyFor: 1500 * time.Millisecond,
				History: []tasks.PastAttempt{{Number: 1, StartedAt: after(100), FinishedAt: after(200), Outcome: "retrying", Driver: "lab", Worker: "WORKER22", Steps: "s20"}},
			},
		},
		{
			"succeeded, and its attempt is known well", `s 1 100 250 phone-1 {"o":"booted","at":120,"wk":"WORKER22","st":"s20 l100"}`,
			tasks.Item{
				State: tasks.ItemSucceeded, Attempts: 1, StartedAt: after(100), FinishedAt: after(250), Evidence: "booted",
				Last: tasks.LastAttempt{StartedAt: after(120), Worker: "WORKER22", Steps: "s20 l100"},
			},
		},
		{
			"retrying", `w 2 100  phone-1 {"d":3,"f":2,"w":5000,"c":"CPS.0005","m":"busy","dr":"http","j":"10.0.0.7","p":"half","h":[{"n":1,"b":100,"e":200,"o":"w","c":"CPS.0005","m":"busy"},{"n":2,"b":300,"e":400,"o":"l"}]}`,
			tasks.Item{
				State: tasks.ItemRetrying, Attempts: 2, StartedAt: after(100), NotBefore: after(5000), Code: "CPS.0005", Message: "busy",
				Delivery: 3, Driver: "http", Address: "10.0.0.7", Checkpoint: "half",
				History: []tasks.PastAttempt{
					{Number: 1, StartedAt: after(100), FinishedAt: after(200), Outcome: "retrying", Code: "CPS.0005", Message: "busy"},
					{Number: 2, StartedAt: after(300), FinishedAt: after(400), Outcome: "lost"},
				},
			},
		},
		{
			"succeeded, and looked at", `s 1 100 250 phone-1 {"o":"booted"}`,
			tasks.Item{State: tasks.ItemSucceeded, Attempts: 1, StartedAt: after(100), FinishedAt: after(250), Evidence: "booted"},
		},
		{
			"failed: no try is due any more", `f 1 0 250 phone-1 {"w":5000,"c":"RESET.1007"}`,
			tasks.Item{State: tasks.ItemFailed, Attempts: 1, StartedAt: after(0), FinishedAt: after(250), Code: "RESET.1007"},
		},
		{
			"unknown, the call still in doubt", `u 1 100 250 phone-1   1 key {"p":"half"}`,
			tasks.Item{State: tasks.ItemUnknown, Attempts: 1, StartedAt: after(100), FinishedAt: after(250), Checkpoint: "half"},
		},
		{"cancelled before it began", "c   700 phone-1", tasks.Item{State: tasks.ItemCancelled, FinishedAt: after(700)}},
		{"a time that an older version wrote", "s 1 -20 -5 phone-1", tasks.Item{State: tasks.ItemSucceeded, Attempts: 1, StartedAt: after(0), FinishedAt: after(0)}},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.want.ID, row.want.InstanceID = tasks.ItemID(jobID, 0), "phone-1"
			row.want.Delivery = max(row.want.Delivery, 1)
			job, err := codec.Job(jobID, record(row.raw))
			if err != nil || len(job.Items) != 1 || !reflect.DeepEqual(job.Items[0], row.want) {
				t.Errorf("got  %+v, %v\nwant %+v", job.Items, err, row.want)
			}
		})
	}
}

func TestAHeaderIsRead(t *testing.T) {
	hash := with(record("s 1 100 250 phone-0", `f 1 50 900 phone-1 {"c":"RESET.1007"}`, "u 1 70 800 phone-2"),
		"end", "1700086400000 1700000060000", "request_id", "req-1", "epoch", "e1", "fp", "print", "stop", "RESET.1003", "open", "1",
		"reason", "new image", "labels", `{"team":"qa"}`, "trace", "00-1-2-01", "told", "2", "told:1", "3", "told:0", "9")
	job, err := codec.Job(jobID, hash)
	if err != nil {
		t.Fatal(err)
	}
	items := job.Items
	job.Items = nil
	if want := (tasks.Job{
		ID: jobID, State: tasks.JobPartial, RequestID: "req-1", CreatedAt: after(0), StartedAt: after(50), FinishedAt: after(900),
		Total: 3, Counts: tasks.Counts{Succeeded: 1, Failed: 1, Unknown: 1}, NotBefore: after(60_000), Reason: "new image",
		Labels: map[string]string{"team": "qa"}, Tenant: "acme", Queue: "reset-3", Epoch: "e1", Fingerprint: "print", Stop: tasks.Cancelled,
		TaskRetention: time.Hour, Revision: 42, AllowUnregistered: true, EndBefore: after(86_400_000), Traceparent: "00-1-2-01", Told: 2,
	}); !reflect.DeepEqual(job, want) {
		t.Errorf("got  %+v\nwant %+v", job, want)
	}
	if items[0].Told != 0 || items[1].Told != 3 || items[2].Told != 0 { // nobody is told of an item that succeeded
		t.Errorf("told of the items: %d, %d, %d", items[0].Told, items[1].Told, items[2].Told)
	}
}

func TestAJobHasEndedWhenItsLastItemHas(t *testing.T) {
	job, err := codec.Job(jobID, record("s 1 100 250 phone-0", "p    phone-1"))
	if err != nil || job.State != tasks.JobRunning || !job.FinishedAt.IsZero() || job.StartedAt != after(100) {
		t.Errorf("%s, started at %s, finished at %s, %v", job.State, job.StartedAt, job.FinishedAt, err)
	}
}

func TestNoRecordIsNoDamage(t *testing.T) {
	_, err := codec.Job(jobID, nil)
	if _, damage := errors.AsType[*codec.Damage](err); !errors.Is(err, tasks.JobGone) || damage {
		t.Errorf("got %v", err)
	}
}

// Whoever reads many records goes on without one that is damaged. The error names it.
func TestWhatIsNotUnderstoodIsDamage(t *testing.T) {
	good := record("s 1 100 250 phone-0", "p    phone-1")
	for name, bad := range map[string]map[string]string{
		"a later version":               with(good, "v", "3"),
		"no version":                    {"created": "1"},
		"a time that is none":           with(good, "created", "yesterday"),
		"no total":                      with(good, "total", ""),
		"a total below zero":            with(good, "total", "-1"),
		"a total that no record holds":  with(good, "total", "9000000000000000000"),
		"fewer items than the total":    with(good, "total", "3"),
		"an item that is empty":         with(good, "1", ""),
		"an item that is cut off":       with(good, "1", "s 1 100"),
		"an item of an unknown state":   with(good, "1", "z    phone-1"),
		"an item without a state":       with(good, "1", "     phone-1"),
		"a number of an item is a word": with(good, "1", "p one   phone-1"),
		"a rest that is cut off":        with(good, "1", `p    phone-1 {"c":"RES`),
		"labels that are none":          with(good, "labels", "{"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := codec.Job(jobID, bad)
			if _, damage := errors.AsType[*codec.Damage](err); !damage || !strings.Contains(err.Error(), jobID) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEveryStateHasALetterOfItsOwn(t *testing.T) {
	letters := map[tasks.ItemState]string{}
	for c := range 256 {
		letter := string(rune(c))
		state := codec.StateOf(letter)
		if state == "" {
			continue
		}
		if before, taken := letters[state]; taken {
			t.Errorf("%s is %s and %s", state, before, letter)
		}
		letters[state] = letter
	}
	for _, state := range tasks.ItemStates {
		if letters[state] == "" {
			t.Errorf("%s has no letter", state)
		}
	}
	for _, none := range []string{"", "l", "S", "ss", "succeeded"} { // l is an outcome: lost
		if state := codec.StateOf(none); state != "" {
			t.Errorf("%q is %s", none, state)
		}
	}
}

func TestWhoHoldsAnItem(t *testing.T) {
	for _, row := range []struct {
		name, raw string
		delivery  int
		open      bool
		token     string
	}{
		{"nobody yet", "p    phone-1", 1, true, ""},
		{"a running attempt", "r 1 100  phone-1 token 100 5 key", 1, true, "token"},
		{"a running attempt of another delivery", `r 1 100  phone-1 token 100 5 key {"d":2}`, 1, false, "token"},
		{"a running attempt of this delivery", `r 1 100  phone-1 token 100 5 key {"d":2}`, 2, true, "token"},
		{"nobody: an attempt that has ended in doubt", "w 1 100  phone-1 token 100 1 key", 1, true, ""},
		{"nobody: it succeeded", "s 1 100 250 phone-1", 1, false, ""},
		{"nobody: its state is not known", "z 1 100  phone-1 token 100 1 key", 1, false, ""},
		{"nobody: there is no such item", "", 1, false, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			open, token, err := codec.HeldBy(row.raw, row.delivery)
			if open != row.open || token != row.token || err != nil {
				t.Errorf("open %t, token %q, %v", open, token, err)
			}
		})
	}
	if _, _, err := codec.HeldBy(`r 1 100  phone-1 token 100 5 key {"d":`, 1); err == nil {
		t.Error("an item that is cut off is read")
	}
}

func TestARevisionIsReadFromAnAnswer(t *testing.T) {
	for _, row := range []struct {
		created, rev any
		at           tasks.Time
		revision     int64
		bad          bool
	}{
		{strconv.Itoa(created), "42", after(0), 42, false},
		{nil, nil, tasks.Time{}, 0, false}, // no record
		{strconv.Itoa(created), "many", after(0), 0, true},
	} {
		at, revision, err := codec.Revision(row.created, row.rev)
		if at != row.at || revision != row.revision || (err != nil) != row.bad {
			t.Errorf("%v, %v: %s, %d, %v", row.created, row.rev, at, revision, err)
		}
	}
}

// Whatever stands in Redis, reading it ends in a record that adds up, or in damage.
func FuzzARecordIsReadOrDamaged(f *testing.F) {
	f.Add("2", "1700000000000", "1700086400000 1700000060000", "1", `r 1 100  phone-1 token 100 5 key {"d":2,"h":[{"n":1,"o":"l"}]}`, `{"a":"b"}`)
	f.Add("2", "0", "", "-1", "p    phone-1", "null")
	f.Add("2", "-9223372036854775808", "9223372036854775807", "9223372036854775807", "s 9 9 9 x", "")
	f.Add("2", "9223372036854775807", "1 2 3", "1", "s 1 9223372036854775807 -9223372036854775808 x", "[]")
	f.Add("1", "", "", "", "", "")
	f.Fuzz(func(t *testing.T, version, made, end, total, item, labels string) {
		_, _, _ = codec.HeldBy(item, 1)
		job, err := codec.Job(jobID, map[string]string{"v": version, "created": made, "end": end, "total": total, "0": item, "labels": labels})
		if err != nil {
			if _, damage := errors.AsType[*codec.Damage](err); !damage {
				t.Fatalf("%v is no damage", err)
			}
			return
		}
		if err := agrees(job, map[string]string{"v": version, "total": total, "0": item}); err != nil {
			t.Error(err)
		}
		if job.Total != len(job.Items) || job.Counts.Total() != job.Total {
			t.Errorf("a total of %d, %d items, counts %+v", job.Total, len(job.Items), job.Counts)
		}
		if _, err := json.Marshal(job); err != nil {
			t.Errorf("it cannot be shown: %v", err)
		}
	})
}
