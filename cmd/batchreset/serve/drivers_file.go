package serve

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"batchreset/tasks"
	"batchreset/worker"
)

// driverEntry is a driver of a drivers file.
type driverEntry struct {
	Name           string        `yaml:"name"`
	Type           string        `yaml:"type"`
	Concurrency    int           `yaml:"concurrency"`
	Rate           float64       `yaml:"rate"`
	AttemptTimeout time.Duration `yaml:"attempt_timeout"`

	driver worker.Driver
}

// close gives up what the driver holds. No attempt may be under way.
func (e driverEntry) close() {
	if c, ok := e.driver.(interface{ Close() }); ok {
		c.Close()
	}
}

// upstream are the bounds of the driver.
func (e driverEntry) upstream() worker.UpstreamConfig {
	return worker.UpstreamConfig{Rate: e.Rate, Concurrency: e.Concurrency}
}

// driverKind makes a driver of the settings that a file has for it.
type driverKind struct {
	keys  []string
	whole []string // those of keys that take whole numbers
	build func(settings *yaml.Node, log *slog.Logger) (worker.Driver, error)
}

// kindOf is the kind whose settings are a C. Errors of build begin with the key of the setting.
func kindOf[C any](build func(C, *slog.Logger) (worker.Driver, error)) driverKind {
	keys, whole := keysOf(reflect.TypeFor[C]())
	return driverKind{keys, whole, func(settings *yaml.Node, log *slog.Logger) (worker.Driver, error) {
		var c C
		if err := settings.Decode(&c); err != nil {
			return nil, err
		}
		return build(c, log)
	}}
}

// keysOf are the keys of a struct's fields, and those of them that take whole numbers.
func keysOf(t reflect.Type) (keys, whole []string) {
	for field := range t.Fields() {
		key, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if key == "" {
			continue
		}
		keys = append(keys, key)
		value := field.Type
		if value.Kind() == reflect.Slice {
			value = value.Elem()
		}
		if value.Kind() == reflect.Int || value.Kind() == reflect.Int64 && value != reflect.TypeFor[time.Duration]() {
			whole = append(whole, key)
		}
	}
	return keys, whole
}

var commonKeys, commonWhole = keysOf(reflect.TypeFor[driverEntry]())

// readDrivers reads a file like
//
//	drivers:
//	  - name: default
//	    type: http
//	    url: https://phones.example/{instance_id}/reset
//
// Errors name the line. The drivers log what happens later; those that have a Close must be closed.
func readDrivers(path string, log *slog.Logger) ([]driverEntry, error) {
	raw, err := os.ReadFile(path)
	if pathError, ok := errors.AsType[*os.PathError](err); ok {
		return nil, pathError.Err // the path is said already
	} else if err != nil {
		return nil, err
	}
	list, err := driverList(raw)
	if err != nil {
		return nil, err
	}
	var entries []driverEntry
	for _, node := range list {
		e, err := readDriver(node, log)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(entries, func(other driverEntry) bool { return other.Name == e.Name }) {
			return nil, atKey(node, "name", fmt.Errorf("name %q is there twice", e.Name))
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// driverList finds the list of drivers in a file.
func driverList(raw []byte) ([]*yaml.Node, error) {
	var file struct {
		Drivers []yaml.Node `yaml:"drivers"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(raw))
	decoder.KnownFields(true)
	if err := decoder.Decode(&file); errors.Is(err, io.EOF) {
		return nil, errors.New("is empty")
	} else if err != nil {
		return nil, plainYAML(nil, tabbed(raw, err))
	}
	if decoder.Decode(new(yaml.Node)) == nil {
		return nil, errors.New("has more than one document")
	}
	if len(file.Drivers) == 0 {
		return nil, errors.New("lists no driver under the key drivers")
	}
	list := make([]*yaml.Node, len(file.Drivers))
	for i := range file.Drivers {
		list[i] = &file.Drivers[i]
	}
	return list, nil
}

func readDriver(node *yaml.Node, log *slog.Logger) (e driverEntry, err error) {
	if node.Kind != yaml.MappingNode {
		return e, fmt.Errorf("line %d: a driver must be a list of keys and values", node.Line)
	}
	if err := checkWhole(node, commonWhole); err != nil {
		return e, err
	}
	if err := node.Decode(&e); err != nil {
		return e, plainYAML(node, err)
	}
	kind, known := driverKinds[e.Type]
	switch {
	case e.Type == "":
		return e, fmt.Errorf("line %d: type is missing: %s", node.Line, strings.Join(driverTypes(), ", "))
	case !known:
		return e, atKey(node, "type", fmt.Errorf("type %q does not exist: %s%s", e.Type, strings.Join(driverTypes(), ", "), tasks.DidYouMean(e.Type, driverTypes())))
	}
	if err := checkKeys(node, kind); err != nil {
		return e, err
	}
	if err := checkWhole(node, kind.whole); err != nil {
		return e, err
	}
	if err := e.check(); err != nil {
		return e, atKey(node, firstWord(err), err)
	}
	if e.driver, err = kind.build(node, log); err != nil {
		if _, odd := errors.AsType[*yaml.TypeError](err); odd {
			return e, plainYAML(node, err)
		}
		return e, atKey(node, firstWord(err), err)
	}
	return e, nil
}

// check checks what every driver has. Errors begin with the key.
func (e driverEntry) check() error {
	if e.Name == "" {
		return errors.New("name is missing")
	}
	if err := tasks.CheckDriver(e.Name); err != nil {
		return fmt.Errorf("name %w", err)
	}
	switch {
	case e.Concurrency < 0:
		return errors.New("concurrency must not be negative; 0 is no bound")
	case e.upstream().Check() != nil:
		return fmt.Errorf("rate must be a number of calls per second, or 0 for no bound, not %v", e.Rate)
	case e.AttemptTimeout != 0 && e.AttemptTimeout < time.Second:
		return fmt.Errorf("attempt_timeout must be at least 1s, not %s", e.AttemptTimeout)
	}
	return nil
}

// checkKeys refuses keys that a driver of this kind does not have.
func checkKeys(node *yaml.Node, kind driverKind) error {
	known := slices.Concat(commonKeys, kind.keys)
	for i := 0; i < len(node.Content); i += 2 {
		if key := node.Content[i]; !slices.Contains(known, key.Value) {
			return fmt.Errorf("line %d: unknown key %q%s", key.Line, key.Value, tasks.DidYouMean(key.Value, known))
		}
	}
	return nil
}

// checkWhole refuses fractions where whole numbers are meant: YAML would cut them off.
func checkWhole(node *yaml.Node, whole []string) error {
	for i := 0; i < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		for _, n := range append([]*yaml.Node{value}, value.Content...) {
			if n.Kind == yaml.AliasNode {
				n = n.Alias
			}
			if n.Tag == "!!float" && slices.Contains(whole, key.Value) {
				return fmt.Errorf("line %d: %s must be a whole number, not %s", key.Line, key.Value, n.Value)
			}
		}
	}
	return nil
}

// atKey puts the line of a key in front of an error, or that of the whole driver.
func atKey(node *yaml.Node, key string, err error) error {
	line := node.Line
	for i := 0; i < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			line = node.Content[i].Line
		}
	}
	return fmt.Errorf("line %d: %w", line, err)
}

func firstWord(err error) string {
	word, _, _ := strings.Cut(err.Error(), " ")
	return strings.TrimSuffix(word, ":")
}
