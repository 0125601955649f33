package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
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

// redisFiles is a folder with the files of deploy/redis, with passwords put in, and with certificates by
// deploy/redis/make-certificates, as their documentation says.
type redisFiles struct {
	*testing.T
	dir string
}

// placeholder is a password that somebody has to put in.
var placeholder = regexp.MustCompile(`\b[A-Z]+_PASSWORD\b`)

func newRedisFiles(t *testing.T) redisFiles {
	t.Helper()
	f := redisFiles{t, t.TempDir()}
	for _, name := range []string{"redis.conf", "cluster.conf", "tls.conf", "sentinel.conf", "users.acl", "replication.acl"} {
		text := placeholder.ReplaceAllStringFunc(readFile(t, "../../deploy/redis/"+name), strings.ToLower)
		// What is included is found where the test has put it.
		f.write(name, strings.NewReplacer("/etc/redis/", f.dir+"/", "dir /var/lib/redis-sentinel", "dir "+f.dir, "dir /var/lib/redis", "dir "+f.dir).Replace(text))
	}
	f.write("users.acl", readFile(t, f.path("users.acl"))+readFile(t, f.path("replication.acl")))
	out, err := exec.CommandContext(t.Context(), "../../deploy/redis/make-certificates", f.path("tls"), "DNS:localhost", "IP:127.0.0.1").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return f
}

func (f redisFiles) path(name string) string { return filepath.Join(f.dir, name) }

func (f redisFiles) write(name, text string) {
	f.Helper()
	if err := os.WriteFile(f.path(name), []byte(text), 0o600); err != nil {
		f.Fatal(err)
	}
}

// run starts a redis-server with a file, tls.conf and what each server has of its own, and returns its address.
func (f redisFiles) run(file string, flags ...string) (*harness.Process, string) {
	f.Helper()
	addr, err := harness.FreeAddr(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(addr)
	dir := f.TempDir()
	args := []string{"redis-server", f.path(file)}
	if file == "sentinel.conf" { // it writes into its own copy
		args[1] = filepath.Join(dir, file)
		if err := os.WriteFile(args[1], []byte(readFile(f.T, f.path(file))), 0o600); err != nil {
			f.Fatal(err)
		}
		args = append(args, "--sentinel")
	}
	args = append(args, "--include", f.path("tls.conf"), "--bind", "127.0.0.1", "--dir", dir, "--port", "0", "--tls-port", port)
	p, err := harness.Start(context.WithoutCancel(f.Context()), harness.Command{Name: file, Args: append(args, flags...), Dir: dir, Log: filepath.Join(dir, "log")})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		p.Kill()
		if f.Failed() {
			log := readFile(f.T, filepath.Join(dir, "log"))
			f.Logf("%s at %s: %s", file, addr, log[max(0, len(log)-1500):])
		}
	})
	if err := p.WaitReady(f.Context(), patience, func(ctx context.Context) error { return harness.Listens(ctx, addr) }); err != nil {
		f.Fatal(err)
	}
	return p, addr
}

// cli asks a server with redis-cli, as the documentation does.
func (f redisFiles) cli(addr, user, password string, args ...string) (string, error) {
	host, port, _ := net.SplitHostPort(addr)
	all := []string{"-h", host, "-p", port, "--user", user, "--tls", "--cacert", f.path("tls/ca.crt"), "--cert", f.path("tls/client.crt"), "--key", f.path("tls/client.key")}
	cmd := exec.CommandContext(f.Context(), "redis-cli", append(all, args...)...)
	cmd.Env = append(os.Environ(), "REDISCLI_AUTH="+password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// until asks until the answer has what is wanted.
func (f redisFiles) until(want, addr, user, password string, args ...string) {
	f.Helper()
	last := ""
	if harness.Until(f.Context(), patience, func(ctx context.Context) error {
		if last, _ = f.cli(addr, user, password, args...); strings.Contains(last, want) {
			return nil
		}
		harness.Pause(ctx, 100*time.Millisecond)
		return errors.New("not yet")
	}) != nil {
		f.Fatalf("%v answers %s, want %q", args, last, want)
	}
}

// serve runs an api and a worker, each as its own Redis user, and resets an instance. again does that once more.
func (f redisFiles) serve(scheme string, hosts []string, parameters url.Values) (again func()) {
	f.Helper()
	of := func(user string) string {
		q := url.Values{"cacert": {f.path("tls/ca.crt")}, "cert": {f.path("tls/client.crt")}, "key": {f.path("tls/client.key")}}
		maps.Copy(q, parameters)
		u := url.URL{Scheme: scheme, User: url.UserPassword(user, user+"_password"), Host: strings.Join(hosts, ","), RawQuery: q.Encode()}
		f.write(user+"-url", u.String())
		return f.path(user + "-url")
	}
	environment := map[string]string{"BATCHRESET_REDIS_FILE": of("operator"), "BATCHRESET_REDIS_PATIENCE": "30s"}
	f.write("password", "correct horse battery\n")
	command(f.T, environment, "operator", "add", "alice", "--password-file", f.path("password")).OK(f.T) // or api and worker would want to invite one
	api := start(f.T, "api", "--redis-file", of("api"), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	environment["BATCHRESET_SERVER"], _ = api.logged("api started")["api"].(string)
	worker := start(f.T, "worker", "--redis-file", of("worker"), "--ops-listen", "127.0.0.1:0", "--driver", "simulator", "--simulator-latency", "10ms")
	worker.logged("worker started")
	f.Cleanup(func() {
		if !f.Failed() {
			worker.stop()
			api.stop()
		}
	})
	environment["BATCHRESET_TOKEN"] = strings.TrimSpace(command(f.T, environment, "token", "add", "--tenant", "acme").OK(f.T).Out)
	resets := 0
	again = func() {
		f.Helper()
		resets++
		phone := fmt.Sprintf("phone-%d", resets)
		soon(f.T, func() error { // while a primary is replaced, the answer is 500; under one ID the repeat resets nothing twice
			return command(f.T, environment, "submit", "--wait", "--run-id", phone, phone).Err
		})
	}
	again()
	return again
}

// refusedNothing looks whether a user may not do what it must.
func (f redisFiles) refusedNothing(addr string) {
	f.Helper()
	out, err := f.cli(addr, "default", "default_password", "ACL", "LOG")
	if err != nil {
		f.Error(err)
	}
	lines := strings.Split(out, "\n")
	for i, line := range lines[:len(lines)-1] {
		if line == "object" && lines[i+1] != "config|get" { // which has Redis's passwords; the overview does without
			f.Errorf("%s has refused %s:\n%s", addr, lines[i+1], out)
		}
	}
}

func TestTheDocumentedRedis(t *testing.T) {
	t.Parallel()
	f := newRedisFiles(t)
	_, addr := f.run("redis.conf")
	f.serve("rediss", []string{addr}, nil)
	f.refusedNothing(addr)
	for name, want := range map[string]string{"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "maxmemory": "1073741824", "save": ""} {
		if out, err := f.cli(addr, "default", "default_password", "CONFIG", "GET", name); err != nil || strings.TrimSpace(out) != strings.TrimSpace(name+"\n"+want) {
			t.Errorf("%s is %q, %v", name, out, err)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "redis-cli", "-u", "redis://"+addr, "PING").CombinedOutput(); err == nil && strings.Contains(string(out), "PONG") {
		t.Errorf("it answers without TLS: %s", out)
	}
}

// The dead primary is replaced, and api and worker follow.
func TestTheDocumentedSentinels(t *testing.T) {
	t.Parallel()
	f := newRedisFiles(t)
	primary, first := f.run("redis.conf")
	host, port, _ := net.SplitHostPort(first)
	for range 2 {
		f.run("redis.conf", "--replicaof", host, port)
	}
	f.until("connected_slaves:2", first, "default", "default_password", "INFO", "replication")
	f.write("sentinel.conf", strings.Replace(readFile(t, f.path("sentinel.conf")), "PRIMARY 6379", host+" "+port, 1))
	var sentinels []string
	for range 3 {
		_, addr := f.run("sentinel.conf")
		sentinels = append(sentinels, addr)
	}
	for _, addr := range sentinels {
		f.until("OK 3 usable Sentinels", addr, "admin", "admin_password", "SENTINEL", "CKQUORUM", "reset")
		f.until("num-slaves\n2", addr, "admin", "admin_password", "SENTINEL", "MASTER", "reset")
	}
	again := f.serve("rediss-sentinel", sentinels, url.Values{"master": {"reset"}, "sentinel_username": {"batchreset"}, "sentinel_password": {"batchreset_password"}})
	f.refusedNothing(first)
	began := time.Now()
	primary.Kill()
	again()
	t.Logf("a reset that was asked for when the primary died ended after %s", time.Since(began).Round(100*time.Millisecond))
	now, err := f.cli(sentinels[0], "admin", "admin_password", "SENTINEL", "GET-MASTER-ADDR-BY-NAME", "reset")
	if err != nil || strings.Contains(now, port) {
		t.Errorf("the primary is %s, %v", now, err)
	}
}

func TestTheDocumentedCluster(t *testing.T) {
	t.Parallel()
	f := newRedisFiles(t)
	var nodes []*harness.Process
	var addrs, withBus []string
	for range 6 {
		bus, err := harness.FreeAddr(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, busPort, _ := net.SplitHostPort(bus)
		node, addr := f.run("cluster.conf", "--cluster-port", busPort)
		nodes, addrs, withBus = append(nodes, node), append(addrs, addr), append(withBus, addr+"@"+busPort)
	}
	args := append([]string{"--cluster", "create"}, withBus...)
	if out, err := f.cli(addrs[0], "default", "default_password", append(args, "--cluster-replicas", "1", "--cluster-yes")...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, addr := range addrs {
		f.until("cluster_state:ok", addr, "default", "default_password", "CLUSTER", "INFO")
		f.until("master_link_status:up", addrs[5], "default", "default_password", "INFO", "replication")
	}
	again := f.serve("rediss-cluster", addrs, nil)
	for _, addr := range addrs {
		f.refusedNothing(addr)
	}
	began := time.Now()
	nodes[0].Kill()
	again()
	t.Logf("a reset that was asked for when a primary died ended after %s", time.Since(began).Round(100*time.Millisecond))
}
