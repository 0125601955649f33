package api

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"batchreset/tasks"
)

const instanceIDsField = "instance_ids"

// runFields are the names that a request for a run can have.
var runFields = []string{
	instanceIDsField, "name", "reason", "labels", "not_before", "max_parallel", "canary", "soak", "growth", "max_failures", "generation", "approval", "dry_run",
}

// runBody is the body of a request for a run.
type runBody struct {
	tasks.RunSubmission
	dryRun bool
}

// decodeRun reads the body of a request for a run, whatever its Content-Type says. It keeps of the
// list only the IDs, each once, so that 8 MiB of JSON are never in memory. Errors are BadRequest, and
// name the field; TooLarge.
func decodeRun(body io.Reader, limit int) (runBody, error) {
	list := idList{limit: limit, seen: map[string]struct{}{}}
	fields, err := readRun(body, &list)
	switch {
	case err != nil:
		return runBody{}, err
	case !list.there:
		return runBody{}, tasks.Errorf(tasks.BadRequest, "instance_ids is missing")
	case len(list.ids) == 0:
		return runBody{}, tasks.Errorf(tasks.BadRequest, "instance_ids must list at least one instance")
	}
	r := runBody{RunSubmission: tasks.RunSubmission{InstanceIDs: list.ids, Repeats: list.repeats}}
	if !optional(fields["dry_run"], &r.dryRun) {
		return runBody{}, tasks.Errorf(tasks.BadRequest, "dry_run must be true or false")
	}
	if !optional(fields["approval"], &r.AskApproval) {
		return runBody{}, tasks.Errorf(tasks.BadRequest, "approval must be true or false")
	}
	if !optional(fields["name"], &r.Name) {
		return runBody{}, tasks.Errorf(tasks.BadRequest, "name must be a string")
	}
	if err := tasks.CheckRunName(r.Name); err != nil {
		return runBody{}, tasks.Errorf(tasks.BadRequest, "name %s", err)
	}
	if !optional(fields["reason"], &r.Reason) {
		return runBody{}, tasks.Errorf(tasks.BadRequest, "reason must be a string")
	}
	if err := tasks.CheckReason(r.Reason); err != nil {
		return runBody{}, tasks.Errorf(tasks.BadRequest, "reason %s", err)
	}
	if err := decodeLabels(fields["labels"], &r.Labels); err != nil {
		return runBody{}, err
	}
	if err := decodeNotBefore(fields["not_before"], &r.NotBefore); err != nil {
		return runBody{}, err
	}
	if r.Generations, err = decodeGenerations(fields["generation"], list.ids); err != nil {
		return runBody{}, err
	}
	r.Options, err = decodeRunOptions(fields, len(list.ids))
	return r, err
}

// decodeRunOptions reads how a run of so many instances is to go on.
func decodeRunOptions(fields map[string]jsontext.Value, total int) (tasks.RunOptions, error) {
	o := tasks.RunOptions{MaxParallel: tasks.DefaultMaxParallel}
	if !optional(fields["max_parallel"], &o.MaxParallel) {
		return o, tasks.Errorf(tasks.BadRequest, "max_parallel must be a whole number")
	}
	if !optional(fields["canary"], &o.Canary) {
		return o, tasks.Errorf(tasks.BadRequest, "canary must be a whole number")
	}
	var err error
	if o.Soak, err = decodeSoak(fields["soak"]); err != nil {
		return o, err
	}
	growth := fields["growth"]
	switch {
	case !optional(growth, &o.Growth):
		return o, tasks.Errorf(tasks.BadRequest, "growth must be a number")
	case growth != nil && o.Growth < 1: // Check takes 0 for none
		return o, tasks.Errorf(tasks.BadRequest, "growth must be from 1 to %d", tasks.MaxGrowth)
	case growth == nil && o.Canary > 0:
		o.Growth = tasks.DefaultGrowth
	}
	if o.MaxFailures, err = decodeBudget(fields["max_failures"]); err != nil {
		return o, err
	}
	if err := o.Check(total); err != nil {
		return o, tasks.Errorf(tasks.BadRequest, "%s", err)
	}
	return o, nil
}

func decodeSoak(raw jsontext.Value) (tasks.Duration, error) {
	var text string
	if raw == nil {
		return 0, nil
	}
	if !optional(raw, &text) {
		return 0, tasks.Errorf(tasks.BadRequest, `soak must be a string such as "30s"`)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, tasks.Errorf(tasks.BadRequest, `soak must be a time span such as "30s" or "1h30m", not %.80q`, text)
	}
	return tasks.Duration(d), nil
}

// decodeBudget reads a number, or a string with a percentage.
func decodeBudget(raw jsontext.Value) (tasks.Budget, error) {
	if raw == nil {
		return tasks.Budget{}, nil
	}
	text := string(raw)
	if raw.Kind() != '0' && (!optional(raw, &text) || !strings.HasSuffix(text, "%")) {
		return tasks.Budget{}, tasks.Errorf(tasks.BadRequest, `max_failures must be a whole number, or a percentage as a string such as "2%%"`)
	}
	budget, err := tasks.ParseBudget(text)
	if err != nil {
		return budget, tasks.Errorf(tasks.BadRequest, "max_failures %s", err)
	}
	return budget, nil
}

// decodeResume reads a body that may have a budget, and may be empty: then the budget stays.
func decodeResume(body io.Reader) (*tasks.Budget, error) {
	var request struct {
		MaxFailures jsontext.Value `json:"max_failures"`
	}
	if err := decodeOptional(body, &request); err != nil {
		return nil, err
	}
	if request.MaxFailures == nil {
		return nil, nil //nolint:nilnil // it stays
	}
	budget, err := decodeBudget(request.MaxFailures)
	return &budget, err
}

// decodeJudgement reads what somebody decides about a run.
func decodeJudgement(body io.Reader, needsList bool) (list, comment string, err error) {
	var request struct {
		List    jsontext.Value `json:"list_sha256"`
		Comment jsontext.Value `json:"comment"`
	}
	if err := decodeOptional(body, &request); err != nil {
		return "", "", err
	}
	switch {
	case request.List == nil && needsList:
		return "", "", tasks.Errorf(tasks.BadRequest, "list_sha256 is missing: it says which list is decided about")
	case !optional(request.List, &list) || request.List != nil && !tasks.ValidListHash(list):
		return "", "", tasks.Errorf(tasks.BadRequest, "list_sha256 must be a string of 64 characters of 0-9 a-f")
	case request.Comment == nil:
		return "", "", tasks.Errorf(tasks.BadRequest, "comment is missing: it says why")
	case !optional(request.Comment, &comment):
		return "", "", tasks.Errorf(tasks.BadRequest, "comment must be a string")
	}
	if err := tasks.CheckComment(comment); err != nil {
		return "", "", tasks.Errorf(tasks.BadRequest, "comment %s", err)
	}
	return list, comment, nil
}

// readRun reads the fields of a request for a run, and its instances into the list.
func readRun(body io.Reader, list *idList) (map[string]jsontext.Value, error) {
	d := jsontext.NewDecoder(body) // which refuses repeated names and text that is not UTF-8
	begin, err := d.ReadToken()
	switch {
	case errors.Is(err, io.EOF):
		return nil, tasks.Errorf(tasks.BadRequest, "the body is not JSON: it is empty")
	case err != nil:
		return nil, unreadable(err)
	case begin.Kind() != '{':
		return nil, tasks.Errorf(tasks.BadRequest, "the body must be a JSON object")
	}
	fields := map[string]jsontext.Value{}
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return nil, unreadable(err)
		}
		name := token.String()
		if !slices.Contains(runFields, name) {
			return nil, tasks.Errorf(tasks.BadRequest, "the body has the unknown field %.80q%s", name, tasks.DidYouMean(name, runFields))
		}
		if name == instanceIDsField {
			if err := list.read(d); err != nil {
				return nil, err
			}
			continue
		}
		value, err := d.ReadValue()
		if err != nil {
			return nil, unreadable(err)
		}
		fields[name] = value.Clone()
	}
	if _, err := d.ReadToken(); err != nil { // the closing brace
		return nil, unreadable(err)
	}
	switch _, err := d.ReadToken(); {
	case err == nil:
		return nil, tasks.Errorf(tasks.BadRequest, "the body is not JSON: there is more after its object")
	case !errors.Is(err, io.EOF):
		return nil, unreadable(err)
	}
	return fields, nil
}

// idList is a list of instances that is being read.
type idList struct {
	limit   int
	there   bool
	ids     []string // each once, in the order of first mention
	repeats int
	seen    map[string]struct{}
}

// read reads an array of instance IDs. The limit counts what was sent, repeats included.
func (l *idList) read(d *jsontext.Decoder) error {
	token, err := d.ReadToken()
	if err != nil {
		return unreadable(err)
	}
	if l.there = true; token.Kind() != '[' {
		return tasks.Errorf(tasks.BadRequest, "instance_ids must be an array of strings")
	}
	for n := 0; d.PeekKind() != ']'; n++ {
		token, err := d.ReadToken()
		switch {
		case err != nil:
			return unreadable(err)
		case n == l.limit:
			return tasks.Errorf(tasks.BadRequest, "instance_ids lists more than %d instances, which is the limit", l.limit)
		case token.Kind() != '"':
			return tasks.Errorf(tasks.BadRequest, "instance_ids[%d] must be a string", n)
		}
		if err := l.add(n, token.String()); err != nil {
			return err
		}
	}
	if _, err := d.ReadToken(); err != nil { // the closing bracket
		return unreadable(err)
	}
	return nil
}

func (l *idList) add(n int, id string) error {
	switch err := tasks.CheckInstanceID(id); {
	case err != nil && len(id) > tasks.MaxInstanceIDLength:
		return tasks.Errorf(tasks.BadRequest, "instance_ids[%d] %.80q %s", n, id, err)
	case err != nil:
		return tasks.Errorf(tasks.BadRequest, "instance_ids[%d] %s", n, err)
	}
	if _, again := l.seen[id]; again {
		l.repeats++
		return nil
	}
	l.seen[id] = struct{}{}
	l.ids = append(l.ids, id)
	return nil
}

// unreadable is what is wrong with a body that ended in the middle, or that is not JSON.
func unreadable(err error) error {
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return tasks.Errorf(tasks.TooLarge, "the body is larger than %d bytes", maxRunBody)
	}
	if syntactic, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return tasks.Errorf(tasks.BadRequest, "the body %s", syntaxFault(syntactic))
	}
	return errHalfBody
}

// runsParameters are those of a list of runs, resultsParameters those of a run's results.
var (
	runsParameters    = parameters{"state": false, "label": true, "since": false, "until": false, "limit": false, "cursor": false}
	resultsParameters = parameters{"state": true, "format": false}
)

// decodeRunFilter reads the filter in the query of a list of runs.
func decodeRunFilter(query url.Values) (f tasks.RunFilter, err error) {
	f = tasks.RunFilter{State: tasks.RunState(query.Get("state")), Labels: query["label"], Cursor: query.Get("cursor")}
	if f.State != "" && !slices.Contains(tasks.RunStates, f.State) {
		return f, tasks.Errorf(tasks.BadRequest, "state must be one of %v", tasks.RunStates)
	}
	f.Since, f.Until, f.Limit, err = decodeBounds(query)
	return f, err
}

// decodeResults reads which instances a caller wants, and how.
func decodeResults(query url.Values) (states []tasks.ItemState, format string, err error) {
	for _, text := range query["state"] {
		state := tasks.ItemState(text)
		if !slices.Contains(tasks.ItemStates, state) {
			return nil, "", tasks.Errorf(tasks.BadRequest, "state must be one of %v, not %.80q", tasks.ItemStates, text)
		}
		states = append(states, state)
	}
	switch format = query.Get("format"); {
	case !query.Has("format"):
		format = formatLines
	case format != formatLines && format != formatCSV:
		return nil, "", tasks.Errorf(tasks.BadRequest, "format must be %s or %s, not %.80q", formatLines, formatCSV, format)
	}
	return states, format, nil
}
