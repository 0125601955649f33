package api

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// What is asked is what is done: a request that can destroy data is refused if a name in it is
// unknown, repeated, or spelled another way; nothing is skipped. encoding/json ignores the case of
// a name and takes the last of several, so this uses the rules of encoding/json/v2.

// ReadJSON decodes JSON text into v. At any depth a name must be one that v's type has, in
// the same spelling, and there once; text must be UTF-8. The error is a sentence about the
// text that names the field.
func ReadJSON(text []byte, v any) error {
	if len(text) == 0 {
		return errors.New("is not JSON: it is empty")
	}
	if jsontext.Value(text).Kind() == 'n' { // which would leave v as it is
		return fmt.Errorf("must be %s", kindOf(reflect.TypeOf(v).Elem()))
	}
	err := json.Unmarshal(text, v, json.RejectUnknownMembers(true))
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		path := semantic.JSONPointer
		if errors.Is(err, json.ErrUnknownName) {
			name := path.LastToken()
			return fmt.Errorf("has the unknown field %.80q%s%s", name, within(path.Parent()), tasks.DidYouMean(name, namesOf(semantic.GoType)))
		}
		if path == "" {
			return fmt.Errorf("must be %s", kindOf(reflect.TypeOf(v).Elem()))
		}
		return fmt.Errorf("has a value of the wrong type%s", within(path))
	}
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return syntaxFault(syntactic)
	}
	return err
}

// syntaxFault is a sentence about text that is not JSON, or has a name twice.
func syntaxFault(err *jsontext.SyntacticError) error {
	path := err.JSONPointer
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return fmt.Errorf("has the field %.80q twice%s", path.LastToken(), within(path.Parent()))
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("is not JSON: it ends too early")
	}
	return fmt.Errorf("is not JSON: %w%s (at byte %d)", err.Err, within(path), err.ByteOffset)
}

func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "a JSON object"
	case reflect.Slice:
		return "a JSON array"
	}
	return "a JSON " + t.Kind().String()
}

// within says where in a text something is: " in labels", " in [3]".
func within(path jsontext.Pointer) string {
	var b strings.Builder
	for token := range path.Tokens() {
		if strings.Trim(token, "0123456789") == "" {
			fmt.Fprintf(&b, "[%s]", token)
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		fmt.Fprintf(&b, "%.80s", token)
	}
	if b.Len() == 0 {
		return ""
	}
	return " in " + fmt.Sprintf("%.200s", b.String())
}

// namesOf are the names that the JSON of a struct can have.
func namesOf(t reflect.Type) (names []string) {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	for field := range t.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// takes says which parameters and which body a route takes.
type takes struct {
	query parameters
	body  bool
}

// nothing is for the many routes that take neither parameters nor a body.
var nothing takes

// check refuses a request with anything else. {} is as good as no body.
func (t takes) check(r *http.Request) error {
	if err := t.query.check(r.URL.RawQuery); err != nil || t.body {
		return err
	}
	return decodeOptional(r.Body, &struct{}{})
}

// parameters are those that a query can have, with true if more than one may be given.
type parameters map[string]bool

// check refuses a query with any other.
func (known parameters) check(raw string) error {
	query, err := url.ParseQuery(raw)
	if err != nil { // Go would leave out the rest of the query
		return tasks.Errorf(tasks.BadRequest, "the query cannot be read: %.200s", err)
	}
	for _, name := range slices.Sorted(maps.Keys(query)) {
		repeated, is := known[name]
		switch {
		case !is && len(known) == 0:
			return tasks.Errorf(tasks.BadRequest, "unknown query parameter %.80q; there are none here", name)
		case !is:
			return tasks.Errorf(tasks.BadRequest, "unknown query parameter %.80q%s", name, tasks.DidYouMean(name, slices.Sorted(maps.Keys(known))))
		case len(query[name]) > 1 && !repeated:
			return tasks.Errorf(tasks.BadRequest, "the query parameter %s is given %d times", name, len(query[name]))
		}
	}
	return nil
}

// plain is for routes that no token guards.
func plain(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := nothing.query.check(c.Request().URL.RawQuery); err != nil {
			return err
		}
		return next(c)
	}
}
