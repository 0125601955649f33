package api_test

import (
	"net/http"
	"strings"
	"testing"

	"batchreset/api"
	"batchreset/tasks"
)

func TestIdempotencyKeys(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	submit := func(tenant, body string, keys ...string) reply {
		t.Helper()
		header := []string{}
		for _, key := range keys {
			header = append(header, "Idempotency-Key", key)
		}
		return s.do(t, http.MethodPost, batchReset, tenant, strings.NewReader(body), header...)
	}
	const body = `{"instance_ids":["a","b"]}`
	first := submit("acme", body, `"key-1"`)
	if first.Code != tasks.OK {
		t.Fatalf("answer %+v", first)
	}
	for name, again := range map[string]reply{
		"the same request":        submit("acme", body, `"key-1"`),
		"the key as a bare token": submit("acme", body, `key-1`),
		"other white space":       submit("acme", `{ "instance_ids" : ["a", "b", "a"] }`, `"key-1"`),
	} {
		if string(again.Data) != string(first.Data) || again.header.Get("Location") != first.header.Get("Location") {
			t.Errorf("%s: answer %+v, the first was %+v", name, again, first)
		}
	}
	for name, other := range map[string]reply{
		"another list":   submit("acme", `{"instance_ids":["a"]}`, `"key-1"`),
		"another order":  submit("acme", `{"instance_ids":["b","a"]}`, `"key-1"`),
		"another option": submit("acme", `{"instance_ids":["a","b"],"max_failures":1}`, `"key-1"`),
	} {
		if other.status != http.StatusUnprocessableEntity || other.Code != tasks.KeyReused {
			t.Errorf("%s: answer %+v", name, other)
		}
	}
	for name, fresh := range map[string]reply{
		"another tenant":    submit("other", body, `"key-1"`),
		"another key":       submit("acme", body, `"key-2"`),
		"a key with escape": submit("acme", body, `"key-\\\"1"`),
		"no key":            submit("acme", body),
	} {
		if fresh.Code != tasks.OK || string(fresh.Data) == string(first.Data) {
			t.Errorf("%s: answer %+v", name, fresh)
		}
	}
	// A replay neither asks for ownership again nor makes a second job.
	if err := s.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "a", Tenant: "other"}}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if again := submit("acme", body, `"key-1"`); string(again.Data) != string(first.Data) {
		t.Errorf("a replay after the instance changed hands: %+v", again)
	}
	if jobs := s.rdb.ZCard(t.Context(), "reset:jobs:{acme}").Val(); jobs != 4 {
		t.Errorf("%d jobs of acme, want 4", jobs)
	}
}

func TestBadIdempotencyKeys(t *testing.T) {
	s := newService(t, api.Config{AllowUnregistered: true})
	for name, key := range map[string]string{
		"empty":                  ``,
		"an empty string":        `""`,
		"300 characters":         `"` + strings.Repeat("x", 300) + `"`,
		"an open quote":          `"key`,
		"a quote alone":          `"`,
		"a quote in the middle":  `"a"b"`,
		"a backslash at the end": `"a\"`,
		"two tokens":             `a, b`,
		"a parameter":            `"a";v=1`,
		"other characters":       "\"kl\u00fc\"",
	} {
		got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a"]}`), "Idempotency-Key", key)
		if got.status != http.StatusBadRequest || got.Code != tasks.BadRequest || !strings.HasPrefix(got.Message, "Idempotency-Key") {
			t.Errorf("%s: answer %d %s %q", name, got.status, got.Code, got.Message)
		}
	}
	s.wantNothingStored(t)
}
