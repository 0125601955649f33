package client

import (
	"encoding/json"
	"errors"
	"io"
	"iter"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// repeatCase is one of testdata/repeats.json, which the clients in other languages are tested with, too.
type repeatCase struct {
	Name     string            `json:"name"`
	Call     string            `json:"call"`
	Answers  []json.RawMessage `json:"answers"`
	Requests int               `json:"requests"`
	Waits    []float64         `json:"waits"`
	Error    *struct {
		Status     int     `json:"status"` // 0: no whole answer came
		Code       string  `json:"code"`
		Uncertain  bool    `json:"uncertain"`
		RetryAfter float64 `json:"retry_after"`
	} `json:"error"`
}

// repeatCalls is each call, and the type and body that it is answered with.
var repeatCalls = map[string]struct {
	call       func(t *testing.T, c *Client) error
	kind, body string
}{
	"get":    {func(t *testing.T, c *Client) error { _, err := c.Job(t.Context(), jobID); return err }, "application/json", okay(done)},
	"list":   {func(t *testing.T, c *Client) error { return lastOf(c.Jobs(t.Context(), JobsFilter{})) }, "application/json", okay(`{"jobs":[]}`)},
	"whoami": {func(t *testing.T, c *Client) error { _, err := c.WhoAmI(t.Context()); return err }, "application/json", okay(`{"token_id":"t","tenant":"acme"}`)},
	"proof":  {func(t *testing.T, c *Client) error { _, err := c.Proof(t.Context(), jobID); return err }, typeJOSE, "a.b.c"},
	"submit": {func(t *testing.T, c *Client) error {
		_, err := c.Submit(t.Context(), Batch{InstanceIDs: []string{"a"}})
		return err
	}, "application/json", okay(`{"task_id":"` + jobID + `","cmd_jobs":[]}`)},
	"dry_run": {func(t *testing.T, c *Client) error {
		_, err := c.DryRun(t.Context(), Batch{InstanceIDs: []string{"a"}})
		return err
	}, "application/json", okay(`{"dry_run":true,"instances":[{"instance_id":"a","verdict":"busy"}]}`)},
	"cancel": {func(t *testing.T, c *Client) error { _, err := c.Cancel(t.Context(), jobID); return err }, "application/json", okay(done)},
	"retry":  {func(t *testing.T, c *Client) error { _, err := c.Retry(t.Context(), jobID); return err }, "application/json", okay(done)},
	"run_submit": {func(t *testing.T, c *Client) error {
		_, err := c.Runs().Submit(t.Context(), RunRequest{InstanceIDs: []string{"a"}})
		return err
	}, "application/json", okay(runDone)},
	"pause": {func(t *testing.T, c *Client) error { _, err := c.Runs().Pause(t.Context(), jobID); return err }, "application/json", okay(runDone)},
	"approve": {func(t *testing.T, c *Client) error {
		_, err := c.Runs().Approve(t.Context(), jobID, "0", "fine")
		return err
	}, "application/json", okay(runDone)},
	"results":   {func(t *testing.T, c *Client) error { return lastOf(c.Runs().Results(t.Context(), jobID)) }, typeLines, "{\"instance_id\":\"a\"}\n{\"instance_id\":\"b\"}\n"},
	"run_proof": {func(t *testing.T, c *Client) error { return c.Runs().Proof(t.Context(), jobID, io.Discard) }, typeLines, "{\"version\":1}\n{\"signature\":\"s\"}\n"},
}

// taken are the requests so far.
func (s *script) taken() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

func lastOf[T any](all iter.Seq2[T, error]) (err error) {
	for _, err = range all {
	}
	return err
}

func TestRepeats(t *testing.T) {
	raw, err := os.ReadFile("testdata/repeats.json")
	if err != nil {
		t.Fatal(err)
	}
	var table struct{ Cases []repeatCase }
	if err := json.Unmarshal(raw, &table); err != nil {
		t.Fatal(err)
	}
	for _, row := range table.Cases {
		t.Run(row.Name, func(t *testing.T) { row.check(t) })
	}
}

func (row repeatCase) check(t *testing.T) {
	elsewhere := serve(t, step{body: okay(done)})
	known := repeatCalls[row.Call]
	server, seen := closedPort(t), func() []*http.Request { return nil }
	if len(row.Answers) > 0 {
		s := serve(t, stepsOf(t, row.Answers, known.kind, known.body, elsewhere.URL)...)
		server, seen = s.URL, s.taken
	}
	c, n := connect(t, server)
	told := 0
	c.onRetry = func(error, time.Duration) { told++ }

	err := known.call(t, c)
	if row.Error == nil && err != nil || row.Error != nil && err == nil {
		t.Fatalf("ended with %v", err)
	}
	if row.Error != nil {
		e, answered := errors.AsType[*Error](err)
		if !answered {
			e = &Error{}
		}
		if e.HTTPStatus != row.Error.Status || e.Code != row.Error.Code || e.RetryAfter.Seconds() != row.Error.RetryAfter ||
			errors.Is(err, ErrUncertain) != row.Error.Uncertain || errors.Is(err, ErrNoAnswer) == answered {
			t.Errorf("ended with %v", err)
		}
	}
	var waits []time.Duration
	for _, seconds := range row.Waits {
		waits = append(waits, time.Duration(seconds*float64(time.Second)))
	}
	n.expect(t, waits...)
	if len(seen()) != row.Requests || told != len(waits) || elsewhere.seen() != 0 {
		t.Errorf("sent %d requests, told of %d, and sent %d elsewhere", len(seen()), told, elsewhere.seen())
	}
	keys := map[string]bool{}
	for _, r := range seen() {
		keys[r.Header.Get("Idempotency-Key")] = true
	}
	if submits := strings.HasSuffix(row.Call, "submit"); len(keys) > 1 || len(seen()) > 0 && keys[""] == submits {
		t.Errorf("sent the keys %v", keys)
	}
}

// stepsOf turns answers of the table into those of a script.
func stepsOf(t *testing.T, answers []json.RawMessage, kind, body, elsewhere string) (steps []step) {
	t.Helper()
	for _, raw := range answers {
		if string(raw) == `"ok"` {
			steps = append(steps, step{header: map[string]string{"Content-Type": kind}, body: body})
			continue
		}
		var answer struct {
			Cut       string
			Status    int
			Code      string
			Headers   map[string]string
			Elsewhere bool
		}
		if err := json.Unmarshal(raw, &answer); err != nil {
			t.Fatal(err)
		}
		next := step{status: answer.Status, header: map[string]string{}, body: "<html>"}
		maps.Copy(next.header, answer.Headers)
		if answer.Code != "" {
			next.body = `{"error_code":` + strconv.Quote(answer.Code) + `,"error_msg":"so it is"}`
		}
		if answer.Elsewhere {
			next.header["Location"] = elsewhere + "/x"
		}
		if answer.Cut != "" {
			next = step{header: map[string]string{"Content-Type": kind}, cut: answer.Cut == "before", short: true}
		}
		if answer.Cut == "body" {
			next.body = body[:len(body)/2]
		}
		steps = append(steps, next)
	}
	return steps
}
