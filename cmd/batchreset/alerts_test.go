package main

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// alert is a rule of the alerts' file, or what its unit test expects of one.
type alert struct {
	Alert       string
	Labels      map[string]string
	Annotations map[string]string
}

func alerts(t *testing.T) (all []alert) {
	t.Helper()
	var file struct {
		Groups []struct{ Rules []alert }
	}
	if err := yaml.Unmarshal([]byte(readFile(t, rulesFile)), &file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// expectations are how many alerts each alert's unit tests expect, test by test.
func expectations(t *testing.T) map[string][]int {
	t.Helper()
	var file struct {
		Tests []struct {
			Rules []struct {
				Alertname string
				Expected  []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	if err := yaml.Unmarshal([]byte(readFile(t, rulesTestFile)), &file); err != nil {
		t.Fatal(err)
	}
	tested := map[string][]int{}
	for _, test := range file.Tests {
		for _, rule := range test.Rules {
			tested[rule.Alertname] = append(tested[rule.Alertname], len(rule.Expected))
		}
	}
	return tested
}

func TestAlerts(t *testing.T) {
	t.Parallel()
	t.Run("pass their unit tests", func(t *testing.T) {
		if out, err := exec.CommandContext(t.Context(), tool(t, "promtool"), "test", "rules", rulesTestFile).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})

	sections := regexp.MustCompile(`(?m)^### (\w+)\n((?:[^#\n].*\n|\n)*)`).FindAllStringSubmatch(readFile(t, runbookFile), -1)
	tested := expectations(t)
	all := alerts(t)
	if len(all) == 0 {
		t.Fatal("there are none")
	}
	for _, a := range all {
		t.Run(a.Alert, func(t *testing.T) {
			if s := a.Labels["severity"]; s != "page" && s != "ticket" {
				t.Errorf("the severity is %q", s)
			}
			if a.Annotations["summary"] == "" {
				t.Error("it has no summary")
			}
			if got, want := a.Annotations["runbook_url"], "deploy/RUNBOOK.md#"+strings.ToLower(a.Alert); got != want {
				t.Errorf("the runbook_url is %q, want %q", got, want)
			}
			if n := slices.IndexFunc(sections, func(s []string) bool { return s[1] == a.Alert }); n < 0 {
				t.Error("the runbook has no section with its name")
			} else {
				for _, part := range []string{"**Symptom.**", "**Look.**", "**Do.**"} {
					if !strings.Contains(sections[n][2], part) {
						t.Errorf("its section in the runbook lacks %s", part)
					}
				}
			}
			if n := tested[a.Alert]; !slices.Contains(n, 0) || slices.Max(n) == 0 {
				t.Errorf("its unit tests expect %v alerts: they must see it quiet, and see it fire", n)
			}
		})
	}
}
