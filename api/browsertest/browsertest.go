// Package browsertest opens pages in headless Chromium, for tests.
package browsertest

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// Page is what became of a page.
type Page struct {
	// DOM is what its scripts have made of it.
	DOM string
	// Console is all that it wrote there: messages, errors that nobody caught, and
	// what its policy forbade.
	Console []string
	// Requests are the URLs that it asked for, of whatever server.
	Requests []string
}

// Open shows a page in Chromium, for which nothing but loopback exists, and lets 8
// seconds of the page's time pass, which are less of ours. With SCREENSHOTS set, a
// picture goes into that folder under the name. More are arguments for Chromium.
func Open(t testing.TB, url, name string, more ...string) Page {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	dir := t.TempDir()
	netLog := filepath.Join(dir, "net.json")
	args := append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--disable-dev-shm-usage", "--window-size=1400,900", "--virtual-time-budget=8000",
		"--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
		"--user-data-dir=" + filepath.Join(dir, "profile"),
		"--enable-logging=stderr", "--log-net-log=" + netLog,
	}, more...)
	run := func(more ...string) (stdout, stderr string) {
		cmd := exec.CommandContext(ctx, browser(t), append(args, more...)...)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		cmd.WaitDelay = 5 * time.Second
		if err := cmd.Run(); err != nil {
			t.Fatalf("chromium: %v\n%s", err, errs.String())
		}
		return out.String(), errs.String()
	}
	if folder := os.Getenv("SCREENSHOTS"); folder != "" {
		run("--screenshot="+filepath.Join(folder, name+".png"), url)
	}
	dom, logged := run("--dump-dom", url)
	p := Page{DOM: dom, Requests: requests(t, netLog)}
	for _, message := range consoleLine.FindAllStringSubmatch(logged, -1) {
		p.Console = append(p.Console, message[1])
	}
	return p
}

// consoleLine is a message of a page in Chromium's log, where it may have several lines.
var consoleLine = regexp.MustCompile(`(?s):CONSOLE:\d+\] "(.*?)", source: `)

// requests reads what a page asked for from Chromium's log of the network. What it
// asked for itself (the page's own address, updates, the time) has no origin.
func requests(t testing.TB, netLog string) []string {
	t.Helper()
	raw, err := os.ReadFile(netLog)
	if err != nil {
		t.Fatal(err)
	}
	var log struct {
		Constants struct {
			LogEventTypes map[string]int `json:"logEventTypes"`
		} `json:"constants"`
		Events []struct {
			Type   int `json:"type"`
			Params struct {
				URL       string `json:"url"`
				Initiator string `json:"initiator"`
			} `json:"params"`
		} `json:"events"`
	}
	if err := json.Unmarshal(raw, &log); err != nil {
		t.Fatalf("chromium's log of the network: %v", err)
	}
	start, known := log.Constants.LogEventTypes["URL_REQUEST_START_JOB"]
	if !known {
		t.Fatal("chromium's log of the network has changed: there is no URL_REQUEST_START_JOB")
	}
	var urls []string
	for _, e := range log.Events {
		if e.Type == start && e.Params.URL != "" && e.Params.Initiator != "not an origin" {
			urls = append(urls, e.Params.URL)
		}
	}
	return urls
}

func browser(t testing.TB) string {
	t.Helper()
	for _, name := range []string{
		"chromium", "chromium-browser", "google-chrome",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
		"/Applications/Chromium.app/Contents/MacOS/Chromium",
	} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("this test needs Chromium: run .ci/setup, or install your system's chromium package")
	return ""
}
