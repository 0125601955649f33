package api_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"batchreset/api/browsertest"
	"batchreset/api/nginxtest"
)

// TestBelowAPath asks through nginx, which takes the path off or leaves it on, and through
// one that nobody told the API of.
func TestBelowAPath(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ name, path, at, pass string }{
		{"taken off", "/tools/reset", "/tools/reset", "/"},
		{"left on", "/tools/reset", "/tools/reset", ""},
		{"not told", "", "/elsewhere", "/"},
	} {
		t.Run(row.name, func(t *testing.T) {
			cfg := testConfig
			cfg.BasePath = row.path
			s := newService(t, cfg)
			server := httptest.NewServer(s)
			t.Cleanup(server.Close)
			below := nginxtest.Start(t, `location `+row.at+`/ { proxy_pass `+server.URL+row.pass+`; }`) + row.at
			page := browsertest.Open(t, below+"/docs", "docs-below")
			for _, want := range []string{"Reset instances", "/v1/jobs/{job_id}/events"} {
				if !strings.Contains(page.DOM, want) {
					t.Errorf("the page does not show %q", want)
				}
			}
			for _, message := range page.Console {
				if !strings.HasPrefix(message, "@scalar/api-reference@") { // its greeting
					t.Errorf("on the console: %s", message)
				}
			}
			if !slices.Contains(page.Requests, below+"/openapi.yaml") {
				t.Errorf("the page has asked for %v, not for the contract", page.Requests)
			}
			for _, url := range page.Requests {
				if !strings.HasPrefix(url, below+"/") && !strings.HasPrefix(url, "data:") {
					t.Errorf("the page has asked for %s", url)
				}
			}
			if leads := regexp.MustCompile(`(?:href|src)="/[^"]*"`).FindAllString(page.DOM, -1); leads != nil {
				t.Errorf("the page leads to %v", leads)
			}
		})
	}
}

func TestWhatAnswersSayAboutPlaces(t *testing.T) {
	cfg := testConfig
	cfg.BasePath = "/tools/reset"
	s := newService(t, cfg)
	var accepted struct {
		TaskID string `json:"task_id"`
	}
	got := s.do(t, http.MethodPost, batchReset, "acme", strings.NewReader(`{"instance_ids":["a"]}`))
	if err := json.Unmarshal(got.Data, &accepted); err != nil || got.header.Get("Location") != "/tools/reset/v1/jobs/"+accepted.TaskID {
		t.Errorf("%v, answer %+v", err, got)
	}
	var contract struct{ Servers []struct{ URL string } }
	for _, path := range []string{"/openapi.yaml", "/tools/reset/openapi.yaml"} {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if err := yaml.Unmarshal(w.Body.Bytes(), &contract); err != nil || len(contract.Servers) != 1 || contract.Servers[0].URL != "/tools/reset" {
			t.Errorf("%s: %v, servers %+v", path, err, contract.Servers)
		}
	}
	for path, status := range map[string]int{
		got.header.Get("Location"): http.StatusOK, "/tools/reset/healthz": http.StatusOK, "/healthz": http.StatusOK, "/tools/reset/": http.StatusOK,
		"/tools/reset": http.StatusSeeOther, "/tools/resets/healthz": http.StatusNotFound, "/tools/reset/tools/reset/healthz": http.StatusNotFound,
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.Header.Set("X-Auth-Token", "acme")
		s.ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("%s: answer %d, want %d", path, w.Code, status)
		}
	}
}
