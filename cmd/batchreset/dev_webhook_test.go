package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestABadWebhookOfDevIsRefusedByName(t *testing.T) {
	command(t, nil, "dev", "--webhook-url", "nowhere").WantError(t, "--webhook-url must be an https URL")
	command(t, nil, "dev", "--webhook-url", "https://93.184.215.14/hooks", "--redis", "redis://127.0.0.1:1").WantError(t, "--redis and --webhook-url do not go together")
}

func TestDevTellsAURL(t *testing.T) {
	r := newReceiver(t)
	r.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := run(ctx, []string{
			"dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--simulator-latency", "10ms", "--webhook-url", "http://" + r.addr,
		}, nil, strings.NewReader(""), in, io.Discard)
		done <- errors.Join(err, in.Close())
	}()
	greeting, secret := "", regexp.MustCompile(`signed with (whsec_\S+)`)
	for lines := bufio.NewScanner(out); !secret.MatchString(greeting) && lines.Scan(); {
		greeting += lines.Text() + "\n"
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // until dev closes it
	server := regexp.MustCompile(`API +(http://\S+)`).FindStringSubmatch(greeting)
	if server == nil || !secret.MatchString(greeting) {
		t.Fatalf("greeting %s", greeting)
	}
	environment := map[string]string{"BATCHRESET_SERVER": server[1], "BATCHRESET_TOKEN": "demo-token"}
	job := strings.TrimSpace(command(t, environment, "submit", "phone-1").OK(t).Out)
	terminaltest.Until(t, "the job is told", func() bool {
		_, taken := r.got()
		return taken[job+"-finished-1"]
	})
	hooks, _ := r.got()
	wantSigned(t, secret.FindStringSubmatch(greeting)[1], hooks)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
