package httpdriver

import (
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"batchreset/worker"
)

func TestTheRequestIsWhatTheTemplatesSay(t *testing.T) {
	var path, query, body string
	url := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		path, query, body = r.URL.EscapedPath(), r.URL.RawQuery, string(b)
	})
	a := attempt()
	a.Address, a.Labels = "10.0.0.7:5555/\u00e9", map[string]string{"rack": `7"`}
	for _, row := range []struct{ url, template, path, query, body string }{
		{"/{instance_id}", "", "/phone-1", "", `{"instance_id":"phone-1","item_id":"job-0","attempt":1}`},
		{"/at/{address}", "", "/at/10.0.0.7%3A5555%2F%C3%A9", "", `{"instance_id":"phone-1","item_id":"job-0","attempt":1}`},
		{"/x?at={address}&id={instance_id}", `{"device":{{json .Address}},"rack":{{json .Labels.rack}},"none":{{json .Labels.none}},"key":{{json .Key}}}`, "/x", "at=10.0.0.7%3A5555%2F%C3%A9&id=phone-1", `{"device":"10.0.0.7:5555/\u00e9","rack":"7\"","none":"","key":"key-1"}`},
	} {
		d := newDriver(t, Config{URL: url + row.url, Body: row.template})
		if err := d.Reset(t.Context(), a); err != nil {
			t.Errorf("%s: %v", row.url, err)
		}
		var got, want any
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Errorf("%s: %v", row.url, err)
		}
		_ = json.Unmarshal([]byte(row.body), &want)
		if path != row.path || query != row.query || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %s ? %s with %s", row.url, path, query, body)
		}
	}
}

func TestAnInstanceWithoutAnAddressIsNotReset(t *testing.T) {
	url := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("something was sent") })
	d := newDriver(t, Config{URL: url + "/{address}/reset"})
	e := wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Permanent)
	if !strings.Contains(e.Message, "needs an address, and the fleet has none for it") {
		t.Error(e.Message)
	}
}

func TestBodiesThatCannotBeAreRefused(t *testing.T) {
	for body, want := range map[string]string{
		`{"id":{{.InstanceID}}}`:                            "body is not JSON once it is filled in",
		`{"at":"{{.Address}}"}`:                             "body is not JSON once it is filled in",
		`{"id":{{json .InstanceID}`:                         "body is not a template",
		`{"id":{{json .Serial}}}`:                           "body cannot be filled in",
		`{"id":{{yaml .InstanceID}}}`:                       "body is not a template",
		"{\"id\":\"" + strings.Repeat("x", maxBody) + "\"}": "body is longer than",
	} {
		if _, err := New(Config{URL: "http://x/{instance_id}", Body: body}); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.40s: %v, want %q", body, err, want)
		}
	}
}
