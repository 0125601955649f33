package call

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"batchreset/api"
	"batchreset/tasks"
)

// listColumn is the column of a table that has the instances.
const listColumn = "instance_id"

// listColumns are the columns that a table may have: those of a result and of 'fleet list'.
var listColumns = append(slices.Clone(resultColumns), fleetColumns...)

// fleetColumns are those of 'fleet list'.
var fleetColumns = []string{
	"tenant", "protected", "protected_by", "protected_reason", "protected_since", "protected_until", "driver", "address", "labels", generationColumn,
}

const generationColumn = "generation"

// howToList says what a list may be.
const howToList = "give one instance ID per line, or a CSV with commas whose first line names the column " + listColumn

// read reads a list: one ID per line, a CSV with the column instance_id, or the lines of a
// result in JSON. What looks like anything else is refused: its first column may be no
// instance, and half a line another one.
func (l *instanceList) read(raw []byte, name string) error {
	if bytes.HasPrefix(raw, []byte("\xff\xfe")) || bytes.HasPrefix(raw, []byte("\xfe\xff")) {
		return errors.New("line 1: it is in UTF-16; save it as UTF-8")
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff")) // some editors put a byte order mark
	switch first, line := firstLine(raw); {
	case strings.HasPrefix(first, "{"):
		return l.readObjects(raw, name)
	case isHeader(first):
		return l.readTable(raw, name)
	case looksLikeHeader(first):
		return fmt.Errorf("line %d: %q looks like the name of a column, which must be %s", line, first, listColumn)
	}
	n := 0
	for line := range strings.Lines(string(raw)) {
		n++
		l.readLine(strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), fmt.Sprintf("%s line %d", name, n))
	}
	return nil
}

// firstLine is the first line that is neither blank nor a comment.
func firstLine(raw []byte) (text string, number int) {
	for line := range strings.Lines(string(raw)) {
		number++
		text = strings.TrimSpace(line)
		if text != "" && !strings.HasPrefix(text, "#") {
			return text, number
		}
	}
	return "", 0
}

// isHeader reports whether a line names columns, among them that of the instances.
func isHeader(line string) bool {
	cells, err := csv.NewReader(strings.NewReader(line)).Read()
	return err == nil && !strings.Contains(line, "\r") && slices.ContainsFunc(cells, func(cell string) bool { return strings.TrimSpace(cell) == listColumn })
}

// looksLikeHeader reports whether a line is the name of the column in another spelling.
func looksLikeHeader(line string) bool {
	return strings.EqualFold(strings.NewReplacer("_", "", "-", "", " ", "", `"`, "").Replace(line), "instanceid")
}

// readLine reads a line of a list without columns.
func (l *instanceList) readLine(line, place string) {
	flaw := flawOf(line)
	text := strings.Trim(line, " ")
	comment := strings.HasPrefix(text, "#")
	switch {
	case flaw.breaks:
		l.complain(fmt.Errorf("%s: %s", place, flaw.text))
	case comment || strings.TrimSpace(text) == "":
	case flaw.text != "":
		l.complain(fmt.Errorf("%s: %s; %s", place, flaw.text, howToList))
	default:
		l.add(text, place)
	}
}

// flaw is what says that a line is not one ID.
type flaw struct {
	text   string
	breaks bool // it is worse in a comment, too: the line is not what it seems to be
}

func flawOf(line string) flaw {
	switch {
	case strings.Contains(line, "\x00"):
		return flaw{"there is a NUL character in it; save the file as text in UTF-8", true}
	case strings.Contains(line, "\r"):
		return flaw{"there is a CR in it without an LF, which is no line end; save the file with LF or CRLF", true}
	case strings.Contains(line, "\ufeff"):
		return flaw{"there is a byte order mark in it, as between two files that were put together; take it out", true}
	case strings.HasPrefix(strings.ToLower(line), "sep="):
		return flaw{text: `"sep=" is for a spreadsheet`}
	}
	for _, mark := range []struct{ character, name string }{
		{";", "semicolon"}, {"\t", "tab"}, {",", "comma"}, {`"`, "quote"}, {"'", "quote"},
	} {
		if strings.Contains(strings.Trim(line, " "), mark.character) {
			return flaw{text: "there is a " + mark.name + " in it"}
		}
	}
	return flaw{}
}

// readTable reads a CSV with a header: a result, or what 'fleet import' reads.
func (l *instanceList) readTable(raw []byte, name string) error {
	table := csv.NewReader(bytes.NewReader(raw))
	table.Comment = '#'
	header, err := table.Read()
	if err != nil {
		return err // it names the line
	}
	line, _ := table.FieldPos(0)
	columns, err := tasks.CSVColumns(header, listColumns)
	if err != nil {
		return fmt.Errorf("line %d: %w", line, err)
	}
	for {
		cells, err := table.Read()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err // it names the line
		}
		line, _ := table.FieldPos(0)
		id, place := tasks.UnescapeFormulas(cells[columns[listColumn]]), fmt.Sprintf("%s line %d", name, line)
		l.add(id, place)
		if n, there := columns[generationColumn]; there && cells[n] != "" {
			l.addGeneration(id, cells[n], place)
		}
	}
}

// readObjects reads the JSON lines of a result, or of 'fleet list'.
func (l *instanceList) readObjects(raw []byte, name string) error {
	n := 0
	for line := range bytes.Lines(raw) {
		n++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var row struct {
			resultRow

			tasks.Protection

			Tenant     string            `json:"tenant"`
			Protected  bool              `json:"protected"`
			Driver     string            `json:"driver"`
			Address    string            `json:"address"`
			Labels     map[string]string `json:"labels"`
			Generation int               `json:"generation"`
		}
		if err := api.ReadJSON(line, &row); err != nil {
			return fmt.Errorf("line %d is neither a row of a result nor an entry of the fleet: it %w", n, err)
		}
		place := fmt.Sprintf("%s line %d", name, n)
		l.add(row.InstanceID, place)
		if row.Generation != 0 {
			l.addGeneration(row.InstanceID, strconv.Itoa(row.Generation), place)
		}
	}
	return nil
}
