package serve

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// plainYAML is the first sentence of an error of the YAML library, without what only its users know.
// driver is what could not be read, or nil if that is the whole file.
func plainYAML(driver *yaml.Node, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if e, ok := errors.AsType[*yaml.TypeError](err); ok {
		text = e.Errors[0]
	}
	if parts := mistyped.FindStringSubmatch(text); parts != nil {
		return wrongType(driver, parts[1], parts[2], parts[3])
	}
	text, _, _ = strings.Cut(text, " in type ")
	return errors.New(strings.ReplaceAll(text, "!!", ""))
}

var mistyped = regexp.MustCompile("^line ([0-9]+): cannot unmarshal !!([a-z]+).* into (.+)$")

// What the YAML library and Go call what people write.
var (
	kindNames = map[string]string{"seq": "a list", "map": "keys and values", "bool": "true or false"}
	typeNames = map[string]string{
		"string": "text", "bool": "true or false", "int": "a whole number", "int64": "a whole number", "float64": "a number",
		"time.Duration": "a time such as 30s", "[]string": "a list", "[]int": "a list", "map[string]string": "keys and values",
	}
)

// wrongType is a value of another type than its key has. It is not quoted: it may be a secret in the
// wrong place, and what is no list of drivers may be any file.
func wrongType(driver *yaml.Node, line, kind, want string) error {
	if driver == nil {
		if want == "[]yaml.Node" {
			return fmt.Errorf("line %s: drivers must be a list, with a dash before each driver", line)
		}
		return fmt.Errorf("line %s: must be a list of keys and values with the key drivers", line)
	}
	text := fmt.Sprintf("line %s: %s must be %s", line, keyAt(driver, line), cmp.Or(typeNames[want], want))
	if kind := kindNames[kind]; kind != "" {
		text += ", not " + kind
	}
	return errors.New(text)
}

// keyAt is the key whose value is on a line, if that is certain.
func keyAt(driver *yaml.Node, text string) (key string) {
	line, err := strconv.Atoi(text)
	last := 0
	for i := 0; i < len(driver.Content) && err == nil; i += 2 {
		switch next := driver.Content[i]; {
		case next.Line > line:
		case next.Line == last: // both are there
			key = ""
		default:
			last, key = next.Line, next.Value
		}
	}
	return cmp.Or(key, "a value")
}

// tabbed says so if the YAML library has stumbled over a tab. It names the line before.
func tabbed(raw []byte, err error) error {
	if text := err.Error(); !strings.Contains(text, "tab character") && !strings.Contains(text, "cannot start any token") {
		return err
	}
	number := 0
	for line := range bytes.Lines(raw) {
		number++
		if bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte("\t")) {
			return fmt.Errorf("line %d begins with a tab: YAML is indented with spaces", number)
		}
	}
	return err
}
