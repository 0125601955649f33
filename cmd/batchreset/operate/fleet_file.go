package operate

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"batchreset/api"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// fleetFile is what a file says of the fleet: each instance once.
type fleetFile struct {
	changes []tasks.FleetChange
	places  []string       // of the changes: where the file has them
	known   map[string]int // instances: which change is theirs
	repeats int            // rows that say again what another one has said
}

// readFleet reads and checks a fleet file.
func readFleet(path string) (*fleetFile, error) {
	var read func(*fleetFile, []byte) error
	switch ext := strings.ToLower(filepath.Ext(path)); ext {
	case ".csv":
		read = (*fleetFile).readCSV
	case ".json":
		read = (*fleetFile).readJSON
	case ".jsonl":
		read = (*fleetFile).readLines
	default:
		return nil, errors.New("the name must end in .csv, .json or .jsonl")
	}
	raw, err := os.ReadFile(path)
	if pathError, ok := errors.AsType[*os.PathError](err); ok {
		return nil, pathError.Err // the path is said already
	} else if err != nil {
		return nil, err
	}
	f := &fleetFile{known: map[string]int{}}
	if err := read(f, bytes.TrimPrefix(raw, []byte("\ufeff"))); err != nil { // some editors put a byte order mark
		return nil, err
	}
	if len(f.changes) == 0 {
		return nil, errors.New("lists no instance")
	}
	return f, nil
}

// add adds what a place of the file says, unless it has been said.
func (f *fleetFile) add(c tasks.FleetChange, place string) error {
	if err := tasks.CheckInstanceID(c.ID); err != nil {
		return fmt.Errorf("%s: instance_id %w", place, err)
	}
	n, again := f.known[c.ID]
	if !again {
		f.known[c.ID] = len(f.changes)
		f.changes, f.places = append(f.changes, c), append(f.places, place)
		return nil
	}
	if !sameChange(c, f.changes[n]) {
		return fmt.Errorf("%s: instance %s is in %s already, with another entry", place, c.ID, f.places[n])
	}
	f.repeats++
	return nil
}

func sameChange(a, b tasks.FleetChange) bool { return reflect.DeepEqual(a, b) }

var fleetColumns = []string{
	"instance_id", "tenant", "protected", "protected_by", "protected_reason", "protected_since", "protected_until", "driver", "address", "labels", "generation",
}

func (f *fleetFile) readCSV(raw []byte) error {
	rows := csv.NewReader(bytes.NewReader(raw))
	header, err := rows.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("is empty")
	}
	if err != nil {
		return err
	}
	columns, err := terminal.CSVColumns(header, fleetColumns)
	if err != nil {
		return fmt.Errorf("line 1: %w; it must name columns of %s, among them instance_id", err, strings.Join(fleetColumns, ", "))
	}
	if _, ok := columns["instance_id"]; !ok {
		return errors.New("line 1 must name the columns, among them instance_id")
	}
	for {
		cells, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // it names the line
		}
		line, _ := rows.FieldPos(0)
		place := fmt.Sprintf("line %d", line)
		c, err := fleetRow(func(column string) (string, bool) {
			n, ok := columns[column]
			if !ok {
				return "", false
			}
			return tasks.UnescapeFormulas(cells[n]), true
		})
		if err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
		if err := f.add(c, place); err != nil {
			return err
		}
	}
}

// fleetRow reads a line of a CSV. What it has no cell for, or an empty one, stays as it is.
func fleetRow(cell func(column string) (string, bool)) (c tasks.FleetChange, err error) {
	c.ID, _ = cell("instance_id")
	var ok bool
	if c.Tenant, ok = cell("tenant"); ok {
		if err := tasks.CheckTenant(c.Tenant); err != nil {
			return c, fmt.Errorf("tenant %w", err)
		}
	}
	switch text, _ := cell("protected"); text {
	case "":
	case "true", "false":
		protected := text == "true"
		c.Protected = &protected
	default:
		return c, fmt.Errorf("protected must be true or false, or empty to leave it as it is, not %.80q", text)
	}
	for column, field := range map[string]**string{
		"protected_by": &c.ProtectedBy, "protected_reason": &c.ProtectedReason, "driver": &c.Driver, "address": &c.Address,
	} {
		if text, _ := cell(column); text != "" {
			*field = &text
		}
	}
	if text, _ := cell("protected_until"); text != "" {
		if c.ProtectedUntil, err = untilOf(text); err != nil {
			return c, err
		}
	}
	if text, _ := cell("generation"); text != "" {
		if c.Generation, err = strconv.Atoi(text); err != nil || c.Generation < 1 || c.Generation > tasks.MaxGeneration {
			return c, badGeneration(text)
		}
	}
	if text, _ := cell("labels"); text != "" {
		if c.Labels, err = tasks.ParseLabels(text); err != nil {
			return c, fmt.Errorf("labels %w", err)
		}
	}
	if err := checkProtection(c); err != nil {
		return c, err
	}
	return c, checkWhere(c)
}

func badGeneration(what string) error {
	return fmt.Errorf("generation must be a whole number from 1 to %d, not %.80q", tasks.MaxGeneration, what)
}

// untilOf reads the end of a protection.
func untilOf(text string) (*tasks.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, fmt.Errorf("protected_until must be a time such as 2027-03-31T00:00:00Z, not %.80q", text)
	}
	return &tasks.Time{Time: t.UTC()}, nil
}

// checkProtection checks what a change says of a protection.
func checkProtection(c tasks.FleetChange) error {
	protects := c.Protected != nil && *c.Protected
	for _, field := range []struct {
		name  string
		given bool
	}{{"protected_by", c.ProtectedBy != nil}, {"protected_reason", c.ProtectedReason != nil}, {"protected_until", c.ProtectedUntil != nil}} {
		if field.given && !protects {
			return fmt.Errorf("%s is there, and protected is not true", field.name)
		}
	}
	if c.ProtectedReason != nil {
		if err := tasks.CheckReason(*c.ProtectedReason); err != nil {
			return fmt.Errorf("protected_reason %w", err)
		}
	}
	if c.ProtectedBy != nil {
		if err := tasks.CheckReason(*c.ProtectedBy); err != nil {
			return fmt.Errorf("protected_by %w", err)
		}
	}
	return nil
}

// checkWhere checks driver, address and labels of a change. The default driver is not written down.
func checkWhere(c tasks.FleetChange) error {
	if c.Driver != nil && *c.Driver != "" {
		if err := tasks.CheckDriver(*c.Driver); err != nil {
			return fmt.Errorf("driver %w", err)
		}
		if *c.Driver == tasks.DefaultDriver {
			*c.Driver = ""
		}
	}
	if c.Address != nil {
		if err := tasks.CheckAddress(*c.Address); err != nil {
			return fmt.Errorf("address %w", err)
		}
	}
	if err := tasks.CheckLabels(c.Labels); err != nil {
		return fmt.Errorf("labels %w", err)
	}
	return nil
}

// fleetEntry is an entry of a fleet file in JSON.
type fleetEntry struct {
	ID         jsontext.Value `json:"instance_id"`
	Tenant     jsontext.Value `json:"tenant"`
	Protected  jsontext.Value `json:"protected"`
	By         jsontext.Value `json:"protected_by"`
	Reason     jsontext.Value `json:"protected_reason"`
	Since      jsontext.Value `json:"protected_since"` // which nobody can choose
	Until      jsontext.Value `json:"protected_until"`
	Driver     jsontext.Value `json:"driver"`
	Address    jsontext.Value `json:"address"`
	Labels     jsontext.Value `json:"labels"`
	Generation jsontext.Value `json:"generation"`
}

func (f *fleetFile) readJSON(raw []byte) error {
	var entries []*fleetEntry
	if err := api.ReadJSON(raw, &entries); err != nil {
		return err
	}
	for n, e := range entries {
		if err := f.addEntry(e, fmt.Sprintf("entry %d", n)); err != nil {
			return err
		}
	}
	return nil
}

// readLines reads JSON lines.
func (f *fleetFile) readLines(raw []byte) error {
	n := 0
	for line := range bytes.Lines(raw) {
		n++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		place := fmt.Sprintf("line %d", n)
		var entry *fleetEntry
		if err := api.ReadJSON(line, &entry); err != nil {
			return fmt.Errorf("%s %w", place, err)
		}
		if err := f.addEntry(entry, place); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleetFile) addEntry(e *fleetEntry, place string) error {
	if e == nil {
		return fmt.Errorf("%s must be an object, not null", place)
	}
	c, err := e.change()
	if err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	return f.add(c, place)
}

// change is what an entry says.
func (e fleetEntry) change() (c tasks.FleetChange, err error) {
	var id, tenant, until *string
	var generation *int
	for _, field := range []struct {
		name string
		raw  jsontext.Value
		to   **string
	}{
		{"instance_id", e.ID, &id},
		{"tenant", e.Tenant, &tenant},
		{"protected_by", e.By, &c.ProtectedBy},
		{"protected_reason", e.Reason, &c.ProtectedReason},
		{"protected_until", e.Until, &until},
		{"driver", e.Driver, &c.Driver},
		{"address", e.Address, &c.Address},
	} {
		if !given(field.raw, field.to) {
			return c, fmt.Errorf("%s must be a string", field.name)
		}
	}
	if id == nil {
		return c, errors.New("instance_id must be a string")
	}
	c.ID = *id
	if tenant != nil {
		c.Tenant = *tenant
		if err := tasks.CheckTenant(c.Tenant); err != nil {
			return c, fmt.Errorf("tenant %w", err)
		}
	}
	if !given(e.Protected, &c.Protected) {
		return c, errors.New("protected must be true or false")
	}
	if until != nil {
		if c.ProtectedUntil, err = untilOf(*until); err != nil {
			return c, err
		}
	}
	if err := checkProtection(c); err != nil {
		return c, err
	}
	if e.Labels != nil && (json.Unmarshal(e.Labels, &c.Labels) != nil || c.Labels == nil) {
		return c, errors.New("labels must be an object of strings")
	}
	if !given(e.Generation, &generation) || generation != nil && (*generation < 1 || *generation > tasks.MaxGeneration) {
		return c, badGeneration(string(e.Generation))
	}
	if generation != nil {
		c.Generation = *generation
	}
	return c, checkWhere(c)
}

// given decodes a field, if it is there, and reports whether its type is right: null is no
// value.
func given[T any](raw jsontext.Value, field **T) bool {
	return raw == nil || json.Unmarshal(raw, field) == nil && *field != nil
}
