package tasks

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// ParseLabels reads labels that people write: name=value;name=value, or a JSON object, which is what lists are printed
// with. Its error is a sentence about them.
func ParseLabels(text string) (map[string]string, error) {
	if strings.HasPrefix(text, "{") {
		labels, err := labelsOfJSON(text)
		if err != nil {
			return nil, fmt.Errorf("must be a JSON object of strings, not %.80q", text)
		}
		return labels, nil
	}
	labels := map[string]string{}
	for part := range strings.SplitSeq(text, ";") {
		name, value, ok := strings.Cut(part, "=")
		if _, twice := labels[name]; !ok || twice {
			return nil, fmt.Errorf("must be like name=value;other=value, each name once, not %.80q", text)
		}
		labels[name] = value
	}
	return labels, nil
}

// LabelText is the inverse of ParseLabels: name=value;name=value, or a JSON object of labels of which that would say something
// else.
func LabelText(labels map[string]string) string {
	text := plainLabels(labels)
	if again, err := ParseLabels(text); len(labels) == 0 || err == nil && maps.Equal(again, labels) {
		return text
	}
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(labels); err != nil {
		panic(err) // texts always encode
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func plainLabels(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, name+"="+labels[name])
	}
	return strings.Join(parts, ";")
}

var errNoLabels = errors.New("no object of strings")

// labelsOfJSON reads an object. Package encoding/json would take the last of two members with one name.
func labelsOfJSON(text string) (map[string]string, error) {
	labels := map[string]string{}
	if !utf8.ValidString(text) {
		return nil, errNoLabels
	}
	d := json.NewDecoder(strings.NewReader(text))
	if _, err := d.Token(); err != nil { // the brace that it begins with
		return nil, err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, err
		}
		value, err := d.Token()
		if err != nil {
			return nil, err
		}
		key, _ := name.(string) // names are
		what, is := value.(string)
		if _, twice := labels[key]; twice || !is {
			return nil, errNoLabels
		}
		labels[key] = what
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errNoLabels
	}
	return labels, nil
}
