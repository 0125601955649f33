package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"batchreset/cmd/harness"
)

const (
	rulesFile     = "../../deploy/prometheus/rules.yaml"
	rulesTestFile = "../../deploy/prometheus/rules_test.yaml"
	scrapeFile    = "../../deploy/prometheus/prometheus.yaml"
	dashboardFile = "../../deploy/grafana/batchreset.json"
	runbookFile   = "../../deploy/RUNBOOK.md"
)

// tool is the path of a program of the prometheus package.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("this test needs %s: run .ci/setup, or install your system's prometheus package", name)
	}
	return path
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fetch GETs a URL and returns the body of a 200.
func fetch(ctx context.Context, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	r.Close = true
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(response.Body)
	err = errors.Join(err, response.Body.Close())
	if err == nil && response.StatusCode != http.StatusOK {
		err = errors.New(response.Status + ": " + string(b))
	}
	return string(b), err
}

// soon repeats f until it is content.
func soon(t *testing.T, f func() error) {
	t.Helper()
	if err := harness.Until(t.Context(), patience, func(ctx context.Context) error {
		err := f()
		if err != nil {
			harness.Pause(ctx, 100*time.Millisecond) // Prometheus has other things to do
		}
		return err
	}); err != nil {
		t.Fatalf("it took too long: %v", err)
	}
}

// promServer is a Prometheus that scrapes twice a second what the example in deploy scrapes.
type promServer struct{ url string }

// startPrometheus starts one with our alerts, which wait for a second only.
func startPrometheus(t *testing.T, apiOps, workerOps string) promServer {
	t.Helper()
	dir := t.TempDir()
	config := readFile(t, scrapeFile)
	for from, to := range map[string]string{
		"127.0.0.1:9090": strings.TrimPrefix(apiOps, "http://"), "127.0.0.1:9091": strings.TrimPrefix(workerOps, "http://"), "_interval: 15s": "_interval: 500ms",
	} {
		if !strings.Contains(config, from) {
			t.Fatalf("%s lacks %s", scrapeFile, from)
		}
		config = strings.ReplaceAll(config, from, to)
	}
	rules := regexp.MustCompile(`for: \d+m`).ReplaceAllString(readFile(t, rulesFile), "for: 1s")
	for name, content := range map[string]string{"prometheus.yaml": config, "rules.yaml": rules} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	log := filepath.Join(dir, "log")
	server, err := harness.Start(context.WithoutCancel(t.Context()), harness.Command{
		Name: "prometheus", Log: log,
		Args: []string{
			tool(t, "prometheus"), "--config.file", filepath.Join(dir, "prometheus.yaml"),
			"--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", "127.0.0.1:0",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(30 * time.Second); err != nil {
			t.Errorf("prometheus: %v\n%s", err, readFile(t, log))
		}
	})
	var p promServer
	soon(t, func() error {
		listening := regexp.MustCompile(`msg="Listening on" address=(\S+)`).FindStringSubmatch(readFile(t, log))
		if listening == nil {
			return errors.New("it does not listen:\n" + readFile(t, log))
		}
		p.url = "http://" + listening[1]
		_, err := fetch(t.Context(), p.url+"/-/ready")
		return err
	})
	return p
}

// ask calls Prometheus's API.
func (p promServer) ask(t *testing.T, path string, data any) error {
	t.Helper()
	body, err := fetch(t.Context(), p.url+"/api/v1/"+path)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(body), &struct{ Data any }{data})
}

// query returns the labels of each series that an expression has now.
func (p promServer) query(t *testing.T, expr string) ([]map[string]string, error) {
	t.Helper()
	var data struct {
		Result []struct{ Metric map[string]string }
	}
	err := p.ask(t, "query?query="+url.QueryEscape(expr), &data)
	var series []map[string]string
	for _, r := range data.Result {
		series = append(series, r.Metric)
	}
	return series, err
}

// firing are the alerts that fire.
func (p promServer) firing(t *testing.T) (names []string, err error) {
	t.Helper()
	var data struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	err = p.ask(t, "alerts", &data)
	for _, a := range data.Alerts {
		if a.State == "firing" {
			names = append(names, a.Labels["alertname"])
		}
	}
	return names, err
}
