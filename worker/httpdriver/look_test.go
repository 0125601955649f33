package httpdriver

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"batchreset/worker"
)

var _ worker.Looker = Looking{}

func TestWhatTheAnswerToALookMeans(t *testing.T) {
	for _, row := range []struct {
		status   int
		body     string
		state    worker.SightState // empty: an error
		evidence string
	}{
		{200, `{"initial":true,"evidence":"boot 2"}`, worker.Initial, "boot 2"},
		{200, `{"initial":false,"evidence":{"born":"2026-01-01"}}`, worker.NotInitial, `{"born":"2026-01-01"}`},
		{200, ` {"initial":true} `, worker.Initial, "initial"},
		{200, `{"initial":true,"error":"not found"}`, "", ""},
		{200, `{"initial":true,"instance_id":"phone-2"}`, "", ""},
		{200, `{"initial":false,"evidence":null}`, worker.NotInitial, "not initial"},
		{200, `{"initial":"true"}`, "", ""},
		{200, `{"initial":1}`, "", ""},
		{200, `{"Initial":true}`, "", ""},
		{200, `{"initial":null}`, "", ""},
		{200, `{"initial":true,"initial":false}`, "", ""},
		{200, `{"evidence":"boot 2"}`, "", ""},
		{200, `{"initial":true`, "", ""},
		{200, `{"initial":true} more`, "", ""},
		{200, `[{"initial":true}]`, "", ""},
		{200, "<html>Log in</html>", "", ""},
		{200, "", "", ""},
		{200, `{"initial":true,"pad":"` + strings.Repeat("x", maxAnswer) + `"}`, "", ""},
		{202, `{"initial":true}`, "", ""},
		{204, "", "", ""},
		{302, `{"initial":true}`, "", ""},
		{401, `{"initial":true}`, "", ""},
		{404, `{"initial":true}`, "", ""},
		{500, `{"initial":true}`, "", ""},
	} {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || r.URL.Path != "/look/phone-1" || r.Header.Get("Authorization") != "Bearer secret" {
				t.Errorf("asked with %s %s %v", r.Method, r.URL, r.Header)
			}
			w.WriteHeader(row.status)
			_, _ = io.WriteString(w, row.body)
		})
		d := Looking{newDriver(t, Config{URL: url, LookURL: url + "/look/{instance_id}", Token: "secret"})}
		sight, err := d.Look(t.Context(), attempt())
		if sight.State != row.state || (err != nil) != (row.state == "") {
			t.Errorf("%d %.60s: %+v, %v", row.status, row.body, sight, err)
		}
		if want := "GET /look/phone-1: " + row.evidence; err == nil && sight.Evidence != want {
			t.Errorf("%d %.60s: evidence %q, want %q", row.status, row.body, sight.Evidence, want)
		}
	}
}

func TestALookThatIsLostIsAnError(t *testing.T) {
	url := serve(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	d := Looking{newDriver(t, Config{URL: url, LookURL: url + "/{instance_id}"})}
	if sight, err := d.Look(t.Context(), attempt()); err == nil || sight.State != "" {
		t.Errorf("%+v, %v", sight, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Look(ctx, attempt()); err == nil {
		t.Error("looked although there is no time left")
	}
}

func TestLookURLs(t *testing.T) {
	for look, want := range map[string]string{
		"https://phones.example/look/{instance_id}":    "",
		"https://PHONES.example:443/?id={instance_id}": "",
		"https://phones.example/look":                  "look_url must contain {instance_id}",
		"http://phones.example/{instance_id}":          "look_url must have the scheme and host of url, https://phones.example:443",
		"https://other.example/{instance_id}":          "look_url must have the scheme and host",
		"https://phones.example:444/{instance_id}":     "look_url must have the scheme and host",
	} {
		_, err := New(Config{URL: "https://phones.example/{instance_id}/reset", LookURL: look})
		if want == "" && err != nil || want != "" && (err == nil || !strings.HasPrefix(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", look, err, want)
		}
	}
}
