package tasks_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"batchreset/tasks"
)

func TestBatch(t *testing.T) {
	ids := func(n int) []string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("phone-%d", i)
		}
		return list
	}
	for _, row := range []struct {
		name    string
		list    []string
		want    []string
		message string // part of the error, when one is due
	}{
		{"accepts one instance", []string{"a44uhlf7"}, []string{"a44uhlf7"}, ""},
		{"accepts 32 instances", ids(32), ids(32), ""},
		{"accepts every character that is allowed", []string{"Az09._:-"}, []string{"Az09._:-"}, ""},
		{"accepts 64 characters", []string{strings.Repeat("x", 64)}, []string{strings.Repeat("x", 64)}, ""},
		{"folds repeats and keeps the order", []string{"b", "a", "b", "c", "a"}, []string{"b", "a", "c"}, ""},
		{"refuses an empty list", nil, nil, "instance_ids must list at least one"},
		{"refuses 33 instances", ids(33), nil, "instance_ids lists 33 instances, the limit is 32"},
		{"counts repeats against the limit", append(ids(32), "phone-0"), nil, "lists 33"},
		{"refuses an empty ID", []string{"a", ""}, nil, "instance_ids[1] is empty"},
		{"refuses 65 characters", []string{strings.Repeat("x", 65)}, nil, "instance_ids[0] is 65 bytes long"},
		{"refuses a space", []string{"a b"}, nil, `instance_ids[0] "a b"`},
		{"refuses a slash", []string{"a/b"}, nil, "instance_ids[0]"},
		{"refuses a line end", []string{"a\n"}, nil, "instance_ids[0]"},
		{"refuses a control character", []string{"a\x00"}, nil, "instance_ids[0]"},
		{"refuses letters of other alphabets", []string{"телефон"}, nil, "instance_ids[0]"},
		{"refuses what a URL takes for a folder", []string{".."}, nil, "instance_ids[0]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := tasks.Batch(row.list, tasks.DefaultMaxInstances)
			if !reflect.DeepEqual(got, row.want) {
				t.Errorf("got %q, want %q", got, row.want)
			}
			switch {
			case row.message == "" && err != nil:
				t.Errorf("refused: %v", err)
			case row.message != "" && (err == nil || !strings.Contains(err.Error(), row.message)):
				t.Errorf("error %v does not say %q", err, row.message)
			case row.message != "" && tasks.CodeOf(err) != tasks.BadRequest:
				t.Errorf("code %s, want %s", tasks.CodeOf(err), tasks.BadRequest)
			}
		})
	}
}

func TestDeliverySurvivesTheQueue(t *testing.T) {
	d := tasks.Delivery{ItemID: tasks.ItemID(tasks.NewJobID(), 31), Number: 2, InstanceID: "phone-1", Tenant: "acme", AllowUnregistered: true}
	got, err := tasks.DecodeDelivery(d.Encode())
	if err != nil || got != d {
		t.Fatalf("got %+v, %v; want %+v", got, err, d)
	}
	if want := d.ItemID + "-2"; d.TaskID() != want {
		t.Errorf("task ID %s, want %s", d.TaskID(), want)
	}
}

func TestDamagedPayloadIsRefused(t *testing.T) {
	good := tasks.Delivery{ItemID: tasks.ItemID(tasks.NewJobID(), 0), Number: 1, InstanceID: "phone-1", Tenant: "acme"}
	for name, damage := range map[string]func(*tasks.Delivery){
		"without item":                func(d *tasks.Delivery) { d.ItemID = "" },
		"with an item out of no job":  func(d *tasks.Delivery) { d.ItemID = "job-0" },
		"with a padded item number":   func(d *tasks.Delivery) { d.ItemID += "0" + d.ItemID[len(d.ItemID)-1:] },
		"without instance":            func(d *tasks.Delivery) { d.InstanceID = "" },
		"with a path for an instance": func(d *tasks.Delivery) { d.InstanceID = "../x" },
		"without tenant":              func(d *tasks.Delivery) { d.Tenant = "" },
		"with delivery 0":             func(d *tasks.Delivery) { d.Number = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			damage(&bad)
			if _, err := tasks.DecodeDelivery(bad.Encode()); err == nil {
				t.Errorf("accepted %s", bad.Encode())
			}
		})
	}
	if _, err := tasks.DecodeDelivery([]byte("not JSON")); err == nil {
		t.Error("accepted a payload that is not JSON")
	}
}

// Whatever a payload looks like, it is read as a JSON decoder reads it.
func FuzzDecodeDelivery(f *testing.F) {
	item := tasks.ItemID(strings.Repeat("0af", 10)+"00", 7)
	for _, tenant := range []string{"acme", `a"b`, `a\b`, "a<b", "a\u2028b", "\xff", `","open":true}`} {
		for _, open := range []bool{false, true} {
			f.Add(tasks.Delivery{ItemID: item, Number: 1, InstanceID: "phone-1", Tenant: tenant, AllowUnregistered: open}.Encode())
		}
	}
	for _, text := range []string{
		`{"item_id":"%s","delivery":1,"instance_id":"phone-1","tenant":"acme"} `,
		`{"item_id":"%s","delivery":01,"instance_id":"phone-1","tenant":"acme"}`,
		`{"item_id":"%s","delivery":1,"instance_id":"phone-1","tenant":"acme","open":false}`,
		`{"item_id":"%s","delivery":1,"instance_id":"phone-1","tenant":"acme","tenant":"other"}`,
		`{"item_id":"%s","delivery":1,"instance_id":"phone-1","tenant":"acme","open":true,"item_id":"x","tenant":null}`,
		`x{"item_id":"%s","delivery":1,"instance_id":"phone-1","tenant":"acme"}`,
		"{\"item_id\":\"%s\",\"delivery\":1,\"instance_id\":\"phone-1\",\"tenant\":\"a\x01b\"}",
	} {
		f.Add(fmt.Appendf(nil, text, item))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := tasks.DecodeDelivery(payload)
		var want tasks.Delivery
		if wrong := json.Unmarshal(payload, &want); wrong != nil {
			if err == nil {
				t.Fatalf("read %q, which is not JSON: %v", payload, wrong)
			}
			return
		}
		if err == nil && got != want {
			t.Fatalf("%q read as %+v, JSON says %+v", payload, got, want)
		}
	})
}
