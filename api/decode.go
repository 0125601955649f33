package api

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"batchreset/tasks"
)

// idempotencyKey reads the header of the IETF draft: one structured-field string.
// A bare token, as many clients send it, is tolerated.
func idempotencyKey(values []string) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	key := strings.TrimSpace(values[0])
	if quoted, ok := strings.CutPrefix(key, `"`); ok {
		quoted, ok = strings.CutSuffix(quoted, `"`)
		plain := strings.NewReplacer(`\\`, `\`, `\"`, `"`).Replace(quoted)
		// Escaped characters are gone from plain; one more quote or backslash in quoted was
		// not escaped.
		if unescaped := strings.NewReplacer(`\\`, "", `\"`, "").Replace(quoted); strings.ContainsAny(unescaped, `"\`) {
			ok = false
		}
		if !ok {
			return "", tasks.Errorf(tasks.BadRequest, "Idempotency-Key is not a well-formed string")
		}
		key = plain
	} else if strings.ContainsAny(key, ` ",;\`) {
		return "", tasks.Errorf(tasks.BadRequest, "Idempotency-Key must be a string in double quotes, or a token")
	}
	switch {
	case len(values) > 1:
		return "", tasks.Errorf(tasks.BadRequest, "Idempotency-Key is sent %d times", len(values))
	case key == "":
		return "", tasks.Errorf(tasks.BadRequest, "Idempotency-Key is empty")
	case len(key) > maxIdempotencyKey:
		return "", tasks.Errorf(tasks.BadRequest, "Idempotency-Key is %d characters long, the limit is %d", len(key), maxIdempotencyKey)
	case strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }):
		return "", tasks.Errorf(tasks.BadRequest, "Idempotency-Key has characters other than printable ASCII")
	}
	return key, nil
}

const maxIdempotencyKey = 255

// checkHeaders refuses misspelled Idempotency-Key headers: without the key, a request that is
// sent twice resets twice.
func checkHeaders(header http.Header) error {
	for name := range header {
		bare := strings.TrimPrefix(name, "X-")
		if name != "Idempotency-Key" && tasks.DidYouMean(bare, []string{"Idempotency-Key"}) != "" {
			return tasks.Errorf(tasks.BadRequest, "unknown header %.80q; did you mean \"Idempotency-Key\"?", name)
		}
	}
	return nil
}

// batch is the body of a batch-reset.
type batch struct {
	tasks.Submission
	dryRun bool
}

// decodeBatch reads the body of a batch-reset, whatever its Content-Type says, and
// folds repeated instances.
func decodeBatch(body io.Reader, limit int) (batch, error) {
	var request struct {
		InstanceIDs jsontext.Value `json:"instance_ids"`
		MaxFailures jsontext.Value `json:"max_failures"`
		DryRun      jsontext.Value `json:"dry_run"`
		NotBefore   jsontext.Value `json:"not_before"`
		Reason      jsontext.Value `json:"reason"`
		Labels      jsontext.Value `json:"labels"`
		Generation  jsontext.Value `json:"generation"`
	}
	if err := decodeObject(body, &request); err != nil {
		return batch{}, err
	}
	instances, err := decodeInstances(request.InstanceIDs)
	if err != nil {
		return batch{}, err
	}
	var b batch
	if b.InstanceIDs, err = tasks.Batch(instances, limit); err != nil {
		return batch{}, err
	}
	if !optional(request.MaxFailures, &b.MaxFailures) || b.MaxFailures < 0 || b.MaxFailures > tasks.MaxLimit {
		return batch{}, tasks.Errorf(tasks.BadRequest, "max_failures must be a whole number from 0 to %d", tasks.MaxLimit)
	}
	if !optional(request.DryRun, &b.dryRun) {
		return batch{}, tasks.Errorf(tasks.BadRequest, "dry_run must be true or false")
	}
	if !optional(request.Reason, &b.Reason) {
		return batch{}, tasks.Errorf(tasks.BadRequest, "reason must be a string")
	}
	if err := tasks.CheckReason(b.Reason); err != nil {
		return batch{}, tasks.Errorf(tasks.BadRequest, "reason %s", err)
	}
	if err := decodeLabels(request.Labels, &b.Labels); err != nil {
		return batch{}, err
	}
	if b.Generations, err = decodeGenerations(request.Generation, b.InstanceIDs); err != nil {
		return batch{}, err
	}
	return b, decodeNotBefore(request.NotBefore, &b.NotBefore)
}

// decodeInstanceIDs reads a body that has only a list of instances.
func decodeInstanceIDs(body io.Reader, limit int) ([]string, error) {
	var request struct {
		InstanceIDs jsontext.Value `json:"instance_ids"`
	}
	if err := decodeObject(body, &request); err != nil {
		return nil, err
	}
	instances, err := decodeInstances(request.InstanceIDs)
	if err != nil {
		return nil, err
	}
	return tasks.Batch(instances, limit)
}

// decodeStates reads the body of a retry. If it is empty, the failed items are retried.
func decodeStates(body io.Reader) ([]tasks.ItemState, error) {
	var request struct {
		States jsontext.Value `json:"states"`
	}
	if err := decodeOptional(body, &request); err != nil {
		return nil, err
	}
	if request.States == nil {
		return []tasks.ItemState{tasks.ItemFailed}, nil
	}
	var named []*tasks.ItemState
	if !optional(request.States, &named) || slices.Contains(named, nil) {
		return nil, tasks.Errorf(tasks.BadRequest, "states must be an array of strings")
	}
	var states []tasks.ItemState
	for _, state := range named {
		states = append(states, *state)
	}
	if err := tasks.CheckRetryStates(states); err != nil {
		return nil, tasks.Errorf(tasks.BadRequest, "states %s", err)
	}
	return states, nil
}

// decodeObject reads a body that must be a JSON object.
func decodeObject(body io.Reader, fields any) error {
	raw, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if err := ReadJSON(raw, fields); err != nil {
		return tasks.Errorf(tasks.BadRequest, "the body %s", err)
	}
	return nil
}

// decodeOptional reads a body that may be empty, too.
func decodeOptional(body io.Reader, fields any) error {
	raw, err := io.ReadAll(body)
	if err != nil || len(raw) == 0 {
		return err
	}
	return decodeObject(bytes.NewReader(raw), fields)
}

// optional decodes a field, if it is there, and reports whether its type is right.
// null counts as a wrong type.
func optional[T any](raw jsontext.Value, field *T) bool {
	if raw == nil {
		return true
	}
	var value *T
	if err := json.Unmarshal(raw, &value); err != nil || value == nil {
		return false
	}
	*field = *value
	return true
}

func decodeLabels(raw jsontext.Value, labels *map[string]string) error {
	var values map[string]*string
	if !optional(raw, &values) {
		return tasks.Errorf(tasks.BadRequest, "labels must be an object of strings")
	}
	for name, value := range values {
		if value == nil {
			return tasks.Errorf(tasks.BadRequest, "labels must be an object of strings")
		}
		if *labels == nil {
			*labels = map[string]string{}
		}
		(*labels)[name] = *value
	}
	if err := tasks.CheckLabels(*labels); err != nil {
		return tasks.Errorf(tasks.BadRequest, "labels %s", err)
	}
	return nil
}

// decodeGenerations reads the generation that all instances must have, or that each must.
func decodeGenerations(raw jsontext.Value, instances []string) (map[string]int, error) {
	if raw == nil {
		return nil, nil //nolint:nilnil // any generation will do
	}
	var all int
	var each map[string]int
	switch {
	case optional(raw, &all):
		each = map[string]int{}
		for _, id := range instances {
			each[id] = all
		}
	case !optional(raw, &each):
		return nil, tasks.Errorf(tasks.BadRequest, "generation must be a whole number from 1, or an object of an instance ID and such a number")
	}
	listed := make(map[string]bool, len(instances))
	for _, id := range instances {
		listed[id] = true
	}
	for id, n := range each {
		if n < 1 || n > tasks.MaxGeneration {
			return nil, tasks.Errorf(tasks.BadRequest, "generation must be from 1 to %d, not %d", tasks.MaxGeneration, n)
		}
		if !listed[id] {
			return nil, tasks.Errorf(tasks.BadRequest, "generation has the instance %.80q, which instance_ids does not have", id)
		}
	}
	return each, nil
}

func decodeNotBefore(raw jsontext.Value, notBefore *tasks.Time) error {
	var text string
	if !optional(raw, &text) {
		return tasks.Errorf(tasks.BadRequest, "not_before must be a time such as \"2026-01-02T15:04:05Z\"")
	}
	if raw == nil {
		return nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return tasks.Errorf(tasks.BadRequest, "not_before must be a time such as \"2026-01-02T15:04:05Z\", not %.80q", text)
	}
	*notBefore = tasks.FromMillis(t.UnixMilli())
	return nil
}

func decodeInstances(raw jsontext.Value) ([]string, error) {
	if raw == nil {
		return nil, tasks.Errorf(tasks.BadRequest, "instance_ids is missing")
	}
	var elements []any
	if err := json.Unmarshal(raw, &elements); err != nil || elements == nil {
		return nil, tasks.Errorf(tasks.BadRequest, "instance_ids must be an array of strings")
	}
	instances := make([]string, len(elements))
	for i, element := range elements {
		id, isString := element.(string)
		if !isString {
			return nil, tasks.Errorf(tasks.BadRequest, "instance_ids[%d] must be a string", i)
		}
		instances[i] = id
	}
	return instances, nil
}

// preferredWait reads the first wait=N of the Prefer headers (RFC 7240). One that cannot be
// understood is ignored; more than maxWait counts as maxWait.
func preferredWait(headers []string) (time.Duration, bool) {
	for preference := range strings.SplitSeq(strings.Join(headers, ","), ",") {
		preference, _, _ = strings.Cut(preference, ";") // its parameters
		name, value, _ := strings.Cut(preference, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "wait") {
			continue
		}
		seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 32)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return 0, false
		}
		return min(time.Duration(seconds)*time.Second, maxWait), true
	}
	return 0, false
}

// maxWait leaves time to answer before a proxy on the way gives up: many do after 60 s.
const maxWait = 50 * time.Second
