package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"batchreset/tasks"
)

func TestInstancesAreIdleOrRestoring(t *testing.T) {
	s := newService(t, testConfig)
	statuses := func(token, body string) reply {
		t.Helper()
		return s.do(t, http.MethodPost, "/v1/instances/batch-query-status", token, strings.NewReader(body))
	}
	wants := func(what, body, want string) {
		t.Helper()
		if got := statuses("acme", body); string(got.Data) != `{"status_results":[`+want+`]}` {
			t.Errorf("%s: %d %s %s", what, got.status, got.Message, got.Data)
		}
	}
	both := `{"instance_ids":["phone-1","phone-2","phone-1"]}`
	wants("before", both, `{"instance_id":"phone-1","status":0},{"instance_id":"phone-2","status":0}`)
	first := s.submit(t, "phone-1", "phone-3")
	wants("while one waits", both, `{"instance_id":"phone-1","status":1},{"instance_id":"phone-2","status":0}`)
	if got := statuses("other", both); string(got.Data) != `{"status_results":[{"instance_id":"phone-1","status":0},{"instance_id":"phone-2","status":0}]}` {
		t.Errorf("another tenant sees %s", got.Data)
	}
	if got := s.do(t, http.MethodPost, "/v1/jobs/"+first+"/cancel", "acme", nil); got.status != http.StatusOK {
		t.Fatalf("cancel: %+v", got)
	}
	wants("after its end", both, `{"instance_id":"phone-1","status":0},{"instance_id":"phone-2","status":0}`)
	if err := s.rdb.Set(t.Context(), "reset:lock:{phone-2}", "somebody", 0).Err(); err != nil {
		t.Fatal(err)
	}
	wants("while one is reset", both, `{"instance_id":"phone-1","status":0},{"instance_id":"phone-2","status":1}`)

	err := s.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "theirs", Tenant: "other"}, {ID: "kept", Tenant: "acme", Protected: true}}, tasks.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	wants("protected", `{"instance_ids":["kept"]}`, `{"instance_id":"kept","status":0}`)
	for body, want := range map[string]string{
		`{"instance_ids":["phone-1","theirs"]}`:                   "KOOPHONE.API.1001: no permission on instances: 1: theirs",
		`{"instance_ids":[]}`:                                     "KOOPHONE.API.1000: instance_ids must list at least one instance",
		`{"instance_ids":["phone-1"],"dry_run":true}`:             `KOOPHONE.API.1000: the body has the unknown field "dry_run"`,
		`{"instance_ids":["a b"]}`:                                "KOOPHONE.API.1000: ",
		`{"instance_ids":["` + strings.Repeat(`x","`, 40) + `"]}`: "KOOPHONE.API.1000: ",
	} {
		if got := statuses("acme", body); got.status != http.StatusBadRequest || !strings.HasPrefix(string(got.Code)+": "+got.Message, want) {
			t.Errorf("%.60s: %d %s %q, want %q", body, got.status, got.Code, got.Message, want)
		}
	}
}

func TestATenantsInstancesByPages(t *testing.T) {
	s := newService(t, testConfig)
	var fleet []tasks.Instance
	for n := range 25 {
		fleet = append(fleet, tasks.Instance{ID: fmt.Sprintf("phone-%02d", n), Tenant: []string{"acme", "other"}[n%5/4]})
	}
	if err := s.db.Fleet.Register(t.Context(), fleet, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	type page struct {
		Result     []struct{ InstanceID, InstanceName string }
		PageNo     int `json:"page_no"`
		TotalCount int `json:"total_count"`
	}
	ask := func(query string) (p page, ids string) {
		t.Helper()
		got := s.do(t, http.MethodGet, "/v1/instances/batch-query?"+query, "acme", nil)
		if err := json.Unmarshal(got.Data, &p); err != nil {
			t.Fatalf("%s: %+v: %v", query, got, err)
		}
		var raw struct {
			Result []struct {
				ID string `json:"instance_id"`
			}
		}
		if err := json.Unmarshal(got.Data, &raw); err != nil {
			t.Fatal(err)
		}
		for _, in := range raw.Result {
			ids += strings.TrimPrefix(in.ID, "phone-") + " "
		}
		return p, ids
	}
	check := func(what string) {
		t.Helper()
		for query, want := range map[string]string{
			"page_no=1&page_size=8": "00 01 02 03 05 06 07 08 ", "page_no=3&page_size=8": "20 21 22 23 ", "page_no=4&page_size=8": "",
			"page_no=1&page_size=500&instance_id=phone-07": "07 ", "page_no=1&page_size=5&instance_id=phone-04": "", "page_no=1&page_size=5&x-request-id=R1&instance_id=nobody": "",
		} {
			p, ids := ask(query)
			if total := 20; ids != want || !strings.Contains(query, "instance_id") && p.TotalCount != total {
				t.Errorf("%s, %s: %q of %d, want %q", what, query, ids, p.TotalCount, want)
			}
		}
	}
	check("without an index")
	if err := s.db.Fleet.IndexTenants(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("with an index")
	// One moves away, one comes, one leaves.
	if err := s.db.Fleet.Register(t.Context(), []tasks.Instance{{ID: "phone-00", Tenant: "other"}, {ID: "phone-04", Tenant: "acme"}}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.db.Fleet.Unregister(t.Context(), []string{"phone-01"}, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if p, ids := ask("page_no=1&page_size=3"); ids != "02 03 04 " || p.TotalCount != 19 {
		t.Errorf("after changes: %q of %d", ids, p.TotalCount)
	}
	for query, want := range map[string]string{
		"": "page_no must be a number from 1", "page_no=0&page_size=5": "page_no must be", "page_no=1": "page_size must be", "page_no=1&page_size=501": "page_size must be",
		"page_no=1&page_size=x": "page_size must be", "page_no=1&page_size=5&instance_name=x": "instance_name", "page_no=1&page_no=2&page_size=5": "page_no", "page_no=1&page_size=5&instance_id=a%20b": "instance_id",
		"page_no=1&page_size=5&order=asc": "order",
	} {
		if got := s.do(t, http.MethodGet, "/v1/instances/batch-query?"+query, "acme", nil); got.status != http.StatusBadRequest || !strings.Contains(got.Message, want) {
			t.Errorf("%q: %d %q, want %q", query, got.status, got.Message, want)
		}
	}
	if got := s.do(t, http.MethodGet, "/v1/instances/batch-query?page_no=1&page_size=5&x-request-id=from-the-query", "acme", nil); got.header.Get("X-Request-Id") != "from-the-query" {
		t.Errorf("the request ID is %q", got.header.Get("X-Request-Id"))
	}
}

func TestWhatKooPhoneHasAndThisServiceHasNot(t *testing.T) {
	s := newService(t, testConfig)
	for path, method := range map[string]string{
		"/v1/instances/reboot": http.MethodPost, "/v1/instances/backup": http.MethodPost, "/v1/instances/unassign": http.MethodPost, "/v1/instances/sku": http.MethodGet,
		"/v1/instances/phone-1/auth": http.MethodPost, "/v1/instances/video-setting": http.MethodPut, "/v1/instances/phone-1/app-list": http.MethodGet,
	} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(twoPhones)))
		if want := fmt.Sprintf(`{"error_code":"APIGW.0101","error_msg":"%s %s is not served here: this service resets instances, for all else ask KooPhone itself"}`, method, path); w.Code != http.StatusNotFound || strings.TrimSpace(w.Body.String()) != want {
			t.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
	}
}
