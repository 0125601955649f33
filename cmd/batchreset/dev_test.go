package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal"
)

// startDev runs dev in this process until it has printed something, and returns what it has
// printed until then. The test ends it.
func startDev(t *testing.T, something *regexp.Regexp, args ...string) (greeting string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		root := newRootCommand(&terminal.Streams{In: strings.NewReader(""), Out: in, Err: io.Discard})
		args := append([]string{"dev", "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--simulator-latency", "10ms"}, args...)
		done <- errors.Join(terminal.Execute(ctx, root, args), in.Close())
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for lines := bufio.NewScanner(out); !something.MatchString(greeting) && lines.Scan(); {
		greeting += lines.Text() + "\n"
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // until dev closes it
	return greeting
}

// TestOperatorsCommandsWorkOnDev gives them the URL that dev prints.
func TestOperatorsCommandsWorkOnDev(t *testing.T) {
	redis := regexp.MustCompile(`fleet list --redis (redis://:(\S+)@(\S+))`)
	greeting := startDev(t, redis)
	url, server := redis.FindStringSubmatch(greeting), regexp.MustCompile(`API +(http://\S+)`).FindStringSubmatch(greeting)
	if url == nil || server == nil {
		t.Fatalf("greeting %s", greeting)
	}
	environment := map[string]string{"BATCHRESET_REDIS": url[1], "BATCHRESET_SERVER": server[1]}
	for _, args := range []string{
		"fleet list", "tenant list", "token list", "webhook list", "operator list", "audit",
		"tenant limit --tenant acme --max-failures 1", "halt --all", "resume --all",
	} {
		command(t, environment, strings.Fields(args)...).OK(t)
	}
	environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(t, environment, "token", "add", "--tenant", "acme").OK(t).Out)
	command(t, environment, "submit", "phone-1", "--wait").OK(t)
	command(t, environment, "token", "list", "--redis", "redis://"+url[3]).WantError(t, "NOAUTH")
	command(t, environment, "token", "list", "--redis", "redis://:wrong@"+url[3]).WantError(t, "WRONGPASS")
}

func TestACommandWithoutARedis(t *testing.T) {
	for _, args := range []string{
		"token list", "token add --tenant acme", "token revoke x", "fleet list", "fleet protect x", "tenant list", "webhook list", "webhook remove x",
		"operator list", "operator remove x", "halt --all", "resume --all", "audit",
	} {
		t.Run(args, func(t *testing.T) {
			t.Parallel() // each of them tries for two seconds
			r := command(t, map[string]string{"BATCHRESET_REDIS": "redis://127.0.0.1:1"}, strings.Fields(args)...)
			r.WantError(t, "--redis: cannot reach Redis")
			r.WantError(t, "'batchreset dev' prints the URL of the one inside it")
			if strings.Contains(r.Err.Error(), "\n") {
				t.Errorf("says in several lines:\n%v", r.Err)
			}
		})
	}
}
