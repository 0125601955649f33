package api_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"batchreset/api"
	"batchreset/api/browsertest"
	"batchreset/tasks"
)

func TestTheFrontPage(t *testing.T) {
	s := newService(t, api.Config{Version: "v1.2.3"})
	const asJSON = `{"error_code":"0","error_msg":"ok","data":{"service":"batchreset","version":"v1.2.3","docs":"./docs","openapi":"./openapi.yaml"}}` + "\n"
	for accept, page := range map[string]bool{
		"": false, "*/*": false, "application/json": false, "text/html;q=0, */*": false, "application/json, text/html;q=0.9": false, "nonsense;;": false,
		"text/html": true, "Text/HTML": true, "text/html;charset=utf-8": true, "application/json;q=0.5, text/html": true,
		"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8": true,
	} {
		got := s.raw(t, http.MethodGet, "/", "", nil, "Accept", accept)
		isPage := strings.HasPrefix(got.Body.String(), "<!doctype html>") && got.Header().Get("Content-Type") == "text/html; charset=utf-8"
		if got.Code != http.StatusOK || isPage != page || !page && got.Body.String() != asJSON || got.Header().Get("Vary") != "Accept" {
			t.Errorf("Accept: %s: %d %v %s", accept, got.Code, got.Header(), got.Body)
		}
		for _, want := range []string{"v1.2.3", "./docs", "./openapi.yaml"} {
			if !strings.Contains(got.Body.String(), want) {
				t.Errorf("Accept: %s: the answer does not say %s", accept, want)
			}
		}
		again := s.raw(t, http.MethodGet, "/", "", nil, "Accept", accept, "If-None-Match", got.Header().Get("ETag"))
		if again.Code != http.StatusNotModified {
			t.Errorf("Accept: %s: again: %d", accept, again.Code)
		}
	}
}

func TestHealthSaysTheVersion(t *testing.T) {
	got := newService(t, api.Config{Version: "v1.2.3"}).raw(t, http.MethodGet, "/healthz", "", nil)
	if want := `{"error_code":"0","error_msg":"ok","data":{"version":"v1.2.3"}}` + "\n"; got.Code != http.StatusOK || got.Body.String() != want {
		t.Errorf("%d %s", got.Code, got.Body)
	}
}

func TestTheFrontPageTakesNoQuery(t *testing.T) {
	got := newService(t, testConfig).do(t, http.MethodGet, "/?token=x", "", nil)
	if got.status != http.StatusBadRequest || got.Code != tasks.BadRequest || !strings.Contains(got.Message, `"token"`) {
		t.Errorf("answer %+v", got)
	}
}

// Pictures: see browsertest.
func TestTheFrontPageInABrowser(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(newService(t, api.Config{Version: "v1.2.3"}))
	defer server.Close()
	for name, more := range map[string][]string{
		"front-light": {"--blink-settings=preferredColorScheme=1"},
		"front-dark":  {"--blink-settings=preferredColorScheme=0", "--window-size=390,844"},
	} {
		page := browsertest.Open(t, server.URL+"/", name, more...)
		if !strings.Contains(page.DOM, "Documentation") || len(page.Console) > 0 || len(page.Requests) != 0 {
			t.Errorf("%s: %v %v %s", name, page.Console, page.Requests, page.DOM)
		}
	}
}

// With 'wget --spider', load balancers and uptime checks in mind.
func TestHEADAnswersLikeGET(t *testing.T) {
	server := httptest.NewServer(newService(t, testConfig))
	defer server.Close()
	ask := func(method, path, encoding string) (int, http.Header, []byte) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("x-request-id", "same")
		r.Header.Set("Accept-Encoding", encoding)
		response, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		response.Header.Del("Date")
		return response.StatusCode, response.Header, body
	}
	for _, path := range []string{"/", "/healthz", "/readyz?from=probe", "/openapi.yaml", "/docs", "/docs/page.js", "/docs/scalar.js", "/docs/scalar-license.txt", "/docs?x=1"} {
		for _, encoding := range []string{"identity", "gzip"} {
			status, header, body := ask(http.MethodGet, path, encoding)
			headStatus, headHeader, headBody := ask(http.MethodHead, path, encoding)
			if len(body) == 0 || len(headBody) != 0 || headStatus != status || !maps.EqualFunc(header, headHeader, func(a, b []string) bool { return strings.Join(a, ",") == strings.Join(b, ",") }) {
				t.Errorf("%s: GET %d %v, HEAD %d %v", path, status, header, headStatus, headHeader)
			}
			if header.Get("Content-Length") == "" {
				t.Errorf("%s: no Content-Length", path)
			}
		}
	}
	if status, _, _ := ask(http.MethodHead, "/v1/jobs", "identity"); status != http.StatusMethodNotAllowed {
		t.Errorf("HEAD /v1/jobs: %d", status)
	}
}
