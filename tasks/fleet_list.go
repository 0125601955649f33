package tasks

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// FleetList is what somebody says of the fleet: each instance once. The zero list is empty.
type FleetList struct {
	Changes []FleetChange
	Repeats int // rows that say again what another one has said

	places []string       // of the changes: where the list has them
	known  map[string]int // instances: which change is theirs
}

// Place is where the list has an instance, such as "line 3".
func (l *FleetList) Place(id string) string { return l.places[l.known[id]] }

// Has reports whether the list names an instance.
func (l *FleetList) Has(id string) bool {
	_, has := l.known[id]
	return has
}

// Add adds what a place of the list says, unless it has been said.
func (l *FleetList) Add(c FleetChange, place string) error {
	if err := CheckInstanceID(c.ID); err != nil {
		return fmt.Errorf("%s: instance_id %w", place, err)
	}
	n, again := l.known[c.ID]
	if !again {
		if l.known == nil {
			l.known = map[string]int{}
		}
		l.known[c.ID] = len(l.Changes)
		l.Changes, l.places = append(l.Changes, c), append(l.places, place)
		return nil
	}
	if !reflect.DeepEqual(c, l.Changes[n]) {
		return fmt.Errorf("%s: instance %s is in %s already, with another entry", place, c.ID, l.places[n])
	}
	l.Repeats++
	return nil
}

// FleetColumns are those of the fleet as CSV.
var FleetColumns = []string{
	"instance_id", "tenant", "protected", "protected_by", "protected_reason", "protected_since", "protected_until", "driver", "address", "labels", "generation",
}

// ReadCSV adds the rows of a CSV whose first line names its columns. What a row has no cell for, or an empty one, stays as
// it is. Errors name the line.
func (l *FleetList) ReadCSV(raw []byte) error {
	rows := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(raw, []byte("\ufeff")))) // some editors put a byte order mark
	header, err := rows.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("is empty")
	}
	if err != nil {
		return err
	}
	columns, err := CSVColumns(header, FleetColumns)
	if err != nil {
		return fmt.Errorf("line 1: %w; it must name columns of %s, among them instance_id", err, strings.Join(FleetColumns, ", "))
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
			return UnescapeFormulas(cells[n]), true
		})
		if err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
		if err := l.Add(c, place); err != nil {
			return err
		}
	}
}

// fleetRow reads a line of a CSV.
func fleetRow(cell func(column string) (string, bool)) (c FleetChange, err error) {
	c.ID, _ = cell("instance_id")
	var ok bool
	if c.Tenant, ok = cell("tenant"); ok {
		if err := CheckTenant(c.Tenant); err != nil {
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
		if c.ProtectedUntil, err = ParseProtectedUntil(text); err != nil {
			return c, err
		}
	}
	if text, _ := cell("generation"); text != "" {
		if c.Generation, err = strconv.Atoi(text); err != nil || c.Generation < 1 || c.Generation > MaxGeneration {
			return c, BadGeneration(text)
		}
	}
	if text, _ := cell("labels"); text != "" {
		if c.Labels, err = ParseLabels(text); err != nil {
			return c, fmt.Errorf("labels %w", err)
		}
	}
	return c, c.Check()
}

// BadGeneration says that text is no generation.
func BadGeneration(text string) error {
	return fmt.Errorf("generation must be a whole number from 1 to %d, not %.80q", MaxGeneration, text)
}

// ParseProtectedUntil reads the end of a protection.
func ParseProtectedUntil(text string) (*Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, fmt.Errorf("protected_until must be a time such as 2027-03-31T00:00:00Z, not %.80q", text)
	}
	return &Time{Time: t.UTC()}, nil
}

// Check returns a sentence that says what is wrong with what a change says of protection, driver, address and labels, or
// nil. The default driver is not written down: it becomes empty.
func (c FleetChange) Check() error {
	if err := c.checkProtection(); err != nil {
		return err
	}
	if c.Driver != nil && *c.Driver != "" {
		if err := CheckDriver(*c.Driver); err != nil {
			return fmt.Errorf("driver %w", err)
		}
		if *c.Driver == DefaultDriver {
			*c.Driver = ""
		}
	}
	if c.Address != nil {
		if err := CheckAddress(*c.Address); err != nil {
			return fmt.Errorf("address %w", err)
		}
	}
	if err := CheckLabels(c.Labels); err != nil {
		return fmt.Errorf("labels %w", err)
	}
	return nil
}

func (c FleetChange) checkProtection() error {
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
		if err := CheckReason(*c.ProtectedReason); err != nil {
			return fmt.Errorf("protected_reason %w", err)
		}
	}
	if c.ProtectedBy != nil {
		if err := CheckReason(*c.ProtectedBy); err != nil {
			return fmt.Errorf("protected_by %w", err)
		}
	}
	return nil
}

// EntryError says why a change of the fleet is refused for one instance.
type EntryError struct{ ID, Reason string }

func (e *EntryError) Error() string { return "instance " + e.ID + " " + e.Reason }

// FleetFilter selects instances. An empty field selects everything.
type FleetFilter struct {
	Prefix         string // of their IDs
	Tenant, Driver string
	// Labels are those of which an instance must have all.
	Labels    map[string]string
	Protected bool // only protected ones
}

// Check returns what is wrong with a filter, or nil. Errors: *FieldError.
func (f FleetFilter) Check() error {
	if f.Prefix != "" {
		if err := CheckInstanceID(f.Prefix); err != nil {
			return fieldError("id", " %v", err)
		}
	}
	if f.Driver != "" {
		if err := CheckDriver(f.Driver); err != nil {
			return fieldError("driver", " %v", err)
		}
	}
	if f.Tenant != "" {
		if err := CheckTenant(f.Tenant); err != nil {
			return fieldError("tenant", " %v", err)
		}
	}
	return nil
}

// Match reports whether the filter selects an instance.
func (f FleetFilter) Match(in Instance) bool {
	return strings.HasPrefix(in.ID, f.Prefix) && Token{InstanceLabels: f.Labels}.Reaches(in) &&
		(f.Tenant == "" || in.Tenant == f.Tenant) && (f.Driver == "" || in.Device().Driver == f.Driver) && (!f.Protected || in.Protected)
}

// FleetEffect is what an import makes of an instance: one may have several.
type FleetEffect string

// The effects.
const (
	EffectNew         FleetEffect = "new"
	EffectMoved       FleetEffect = "moved to another tenant"
	EffectReaddressed FleetEffect = "another driver or address"
	EffectReassigned  FleetEffect = "another generation"
	EffectRelabelled  FleetEffect = "other labels"
	EffectProtected   FleetEffect = "protection begun"
	EffectUnprotected FleetEffect = "protection ended or made shorter"
	EffectOther       FleetEffect = "protected for another reason, by somebody else, or for longer"
	EffectNone        FleetEffect = "as it is"
)

// FleetEffects are all effects, those first that need a look most.
var FleetEffects = []FleetEffect{
	EffectUnprotected, EffectMoved, EffectReaddressed, EffectReassigned, EffectRelabelled, EffectProtected, EffectOther, EffectNew, EffectNone,
}

// FleetStep is an entry as it is, zero for a new instance, and as it would be.
type FleetStep struct{ Before, After Instance }

// FleetPart are the instances of an import with one effect.
type FleetPart struct {
	Effect FleetEffect
	Count  int
	First  []FleetStep // the first few of them
}

// FleetPlan is what an import would do.
type FleetPlan struct {
	Parts []FleetPart // those with instances, in the order of FleetEffects
	// Seen differs for imports that differ, and once an entry has become another: what was looked at is then not what
	// would be done.
	Seen string
}

// Changes reports whether an instance would become another.
func (p FleetPlan) Changes() bool {
	for _, part := range p.Parts {
		if part.Effect != EffectNone {
			return true
		}
	}
	return false
}
