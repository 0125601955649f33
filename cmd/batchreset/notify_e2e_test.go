package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestDevTellsOperators has a run wait for approval, and hears of it.
func TestDevTellsOperators(t *testing.T) {
	heard := make(chan string, 10)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		heard <- string(body)
	}))
	t.Cleanup(receiver.Close)
	urls := filepath.Join(t.TempDir(), "urls.txt")
	if err := os.WriteFile(urls, []byte(receiver.URL+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	redis := regexp.MustCompile(`fleet list --redis (redis://\S+)`)
	greeting := startDev(t, redis, "--notify-url-file", urls, "--ops-url", "https://reset.example")
	server := regexp.MustCompile(`API +(http://\S+)`).FindStringSubmatch(greeting)
	if server == nil {
		t.Fatalf("greeting %s", greeting)
	}
	environment := map[string]string{"BATCHRESET_SERVER": server[1], "BATCHRESET_TOKEN": "demo-token"}
	run := strings.TrimSpace(command(t, environment, "run", "submit", "phone-1", "--approval").OK(t).Out)
	select {
	case message := <-heard:
		if !strings.Contains(message, "waits for approval") || !strings.Contains(message, "https://reset.example/runs/"+run) {
			t.Errorf("heard %s, of the run %s", message, run)
		}
	case <-time.After(time.Minute):
		t.Fatal("nothing was heard")
	}
}
