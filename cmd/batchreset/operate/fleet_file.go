package operate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"batchreset/api"
	"batchreset/tasks"
)

// fleetFile is what a file says of the fleet.
type fleetFile struct{ tasks.FleetList }

func (f *fleetFile) readCSV(raw []byte) error { return f.ReadCSV(raw) }

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
	f := &fleetFile{}
	if err := read(f, bytes.TrimPrefix(raw, []byte("\ufeff"))); err != nil { // some editors put a byte order mark
		return nil, err
	}
	if len(f.Changes) == 0 {
		return nil, errors.New("lists no instance")
	}
	return f, nil
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
	return f.Add(c, place)
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
		if c.ProtectedUntil, err = tasks.ParseProtectedUntil(*until); err != nil {
			return c, err
		}
	}
	if e.Labels != nil && (json.Unmarshal(e.Labels, &c.Labels) != nil || c.Labels == nil) {
		return c, errors.New("labels must be an object of strings")
	}
	if !given(e.Generation, &generation) || generation != nil && (*generation < 1 || *generation > tasks.MaxGeneration) {
		return c, tasks.BadGeneration(string(e.Generation))
	}
	if generation != nil {
		c.Generation = *generation
	}
	return c, c.Check()
}

// given decodes a field, if it is there, and reports whether its type is right: null is no
// value.
func given[T any](raw jsontext.Value, field **T) bool {
	return raw == nil || json.Unmarshal(raw, field) == nil && *field != nil
}
