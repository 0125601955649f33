package api_test

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"batchreset/api"
)

// requests are the counts of a metric by method, route and code, as far as it has them.
func requests(t *testing.T, c prometheus.Collector, name string) map[string]uint64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]uint64{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			label := map[string]string{}
			for _, l := range m.GetLabel() {
				label[l.GetName()] = l.GetValue()
			}
			key := strings.TrimSpace(fmt.Sprint(label["method"], " ", label["route"], " ", label["code"]))
			got[key] = m.GetHistogram().GetSampleCount() + uint64(m.GetCounter().GetValue())
		}
	}
	return got
}

func TestRequestsAreCounted(t *testing.T) {
	s := newService(t, testConfig)
	for _, r := range []struct{ method, path, token, body string }{
		{http.MethodPost, batchReset, "acme", `{"instance_ids":["phone-1"]}`},
		{http.MethodPost, batchReset, "acme", `{"instance_ids":["phone-2"]}`},
		{http.MethodPost, batchReset, "nobody", `{"instance_ids":["phone-1"]}`},
		{http.MethodGet, "/v1/jobs/0123", "acme", ""},
		{http.MethodGet, "/v1/made-up-0123", "acme", ""},
		{http.MethodGet, "/v1/made-up-4567", "acme", ""},
		{"BREW", "/v1/jobs/0123", "acme", ""},
	} {
		s.raw(t, r.method, r.path, r.token, strings.NewReader(r.body))
	}
	job := s.submit(t, "phone-3")
	s.raw(t, http.MethodPost, "/v1/jobs/"+job+"/cancel", "acme", nil)
	s.raw(t, http.MethodGet, "/v1/jobs/"+job, "acme", nil, "Prefer", "wait=1")

	const submit, read, cancel = "POST " + batchReset, "GET /v1/jobs/:job", "POST /v1/jobs/:job/cancel"
	a, _ := s.Handler.(*api.API)
	want := map[string]uint64{
		submit + " 200": 3, submit + " 401": 1, read + " 404": 1, read + " 200": 1, cancel + " 200": 1,
		"other other 404": 2, "other other 405": 1,
	}
	if got := requests(t, a, "batchreset_http_requests_total"); !maps.Equal(got, want) {
		t.Errorf("requests\n got %v\nwant %v", got, want)
	}
	want = map[string]uint64{submit: 4, read: 1, cancel: 1, "other other": 3} // the one that waited is not there
	if got := requests(t, a, "batchreset_http_request_duration_seconds"); !maps.Equal(got, want) {
		t.Errorf("durations\n got %v\nwant %v", got, want)
	}
}
