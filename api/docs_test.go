package api_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"batchreset/api/browsertest"
	"batchreset/tasks"
)

// TestTheDocsInABrowser: without a policy, too, the page asks nobody else, so that no
// browser has to be trusted to enforce it. Pictures: see browsertest.
func TestTheDocsInABrowser(t *testing.T) {
	t.Parallel()
	s := newService(t, testConfig)
	for _, row := range []struct {
		name, body string
		handler    http.Handler
		more       []string
	}{
		{"light", "light-mode", s, []string{"--blink-settings=preferredColorScheme=1"}},
		{"dark", "dark-mode", s, []string{"--blink-settings=preferredColorScheme=0"}},
		{"phone", "light-mode", withoutPolicy(s), []string{"--blink-settings=preferredColorScheme=1", "--window-size=390,844"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := httptest.NewServer(row.handler)
			defer server.Close()
			page := browsertest.Open(t, server.URL+"/docs", "docs-"+row.name, row.more...)
			for _, want := range []string{"Reset instances", "Read the job status record", "/v1/jobs/{job_id}/events"} {
				if !strings.Contains(page.DOM, want) {
					t.Errorf("the page does not show %q", want)
				}
			}
			if body := regexp.MustCompile(`<body[^>]*>`).FindString(page.DOM); !strings.Contains(body, row.body) {
				t.Errorf("%s, want the class %s", body, row.body)
			}
			for _, message := range page.Console {
				if !strings.HasPrefix(message, "@scalar/api-reference@") { // its greeting
					t.Errorf("on the console: %s", message)
				}
			}
			if !slices.Contains(page.Requests, server.URL+"/openapi.yaml") {
				t.Errorf("the page has asked for %v, not for the contract", page.Requests)
			}
			for _, url := range page.Requests {
				if !strings.HasPrefix(url, server.URL+"/") && !strings.HasPrefix(url, "data:") {
					t.Errorf("the page has asked for %s", url)
				}
			}
			for _, link := range regexp.MustCompile(`href="https?://[^"]*"`).FindAllString(page.DOM, -1) {
				if link != `href="https://www.scalar.com"` { // which page.js hides
					t.Errorf("the page leads to %s", link)
				}
			}
			for _, button := range []string{"Ask AI", "Deploy", "Generate MCP", "Open API Client", "Test Request"} {
				if strings.Contains(page.DOM, button) {
					t.Errorf("the page has %q", button)
				}
			}
		})
	}
}

// What the page shows for copying can be sent as it is, with a token and a job of one's own; and
// a batch with other IDs after that is another batch.
func TestTheExamplesOfTheDocsCanBeSent(t *testing.T) {
	t.Parallel()
	s := proving(t)
	server := httptest.NewServer(s)
	defer server.Close()
	page := browsertest.Open(t, server.URL+"/docs", "docs-examples", "--window-size=1400,6000")
	shown := 0
	for _, block := range regexp.MustCompile(`(?s)<pre[^>]*>(.*?)</pre>`).FindAllStringSubmatch(page.DOM, -1) {
		text := html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(block[1], ""))
		command, isCurl := strings.CutPrefix(text, "curl ")
		if !isCurl || strings.Contains(command, "/events") { // which does not end
			continue
		}
		shown++
		method, path, header, body := curl(t, strings.TrimPrefix(command, "'"), server.URL)
		if header.Get("Idempotency-Key") != "" {
			t.Errorf("%s %s has a key that is everybody's", method, path)
		}
		job := s.submit(t, fmt.Sprint("phone-", shown))
		if strings.HasSuffix(path, "/retry") || strings.HasSuffix(path, "/proof") {
			s.do(t, http.MethodPost, "/v1/jobs/"+job+"/cancel", "acme", nil)
		}
		path = strings.Replace(path, "5f9c1f0f3a5e4b0d8c7a6b5c4d3e2f10", job, 1)
		header.Del("Prefer") // which is for what goes on
		sent := []string{}
		for name := range header {
			sent = append(sent, name, header.Get(name))
		}
		if got := s.raw(t, method, path, "", strings.NewReader(body), append(sent, "X-Auth-Token", "acme")...); got.Code != http.StatusOK {
			t.Errorf("%s %s: answer %d %s", method, path, got.Code, got.Body)
		}
	}
	if shown < 6 {
		t.Errorf("the page shows %d examples", shown)
	}
}

// curl takes apart a command that Scalar shows.
func curl(t *testing.T, command, server string) (method, path string, header http.Header, body string) {
	t.Helper()
	path, more, _ := strings.Cut(strings.TrimPrefix(command, server), " \\\n")
	path = strings.TrimSuffix(strings.TrimSpace(path), "'")
	method, header = http.MethodGet, http.Header{}
	for _, option := range regexp.MustCompile(`(?s)--(\w+) ('.*?'|\S+)`).FindAllStringSubmatch(more, -1) {
		value := strings.Trim(option[2], "'")
		switch option[1] {
		case "request":
			method = value
		case "header":
			name, text, _ := strings.Cut(value, ": ")
			header.Set(name, text)
		case "data":
			body = value
		default:
			t.Errorf("%s has the option --%s", path, option[1])
		}
	}
	return method, path, header, body
}

// withoutPolicy takes the Content-Security-Policy off every answer.
func withoutPolicy(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(policyless{w}, r) })
}

type policyless struct{ http.ResponseWriter }

func (w policyless) WriteHeader(status int) {
	w.Header().Del("Content-Security-Policy")
	w.ResponseWriter.WriteHeader(status)
}

func TestTheFilesOfTheDocs(t *testing.T) {
	s := newService(t, testConfig)
	for path, contentType := range map[string]string{
		"/docs": "text/html; charset=utf-8", "/docs/page.js": "text/javascript; charset=utf-8",
		"/docs/scalar.js": "text/javascript; charset=utf-8", "/docs/scalar-license.txt": "text/plain; charset=utf-8",
		"/openapi.yaml": "application/yaml",
	} {
		r := s.raw(t, http.MethodGet, path, "", nil)
		h := r.Header()
		if r.Code != http.StatusOK || r.Body.Len() == 0 || h.Get("Content-Type") != contentType || h.Get("Cache-Control") != "no-cache" ||
			h.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(h.Get("Content-Security-Policy"), "default-src 'none'; ") {
			t.Errorf("%s: answer %d %v", path, r.Code, h)
		}
		again := s.raw(t, http.MethodGet, path, "", nil, "If-None-Match", h.Get("ETag"))
		if again.Code != http.StatusNotModified || again.Body.Len() != 0 || again.Header().Get("ETag") != h.Get("ETag") {
			t.Errorf("%s again: answer %d %v", path, again.Code, again.Header())
		}
	}
	for _, path := range []string{"/docs/index.html", "/docs/scalar.js.gz", "/docs/..%2fopenapi.yaml", "/docs/"} {
		if got := s.do(t, http.MethodGet, path, "", nil); got.status != http.StatusNotFound || got.Code != tasks.NoRoute {
			t.Errorf("%s: answer %+v", path, got)
		}
	}
}

func TestScalarIsCompressedForThoseWhoAcceptThat(t *testing.T) {
	origin, err := os.ReadFile("docs/scalar.txt")
	if err != nil {
		t.Fatal(err)
	}
	s := newService(t, testConfig)
	for accepts, compressed := range map[string]bool{
		"gzip": true, "deflate, GZIP;q=0.5, br": true, "gzip;q=0": false, "gzip;q=x": false, "br": false, "": false,
	} {
		r := s.raw(t, http.MethodGet, "/docs/scalar.js", "", nil, "Accept-Encoding", accepts)
		if r.Code != http.StatusOK || (r.Header().Get("Content-Encoding") == "gzip") != compressed || r.Header().Get("Vary") != "Accept-Encoding" {
			t.Errorf("%q: answer %d %v", accepts, r.Code, r.Header())
		}
		script := r.Body.Bytes()
		if compressed {
			plain, err := gzip.NewReader(bytes.NewReader(script))
			if err == nil {
				script, err = io.ReadAll(plain)
			}
			if err != nil {
				t.Fatalf("%q: %v", accepts, err)
			}
		}
		if sum := fmt.Sprintf("%x", sha256.Sum256(script)); !bytes.Contains(origin, []byte(sum)) {
			t.Errorf("%q: the SHA-256 %s is not in docs/scalar.txt", accepts, sum)
		}
	}
}

// Anybody may ask for it, as often as they like.
func TestScalarIsUnpackedOnce(t *testing.T) {
	s := newService(t, testConfig)
	ask := func() {
		s.ServeHTTP(discard{http.Header{}}, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/docs/scalar.js", nil))
	}
	ask()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const times = 100
	for range times {
		ask()
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / times; each > 100_000 {
		t.Errorf("each time it takes %d bytes of memory", each)
	}
}

// discard is an http.ResponseWriter that keeps nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header { return d.header }

func (d discard) WriteHeader(int) {}

func (d discard) Write(p []byte) (int, error) { return len(p), nil }
