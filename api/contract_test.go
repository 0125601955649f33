package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/goleak"
	"go.yaml.in/yaml/v3"

	"batchreset/tasks"
)

// contract is openapi.yaml, and what of it the tests of this package have seen.
//
// libopenapi-validator could find the operation and the schema of an answer for us, with 13
// more modules. It does not know which error codes an answer may have, nor what no test has
// met, which is most of this file.
type contract struct {
	paths    map[string]map[string]operation // by path and method
	codes    []string                        // of errors
	compiler *jsonschema.Compiler

	mu      sync.Mutex
	schemas map[string]*jsonschema.Schema // by pointer
	seen    map[string]bool
}

type operation struct {
	Security  *[]any              `yaml:"security"` // nil: a token; empty: for everybody
	Responses map[string]response `yaml:"responses"`
}

// guarded reports whether an operation asks for a token, or for something instead.
func (o operation) guarded() bool { return o.Security == nil || len(*o.Security) > 0 }

type response struct {
	Ref     string `yaml:"$ref"`
	Content map[string]struct {
		Example  any
		Examples map[string]struct{ Value any }
	} `yaml:"content"`

	codes []string // of errors: those that its examples have
}

// written is the contract of this package's tests.
var written = sync.OnceValues(readContract)

func readContract() (*contract, error) {
	raw, err := os.ReadFile("openapi.yaml")
	if err != nil {
		return nil, err
	}
	var document any
	if err := yaml.Unmarshal(raw, &document); err != nil {
		return nil, err
	}
	var read struct {
		Paths      map[string]map[string]operation
		Components struct {
			Responses map[string]response
			Schemas   map[string]struct {
				Properties map[string]struct{ Enum []string }
			}
		}
	}
	if err := yaml.Unmarshal(raw, &read); err != nil {
		return nil, err
	}
	for _, methods := range read.Paths {
		for _, op := range methods {
			for status, r := range op.Responses {
				if name, shared := strings.CutPrefix(r.Ref, "#/components/responses/"); shared {
					r.Content = read.Components.Responses[name].Content
				}
				r.codes = codes(r)
				op.Responses[status] = r
			}
		}
	}
	c := &contract{
		paths: read.Paths, codes: read.Components.Schemas["Error"].Properties["error_code"].Enum,
		compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}, seen: map[string]bool{},
	}
	c.compiler.DefaultDraft(jsonschema.Draft2020)
	c.compiler.AssertFormat()
	// jsonschema wants what encoding/json makes of a document.
	asJSON, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	plain, err := jsonschema.UnmarshalJSON(strings.NewReader(string(asJSON)))
	if err != nil {
		return nil, err
	}
	return c, c.compiler.AddResource("openapi.json", plain)
}

func codes(r response) []string {
	var all []string
	add := func(example any) {
		object, _ := example.(map[string]any)
		if code, has := object["error_code"].(string); has {
			all = append(all, code)
		}
	}
	for _, content := range r.Content {
		add(content.Example)
		for _, e := range content.Examples {
			add(e.Value)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// operationOf finds the operation of a request. Templates have no two that fit a path
// but for those without a variable, which come first.
func (c *contract) operationOf(method, path string) (template string, op operation, ok bool) {
	path, _, _ = strings.Cut(path, "?")
	templates := slices.SortedFunc(maps.Keys(c.paths), func(a, b string) int {
		return strings.Count(a, "{") - strings.Count(b, "{")
	})
	for _, template := range templates {
		if op, known := c.paths[template][strings.ToLower(method)]; known && fits(template, path) {
			return template, op, true
		}
	}
	return "", operation{}, false
}

func fits(template, path string) bool {
	return slices.EqualFunc(strings.Split(template, "/"), strings.Split(path, "/"), func(want, got string) bool {
		return want == got || strings.HasPrefix(want, "{")
	})
}

// check returns an error unless the answer to a request is one that the contract has.
func (c *contract) check(method, path string, status int, header http.Header, body []byte) error {
	if header.Get("x-request-id") == "" {
		return fmt.Errorf("no x-request-id")
	}
	if method == http.MethodHead { // the headers of GET
		method, body = http.MethodGet, nil
	}
	template, op, known := c.operationOf(method, path)
	if err := checkCaching(header, known && op.guarded()); err != nil {
		return err
	}
	if !known { // for which there is but one answer
		if status == http.StatusMethodNotAllowed {
			c.sawOtherMethod(path)
		}
		return c.validate("/components/schemas/Error", body)
	}
	name := strconv.Itoa(status)
	response, documented := op.Responses[name]
	if !documented {
		return fmt.Errorf("%s %s has no response %d", method, template, status)
	}
	where := method + " " + template + " " + name
	if status < http.StatusBadRequest {
		c.saw(where)
	}
	if len(body) == 0 {
		return nil
	}
	if status >= http.StatusBadRequest {
		var e struct {
			Code string `json:"error_code"`
		}
		if err := json.Unmarshal(body, &e); err != nil {
			return err
		}
		if !slices.Contains(response.codes, e.Code) {
			return fmt.Errorf("%s has no example with %q, only with %v", where, e.Code, response.codes)
		}
		c.saw(where + " " + e.Code)
	}
	media, _, _ := strings.Cut(header.Get("Content-Type"), ";")
	if _, documented := response.Content[media]; !documented {
		return fmt.Errorf("%s has no content of type %s", where, media)
	}
	if !strings.HasSuffix(media, "json") {
		return nil
	}
	pointer := "/paths/" + escape(template) + "/" + strings.ToLower(method) + "/responses/" + name
	if response.Ref != "" {
		pointer = strings.TrimPrefix(response.Ref, "#")
	}
	return c.validate(pointer+"/content/"+escape(media)+"/schema", body)
}

// checkCaching: what a token is needed for is for its holder alone, an error is for now, and
// the rest is asked for again each time.
func checkCaching(header http.Header, guarded bool) error {
	caching, vary := header.Get("Cache-Control"), strings.Join(header.Values("Vary"), ", ")
	switch {
	case guarded && (caching != "no-store" || !strings.Contains(vary, "X-Auth-Token, Authorization")):
	case !guarded && caching != "no-store" && (caching != "no-cache" || header.Get("ETag") == ""):
	default:
		return nil
	}
	return fmt.Errorf("Cache-Control: %s, Vary: %s", caching, vary)
}

// sawOtherMethod notes the answer to a method that a path does not have: it is the 405
// of those that it has.
func (c *contract) sawOtherMethod(path string) {
	for template, methods := range c.paths {
		for method := range methods {
			if fits(template, path) {
				c.saw(strings.ToUpper(method) + " " + template + " 405 " + string(tasks.NoRoute))
			}
		}
	}
}

func (c *contract) saw(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[what] = true
}

func escape(part string) string { return strings.NewReplacer("~", "~0", "/", "~1").Replace(part) }

// validate checks a JSON document against the schema at a pointer.
func (c *contract) validate(pointer string, body []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	schema := c.schemas[pointer]
	if schema == nil {
		var err error
		if schema, err = c.compiler.Compile("openapi.json#" + strings.NewReplacer("{", "%7B", "}", "%7D").Replace(pointer)); err != nil {
			return err
		}
		c.schemas[pointer] = schema
	}
	document, err := jsonschema.UnmarshalJSON(strings.NewReader(string(body)))
	if err != nil {
		return err
	}
	if object, ok := document.(map[string]any); ok {
		if code, ok := object["error_code"].(string); ok {
			c.seen[code] = true
		}
	}
	return schema.Validate(document)
}

// TestMain fails when the contract has an operation or an error that no test has met.
func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	c, err := written()
	if err != nil {
		fmt.Fprintln(os.Stderr, "contract:", err)
		os.Exit(1)
	}
	whole := true
	for _, arg := range os.Args { // a single test does not see everything
		whole = whole && !strings.HasPrefix(arg, "-test.run=") && !strings.HasPrefix(arg, "-test.fuzz=") && !strings.HasPrefix(arg, "-test.skip=")
	}
	if code == 0 && whole {
		for _, missing := range c.unseen() {
			fmt.Fprintln(os.Stderr, "contract: no test has met", missing)
			code = 1
		}
	}
	os.Exit(code)
}

// unseen are the documented successes, and error codes of each operation, that no
// answer was.
func (c *contract) unseen() []string {
	var all []string
	for path, methods := range c.paths {
		for method, op := range methods {
			for status, response := range op.Responses {
				where := strings.ToUpper(method) + " " + path + " " + status
				switch {
				case status < "4":
					all = append(all, where)
				case len(response.codes) == 0:
					all = append(all, where+": it has no example with an error_code")
				}
				for _, code := range response.codes {
					if status >= "4" {
						all = append(all, where+" "+code)
					}
				}
			}
		}
	}
	all = append(all, c.codes...)
	slices.Sort(all)
	return slices.DeleteFunc(all, func(what string) bool { return c.seen[what] })
}

func TestTheContractIsServed(t *testing.T) {
	s := newService(t, testConfig)
	r := s.raw(t, http.MethodGet, "/openapi.yaml", "", nil)
	want, err := os.ReadFile("openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if r.Code != http.StatusOK || r.Header().Get("Content-Type") != "application/yaml" || r.Body.String() != string(want) {
		t.Errorf("answer %d %v, %d bytes", r.Code, r.Header(), r.Body.Len())
	}
	if again := s.raw(t, http.MethodGet, "/openapi.yaml", "", nil, "If-None-Match", r.Header().Get("ETag")); again.Code != http.StatusNotModified {
		t.Errorf("asked for again: %d", again.Code)
	}
}
