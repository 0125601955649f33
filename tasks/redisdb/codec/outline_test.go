package codec_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// flat is a hash as HGETALL answers.
func flat(hash map[string]string) (fields []string) {
	for name, value := range hash {
		fields = append(fields, name, value)
	}
	return fields
}

// agrees says what the outline of a record has otherwise than the job that was read from it.
func agrees(job tasks.Job, hash map[string]string) error {
	got, err := codec.Outline(job.ID, flat(hash))
	if err != nil {
		return fmt.Errorf("the record can be read, its outline not: %w", err)
	}
	if got.ID != job.ID || got.Total != job.Total || got.State != job.State || got.Counts != job.Counts || got.Held != job.Held || got.Stop != job.Stop ||
		!maps.Equal(got.FailureCodes(), job.FailureCodes()) {
		return fmt.Errorf("the outline is %+v of %+v", got, job)
	}
	return nil
}

func TestAnOutlineSaysWhatTheRecordSays(t *testing.T) {
	const failed, unknown = `f 1 50 900 phone-1 {"c":"CPS.0005","m":"it { says","h":[{"n":1,"b":50,"e":60,"o":"f","c":"CPS.0003"}]}`, `u 1 70 800 phone-2 t 70 1 key {"c":"RESET.1001"}`
	for name, hash := range map[string]map[string]string{
		"new":                   record("p    phone-1", `p    phone-2 {"dr":"lab"}`),
		"held":                  with(record("p    phone-1", "s 1 1 2 phone-2"), "held", "1700000000500 the tenant is halted"),
		"held until it ended":   with(record("s 1 1 2 phone-2"), "held", "1700000000500 the tenant is halted"),
		"under way":             record("r 1 100  phone-0 token 100 4 key", `w 2 100  phone-1 {"c":"CPS.0003","w":9000}`, "s 1 100 250 phone-3", failed),
		"ended, each otherwise": record("s 1 100 250 phone-0", failed, unknown, `c   80 phone-3 {"c":"RESET.1003"}`, failed, "f 1 50 900 phone-5"),
		"cancelled":             with(record("r 1 100  phone-0 token 100 4 key", `c   80 phone-3 {"c":"RESET.1003"}`), "stop", "RESET.1003"),
		"told":                  with(record("p    phone-1", failed), "told", "1", "told:1", "1"),
	} {
		t.Run(name, func(t *testing.T) {
			job, err := codec.Job(jobID, hash)
			if err != nil {
				t.Fatal(err)
			}
			if err := agrees(job, hash); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnUntouchedRecord(t *testing.T) {
	header := func(hash map[string]string) (h []any) {
		for _, field := range codec.UntouchedFields {
			if value, there := hash[field]; there {
				h = append(h, value)
			} else {
				h = append(h, nil)
			}
		}
		return h
	}
	made := with(record("p    phone-1", `p    phone-2 {"dr":"lab"}`), "rev", "1")
	whole, err := codec.Outline(jobID, flat(made))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := codec.Untouched(jobID, header(made)); !ok || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", whole) {
		t.Errorf("%t: %+v, the whole record says %+v", ok, got, whole)
	}
	for name, other := range map[string]map[string]string{
		"gone": {}, "changed once": with(made, "rev", "2"), "no revision": with(made, "rev", ""), "a later version": with(made, "v", "3"),
		"no total": with(made, "total", ""), "a total of none": with(made, "total", "0"), "a total that is a word": with(made, "total", "two"),
	} {
		if got, ok := codec.Untouched(jobID, header(other)); ok {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAnOutlineOfNothingUnderstood(t *testing.T) {
	if _, err := codec.Outline(jobID, nil); !errors.Is(err, tasks.JobGone) {
		t.Errorf("no record: %v", err)
	}
	good := record("s 1 100 250 phone-0", "p    phone-1")
	for name, bad := range map[string]map[string]string{
		"a later version":             with(good, "v", "3"),
		"no version":                  {"total": "1", "0": "p    phone-1"},
		"no total":                    with(good, "total", ""),
		"no items":                    {"v": codec.Version, "total": "0"},
		"fewer items than the total":  with(good, "total", "3"),
		"more items than the total":   with(good, "total", "1"),
		"an item that is empty":       with(good, "1", ""),
		"an item that is cut off":     with(good, "1", "s 1 100"),
		"an item of an unknown state": with(good, "1", "z    phone-1"),
		"an item without a state":     with(good, "1", "     phone-1"),
		"a rest that is cut off":      with(good, "1", `f    phone-1 {"c":"RES`),
		"held since a word":           with(good, "held", "yesterday halted"),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := codec.Outline(jobID, flat(bad))
			if _, damage := errors.AsType[*codec.Damage](err); !damage || !strings.Contains(err.Error(), jobID) {
				t.Errorf("got %v", err)
			}
		})
	}
}
