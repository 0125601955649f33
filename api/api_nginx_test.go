package api_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"batchreset/api/nginxtest"
	"batchreset/tasks"
)

// Like most proxies, nginx gives up after 60 s. The poll takes its 50 s while other tests run,
// which come after this one because of the name of its file.
func TestALongPollThroughNginx(t *testing.T) {
	b := newBoard(1)
	a, _ := runOn(t, b, roomy, slog.New(slog.DiscardHandler))
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	proxy := nginxtest.Start(t, "location / { proxy_pass "+server.URL+"; }")
	get := func(path string, header ...string) (*http.Response, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, proxy+path, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("X-Auth-Token", "acme")
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		return http.DefaultClient.Do(r)
	}
	stream, err := get(b.path() + "/events")
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, len("retry: "))
	if _, err := io.ReadFull(stream.Body, first); err != nil || string(first) != "retry: " { // nginx keeps nothing back
		t.Errorf("the stream begins with %q, %v", first, err)
	}
	_ = stream.Body.Close()

	type answer struct {
		*http.Response
		body string
		err  error
	}
	polled := make(chan answer, 1)
	go func() {
		r, err := get(b.path(), "Prefer", "wait=60")
		if err != nil {
			polled <- answer{err: err}
			return
		}
		body, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		polled <- answer{r, string(body), err}
	}()
	t.Parallel()
	got := <-polled
	if got.err != nil {
		t.Fatal(got.err)
	}
	if got.StatusCode != http.StatusOK || got.Header.Get("Preference-Applied") != "wait=50" || !strings.Contains(got.body, string(tasks.JobRunning)) {
		t.Errorf("answer %d %v %s", got.StatusCode, got.Header, got.body)
	}
}
