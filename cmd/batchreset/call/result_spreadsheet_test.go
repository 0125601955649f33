package call

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"
)

func TestAResultIsNoSpreadsheetProgram(t *testing.T) {
	row := resultRow{InstanceID: "-p", JobID: job1, ItemID: job1 + "-0", State: "failed", Code: "=A1", Message: "=HYPERLINK(\"http://evil\")"}
	var out bytes.Buffer
	if err := writeRows(&out, report{}, func(add func(resultRow) error) error { return add(row) }, ".csv"); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(bytes.NewReader(out.Bytes())).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, cell := range lines[1] {
		if strings.IndexAny(cell, "=+-@") == 0 {
			t.Errorf("%q is a formula", cell)
		}
	}
	err = readCSVRows(out.Bytes(), func(got resultRow, _ int) error {
		if got.InstanceID != row.InstanceID || got.ItemID != row.ItemID || got.State != row.State {
			t.Errorf("%+v comes back", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
