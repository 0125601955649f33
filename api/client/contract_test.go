package client

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// node is a part of the contract.
type node map[string]any

// contract is the whole, which references start from.
var contract = sync.OnceValue(func() node {
	raw, err := os.ReadFile("../openapi.yaml")
	if err != nil {
		panic(err)
	}
	var root node
	if err := yaml.Unmarshal(raw, &root); err != nil {
		panic(err)
	}
	return root
})

// at follows keys and references; nil if there is no such part.
func (n node) at(keys ...string) node {
	for _, key := range append(keys, "") {
		if ref, ok := n["$ref"].(string); ok {
			n = contract().at(strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
		}
		if key != "" {
			n, _ = n[key].(node)
		}
	}
	return n
}

func TestTheTypesAreThoseOfTheContract(t *testing.T) {
	page := contract().at("paths", "/v1/jobs", "get", "responses", "200", "content", "application/json", "schema", "properties", "data")
	sameFields(t, "data", page, reflect.TypeFor[jobsPage]())
	runs := contract().at("paths", "/v1/runs", "get", "responses", "200", "content", "application/json", "schema", "properties", "data")
	sameFields(t, "runs", runs, reflect.TypeFor[runsPage]())
	sameFields(t, "result", contract().at("components", "schemas", "RunResult"), reflect.TypeFor[RunResult]())
	sameFields(t, "identity", contract().at("components", "schemas", "Identity"), reflect.TypeFor[Identity]())
}

// sameFields fails unless the fields of a type are the properties of its schema, and so
// on for what these have in turn.
func sameFields(t *testing.T, name string, schema node, typ reflect.Type) {
	t.Helper()
	properties := maps.Clone(schema.at("properties"))
	if len(properties) == 0 {
		t.Fatalf("%s: the contract has no properties: %v", name, schema)
	}
	for i := range typ.NumField() {
		field, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
		if field == "-" {
			continue
		}
		property := properties.at(field)
		if property == nil {
			t.Errorf("%s: the client has %s, the contract does not", name, field)
			continue
		}
		delete(properties, field)
		inner := typ.Field(i).Type
		if inner.Kind() == reflect.Slice {
			inner, property = inner.Elem(), property.at("items")
		}
		if inner == reflect.TypeFor[Budget]() { // which is one of two types
			continue
		}
		if want := jsonType(inner); property["type"] != want {
			t.Errorf("%s: %s is of type %s for the client, of type %v in the contract", name, field, want, property["type"])
		}
		if inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() {
			sameFields(t, name+"."+field, property, inner)
		}
	}
	for field := range properties {
		t.Errorf("%s: the contract has %s, the client does not", name, field)
	}
}

func jsonType(typ reflect.Type) string {
	switch {
	case typ == reflect.TypeFor[time.Time](), typ.Kind() == reflect.String:
		return "string"
	case typ.Kind() == reflect.Int:
		return "integer"
	case typ.Kind() == reflect.Float64:
		return "number"
	case typ.Kind() == reflect.Struct, typ.Kind() == reflect.Map:
		return "object"
	}
	return typ.String()
}

// written answers each request with an example of the contract, and notes what of a
// request the contract does not have.
type written struct {
	mu     sync.Mutex
	faults []string
	fields node // of the bodies
}

func (s *written) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fault := func(format string, args ...any) {
		s.faults = append(s.faults, r.Method+" "+r.URL.Path+": "+fmt.Sprintf(format, args...))
	}
	template := strings.Replace(r.URL.Path, "/"+exampleJob, "/{job_id}", 1)
	if strings.HasPrefix(template, runsPath+"/") {
		template = strings.Replace(template, "{job_id}", "{run_id}", 1)
	}
	op := contract().at("paths", template, strings.ToLower(r.Method))
	if op == nil {
		fault("not in the contract")
		return
	}
	var names []string
	parameters, _ := op["parameters"].([]any)
	for _, p := range parameters {
		parameter, _ := p.(node)
		name, _ := parameter.at()["name"].(string)
		names = append(names, strings.ToLower(name))
	}
	for name := range r.URL.Query() {
		if !slices.Contains(names, name) {
			fault("no parameter %s", name)
		}
	}
	usual := []string{"accept", "accept-encoding", "cache-control", "content-length", "content-type", "user-agent", "x-auth-token"}
	for name := range r.Header {
		if name = strings.ToLower(name); !slices.Contains(append(usual, names...), name) {
			fault("no header %s", name)
		}
	}
	body, _ := io.ReadAll(r.Body)
	var fields node
	_ = json.Unmarshal(body, &fields)
	maps.Copy(s.fields, fields)
	for name := range fields {
		if op.at("requestBody", "content", "application/json", "schema", "properties", name) == nil {
			fault("no field %s", name)
		}
	}

	example := "record"
	switch {
	case fields["dry_run"] == true:
		example = "tryOut"
	case r.URL.Path == "/v1/instances/batch-reset":
		example = "accepted"
	case r.URL.Query().Has("ids"):
		example = "named"
	case r.URL.Path == "/v1/jobs", r.URL.Path == runsPath && r.Method == http.MethodGet:
		example = "page"
	case r.URL.Path == "/v1/whoami":
		example = "identity"
	}
	content := op.at("responses", "200", "content")
	if stream, ok := content.at("text/event-stream")["example"].(string); ok {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, stream)
		return
	}
	if compact, ok := content.at(typeJOSE)["example"].(string); ok {
		w.Header().Set("Content-Type", typeJOSE)
		_, _ = io.WriteString(w, compact)
		return
	}
	if rows, ok := content.at(typeLines)["example"].(string); ok && (fields["dry_run"] == true || r.Method == http.MethodGet) {
		w.Header().Set("Content-Type", typeLines)
		_, _ = io.WriteString(w, rows)
		return
	}
	answer := content.at("application/json", "examples", example, "value")
	if answer == nil { // it has one example, without a name
		answer = content.at("application/json", "example")
	}
	if answer == nil {
		fault("no example %q of its answer", example)
	}
	encoded, err := json.Marshal(answer)
	if err != nil {
		fault("%v", err)
	}
	_, _ = w.Write(encoded)
}

const exampleJob = "5f9c1f0f3a5e4b0d8c7a6b5c4d3e2f10"

// TestEveryMethodKeepsToTheContract calls every method that the client has, with every
// argument set.
func TestEveryMethodKeepsToTheContract(t *testing.T) {
	service := &written{fields: node{}}
	server := httptest.NewServer(service)
	defer server.Close()
	c, err := New(server.URL, token)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	called := append(callEvery(t, c), callEvery(t, c.Runs())...)
	if !slices.Contains(called, "*client.Client.Submit") || !slices.Contains(called, "*client.Client.Wait") || !slices.Contains(called, "client.Runs.Wait") {
		t.Errorf("called %v", called)
	}
	for _, fault := range service.faults {
		t.Error(fault)
	}
	for _, schema := range []string{"Batch", "RunRequest"} {
		for _, field := range slices.Sorted(maps.Keys(contract().at("components", "schemas", schema, "properties"))) {
			if _, sent := service.fields[field]; !sent {
				t.Errorf("the client cannot send %s", field)
			}
		}
	}
}

// callEvery calls the methods that something has, and returns which.
func callEvery(t *testing.T, of any) (called []string) {
	t.Helper()
	for method, f := range reflect.ValueOf(of).Methods() {
		if method.Name == "Close" {
			continue
		}
		called = append(called, fmt.Sprintf("%T.%s", of, method.Name))
		var args []reflect.Value
		for i := range f.Type().NumIn() {
			arg := reflect.New(f.Type().In(i)).Elem()
			if i == 0 {
				arg.Set(reflect.ValueOf(t.Context()))
			} else {
				fill(t, arg)
			}
			args = append(args, arg)
		}
		call := f.Call
		if f.Type().IsVariadic() {
			call = f.CallSlice
		}
		for _, result := range call(args) {
			if result.Kind() == reflect.Func { // an iterator
				result.Call([]reflect.Value{reflect.MakeFunc(result.Type().In(0), func(yielded []reflect.Value) []reflect.Value {
					noError(t, method.Name, yielded[len(yielded)-1])
					return []reflect.Value{reflect.ValueOf(true)}
				})})
			}
			noError(t, method.Name, result)
		}
	}
	return called
}

func noError(t *testing.T, method string, result reflect.Value) {
	t.Helper()
	if err, is := reflect.TypeAssert[error](result); is && err != nil {
		t.Errorf("%s: %v", method, err)
	}
}

// fill gives an argument a value that is not zero.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Now()))
	case v.Type() == reflect.TypeFor[io.Writer]():
		v.Set(reflect.ValueOf(io.Discard))
	case v.Kind() == reflect.String:
		v.SetString(exampleJob)
	case v.Kind() == reflect.Int:
		v.SetInt(1)
	case v.Kind() == reflect.Float64:
		v.SetFloat(1)
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0))
	case v.Kind() == reflect.Map:
		value := reflect.New(v.Type().Elem()).Elem()
		fill(t, value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("site"), value)
	case v.Kind() == reflect.Struct:
		for _, field := range v.Fields() {
			fill(t, field)
		}
	case v.Kind() == reflect.Func:
		v.Set(reflect.MakeFunc(v.Type(), func([]reflect.Value) []reflect.Value { return nil }))
	default:
		t.Fatalf("no value for a %s", v.Type())
	}
}

func TestTheAnswersToABatchAreReadAsTheContractHasThem(t *testing.T) {
	server := httptest.NewServer(&written{fields: node{}})
	defer server.Close()
	c, err := New(server.URL, token)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := c.Submit(t.Context(), Batch{InstanceIDs: []string{"a44uhlf7", "efjy72gs"}})
	if want := (Accepted{exampleJob, []AcceptedItem{{exampleJob + "-0", "a44uhlf7"}, {exampleJob + "-1", "efjy72gs"}}}); err != nil || !reflect.DeepEqual(accepted, want) {
		t.Errorf("accepted %+v, %v, want %+v", accepted, err, want)
	}
	verdicts, err := c.DryRun(t.Context(), Batch{InstanceIDs: []string{"a44uhlf7", "efjy72gs"}})
	if want := []Verdict{{"a44uhlf7", "would_reset"}, {"efjy72gs", "protected"}}; err != nil || !reflect.DeepEqual(verdicts, want) {
		t.Errorf("verdicts %+v, %v, want %+v", verdicts, err, want)
	}
}
