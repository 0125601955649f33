package main

import (
	"regexp"
	"strings"
	"testing"

	"batchreset/cmd/harness"
)

func TestABadWebhookOfDevIsRefusedByName(t *testing.T) {
	command(t, nil, "dev", "--webhook-url", "nowhere").WantError(t, "--webhook-url must be an https URL")
	command(t, nil, "dev", "--webhook-url", "https://93.184.215.14/hooks", "--redis", "redis://127.0.0.1:1").WantError(t, "--redis and --webhook-url do not go together")
}

func TestDevTellsAURL(t *testing.T) {
	r := newReceiver(t)
	r.open(t)
	secret := regexp.MustCompile(`signed with (whsec_\S+)`)
	greeting := startDev(t, secret, "--webhook-url", "http://"+r.addr)
	server := regexp.MustCompile(`API +(http://\S+)`).FindStringSubmatch(greeting)
	if server == nil || !secret.MatchString(greeting) {
		t.Fatalf("greeting %s", greeting)
	}
	environment := map[string]string{"BATCHRESET_SERVER": server[1], "BATCHRESET_TOKEN": "demo-token"}
	job := strings.TrimSpace(command(t, environment, "submit", "phone-1").OK(t).Out)
	harness.Eventually(t, patience, "the job is told", func() bool {
		_, taken := r.got()
		return taken[job+"-finished-1"]
	})
	hooks, _ := r.got()
	wantSigned(t, secret.FindStringSubmatch(greeting)[1], hooks)
}
