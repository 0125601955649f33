package operate

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"batchreset/api"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// fleetChunk is how many instances one call to Redis is about.
const fleetChunk = 500

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
	default:
		return nil, errors.New("the name must end in .csv or .json")
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

// checkTenants refuses the file if it has new instances and does not say whose they are.
func (f *fleetFile) checkTenants(ctx context.Context, db *redisdb.DB) error {
	var without []string
	for _, c := range f.changes {
		if c.Tenant == "" {
			without = append(without, c.ID)
		}
	}
	for chunk := range slices.Chunk(without, fleetChunk) {
		fleet, err := db.Fleet.Registered(ctx, chunk)
		if err != nil {
			return err
		}
		for _, id := range chunk {
			if _, registered := fleet[id]; !registered {
				return terminal.WithCode(terminal.ExitUsage, fmt.Errorf("%s: tenant is missing, and instance %s is not registered yet", f.places[f.known[id]], id))
			}
		}
	}
	return nil
}

var fleetColumns = []string{"instance_id", "tenant", "protected", "driver", "address", "labels"}

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
		return fmt.Errorf("line 1: %w; it must name the columns instance_id, tenant, protected, driver, address and labels, of which only the first must be there", err)
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
			return terminal.UnescapeFormulas(cells[n]), true
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
	if text, _ := cell("driver"); text != "" {
		c.Driver = &text
	}
	if text, _ := cell("address"); text != "" {
		c.Address = &text
	}
	if text, _ := cell("labels"); text != "" {
		if c.Labels, err = parseLabels(text); err != nil {
			return c, fmt.Errorf("labels %w", err)
		}
	}
	return c, checkWhere(c)
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

// parseLabels reads name=value;name=value, or JSON, which is what 'fleet list --output csv' writes.
func parseLabels(text string) (map[string]string, error) {
	labels := map[string]string{}
	if strings.HasPrefix(text, "{") {
		if err := json.Unmarshal([]byte(text), &labels); err != nil {
			return nil, fmt.Errorf("must be a JSON object of strings, not %.80q", text)
		}
		return labels, nil
	}
	for part := range strings.SplitSeq(text, ";") {
		name, value, ok := strings.Cut(part, "=")
		if _, twice := labels[name]; !ok || twice {
			return nil, fmt.Errorf("must be like name=value;other=value, each name once, not %.80q", text)
		}
		labels[name] = value
	}
	return labels, nil
}

func (f *fleetFile) readJSON(raw []byte) error {
	var entries []*struct {
		ID        jsontext.Value `json:"instance_id"`
		Tenant    jsontext.Value `json:"tenant"`
		Protected jsontext.Value `json:"protected"`
		Driver    jsontext.Value `json:"driver"`
		Address   jsontext.Value `json:"address"`
		Labels    jsontext.Value `json:"labels"`
	}
	if err := api.ReadJSON(raw, &entries); err != nil {
		return err
	}
	for n, e := range entries {
		place := fmt.Sprintf("entry %d", n)
		if e == nil {
			return fmt.Errorf("%s must be an object, not null", place)
		}
		var id, tenant *string
		c := tasks.FleetChange{}
		if !given(e.ID, &id) || id == nil {
			return fmt.Errorf("%s: instance_id must be a string", place)
		}
		c.ID = *id
		if !given(e.Tenant, &tenant) {
			return fmt.Errorf("%s: tenant must be a string", place)
		}
		if tenant != nil {
			c.Tenant = *tenant
			if err := tasks.CheckTenant(c.Tenant); err != nil {
				return fmt.Errorf("%s: tenant %w", place, err)
			}
		}
		if !given(e.Protected, &c.Protected) {
			return fmt.Errorf("%s: protected must be true or false", place)
		}
		if !given(e.Driver, &c.Driver) {
			return fmt.Errorf("%s: driver must be a string", place)
		}
		if !given(e.Address, &c.Address) {
			return fmt.Errorf("%s: address must be a string", place)
		}
		if e.Labels != nil && (json.Unmarshal(e.Labels, &c.Labels) != nil || c.Labels == nil) {
			return fmt.Errorf("%s: labels must be an object of strings", place)
		}
		if err := checkWhere(c); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
		if err := f.add(c, place); err != nil {
			return err
		}
	}
	return nil
}

// given decodes a field, if it is there, and reports whether its type is right: null is no
// value.
func given[T any](raw jsontext.Value, field **T) bool {
	return raw == nil || json.Unmarshal(raw, field) == nil && *field != nil
}
