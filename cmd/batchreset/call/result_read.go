package call

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"batchreset/api"
	"batchreset/tasks"
)

// readResult reads the rows of a result file, of which it needs the columns that say
// what is to be reset again. Errors name the line.
func readResult(path string) (rows []resultRow, err error) {
	raw, err := os.ReadFile(path)
	if pathError, ok := errors.AsType[*os.PathError](err); ok {
		return nil, pathError.Err // the path is said already
	} else if err != nil {
		return nil, err
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff")) // some editors put a byte order mark
	lines := map[string]int{}
	add := func(row resultRow, line int) error {
		if err := checkRow(row); err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if before := lines[row.InstanceID]; before > 0 {
			return fmt.Errorf("line %d: instance %s is in line %d already", line, row.InstanceID, before)
		}
		lines[row.InstanceID] = line
		rows = append(rows, row)
		return nil
	}
	switch filepath.Ext(path) {
	case ".csv":
		err = readCSVRows(raw, add)
	case ".jsonl":
		err = readJSONRows(raw, add)
	default:
		err = errors.New("is not called ….csv or ….jsonl, as a result is")
	}
	return rows, err
}

func checkRow(row resultRow) error {
	if err := tasks.CheckInstanceID(row.InstanceID); err != nil {
		return fmt.Errorf("instance_id %w", err)
	}
	if !slices.Contains(rowStates, row.State) {
		return fmt.Errorf("state is %.80q, which no result has", row.State)
	}
	if _, _, ok := tasks.ParseItemID(row.ItemID); !ok && tasks.ItemState(row.State).Final() {
		return fmt.Errorf("item_id %.80q is not the ID of an item", row.ItemID)
	}
	return nil
}

func readCSVRows(raw []byte, add func(row resultRow, line int) error) error {
	table := csv.NewReader(bytes.NewReader(raw))
	header, err := table.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("is empty")
	} else if err != nil {
		return err
	}
	column, unknown := tasks.CSVColumns(header, resultColumns)
	for _, name := range []string{"instance_id", "item_id", "state", "attempts"} {
		if !slices.ContainsFunc(header, func(h string) bool { return strings.TrimSpace(h) == name }) {
			return fmt.Errorf("has no column %s in its first line", name)
		}
	}
	if unknown != nil {
		return fmt.Errorf("line 1: %w", unknown)
	}
	for {
		cells, err := table.Read()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err // it names the line
		}
		line, _ := table.FieldPos(0)
		row := resultRow{InstanceID: tasks.UnescapeFormulas(cells[column["instance_id"]]), ItemID: cells[column["item_id"]], State: cells[column["state"]]}
		if row.Attempts, err = strconv.Atoi(cells[column["attempts"]]); err != nil {
			return fmt.Errorf("line %d: attempts is %.80q, not a number", line, cells[column["attempts"]])
		}
		if err := add(row, line); err != nil {
			return err
		}
	}
}

func readJSONRows(raw []byte, add func(row resultRow, line int) error) error {
	if len(raw) > 0 && len(bytes.TrimSpace(raw)) == 0 { // without a byte it is a result without a row
		return errors.New("is empty")
	}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, len(raw)+1)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var row resultRow
		if err := api.ReadJSON(lines.Bytes(), &row); err != nil {
			return fmt.Errorf("line %d is not a row of a result: it %w", n, err)
		}
		if err := add(row, n); err != nil {
			return err
		}
	}
	return lines.Err()
}
