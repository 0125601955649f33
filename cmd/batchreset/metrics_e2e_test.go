package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"batchreset/cmd/harness/certs"
	"batchreset/tasks/redisdb/redistest"
)

// ours are the names of our metrics in a text, as the process knows them.
func ours(text string) []string {
	names := regexp.MustCompile(`\bbatchreset_[a-z_]+`).FindAllString(text, -1)
	for i, name := range names {
		names[i] = regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, "")
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func TestPrometheusScrapesTheService(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t).URL()
	api := start(t, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	started := api.logged("api started")
	server, _ := started["api"].(string)
	apiOps, _ := started["ops"].(string)
	receivers := filepath.Join(t.TempDir(), "urls.txt") // who is told nothing, because nothing is wrong
	if err := os.WriteFile(receivers, []byte("http://127.0.0.1:9/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	worker := start(t, "worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "simulator", "--simulator-latency", "10ms", "--notify-url-file", receivers)
	workerOps, _ := worker.logged("worker starting")["ops"].(string)
	prometheus := startPrometheus(t, apiOps, workerOps)

	environment := map[string]string{"BATCHRESET_REDIS": redis, "BATCHRESET_SERVER": server}
	token := strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme-corp").OK(t).Out)
	environment["BATCHRESET_TOKEN"] = token
	job := strings.Fields(command(t, environment, "submit", "--wait", "phone-17", "phone-18").OK(t).Out)[0]

	scraped := ""
	for _, ops := range []string{apiOps, workerOps} {
		body, err := fetch(t.Context(), ops+"/metrics")
		if err != nil {
			t.Fatal(err)
		}
		t.Run("metrics are named as Prometheus wants it", func(t *testing.T) {
			check := exec.CommandContext(t.Context(), tool(t, "promtool"), "check", "metrics")
			check.Stdin = strings.NewReader(body)
			if out, err := check.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
		scraped += body
	}
	secured := startSecured(t, certs.Subject{}) // which has one more
	_, body, err := ask(t, secured.client(t, nil), secured.site+"/metrics", "")
	if err != nil {
		t.Fatal(err)
	}
	scraped += body
	t.Run("no metric names a job, an instance, a tenant or a token", func(t *testing.T) {
		for _, secret := range []string{job, "phone-17", "acme-corp", token} {
			if strings.Contains(scraped, secret) {
				t.Errorf("%q is there", secret)
			}
		}
	})
	t.Run("every metric is documented", func(t *testing.T) {
		if got, want := ours(readFile(t, "../../deploy/METRICS.md")), ours(scraped); !slices.Equal(got, want) {
			t.Errorf("it has\n%s\nand there are\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
	t.Run("alerts and runbook go by metrics that exist", func(t *testing.T) {
		for _, file := range []string{rulesFile, rulesTestFile, runbookFile} {
			for _, name := range ours(readFile(t, file)) {
				if !strings.Contains(scraped, "# TYPE "+name+" ") {
					t.Errorf("%s: there is no %s", file, name)
				}
			}
		}
	})
	t.Run("every query of the dashboard finds its series, with the labels of its legend", func(t *testing.T) {
		soon(t, func() error { return checkDashboard(t, prometheus) })
	})
	// Others could fire on a machine that is slow: latency, for one.
	lost := []string{"BatchresetNoWorker", "BatchresetWorkerLost"}
	t.Run("no worker is missed while it runs", func(t *testing.T) {
		soon(t, func() error {
			names, err := prometheus.firing(t)
			if slices.ContainsFunc(names, func(name string) bool { return slices.Contains(lost, name) }) {
				err = fmt.Errorf("%v fire", names)
			}
			return err
		})
	})
	t.Run("alerts fire when it is killed", func(t *testing.T) {
		worker.Kill()
		if err := <-worker.done; err == nil {
			t.Error("a killed worker exits with 0")
		}
		soon(t, func() error {
			names, err := prometheus.firing(t)
			for _, name := range lost {
				if !slices.Contains(names, name) {
					err = errors.Join(err, fmt.Errorf("%s does not fire, %v do", name, names))
				}
			}
			return err
		})
	})
	api.stop()
}

// checkDashboard asks Prometheus for everything that the dashboard shows.
func checkDashboard(t *testing.T, p promServer) error {
	t.Helper()
	var dashboard struct {
		Annotations struct{ List []struct{ Name, Expr string } }
		Panels      []struct {
			Title   string
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal([]byte(readFile(t, dashboardFile)), &dashboard); err != nil {
		t.Fatal(err)
	}
	if len(dashboard.Panels) == 0 {
		t.Fatal("the dashboard is empty")
	}
	all := strings.NewReplacer("$__rate_interval", "1m", "$job", ".*", "$instance", ".*")
	for _, annotation := range dashboard.Annotations.List {
		if _, err := p.query(t, annotation.Expr); err != nil {
			t.Fatalf("%s: %s: %v", annotation.Name, annotation.Expr, err)
		}
	}
	var missing []error
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			series, err := p.query(t, all.Replace(target.Expr))
			if err != nil {
				t.Fatalf("%s: %s: %v", panel.Title, target.Expr, err)
			}
			if len(series) == 0 {
				missing = append(missing, fmt.Errorf("%s: nothing for %s", panel.Title, target.Expr))
				continue
			}
			for _, label := range regexp.MustCompile(`{{(\w+)}}`).FindAllStringSubmatch(target.LegendFormat, -1) {
				if series[0][label[1]] == "" {
					t.Fatalf("%s: no label %s for %s", panel.Title, label[1], target.Expr)
				}
			}
		}
	}
	return errors.Join(missing...)
}
