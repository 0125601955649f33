// Package nginxtest puts a real nginx before a server, for tests.
package nginxtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// config has nginx's defaults in everything but where its files are.
const config = `daemon off;
master_process off;
pid %[1]s/pid;
error_log stderr warn;
events {}
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s;
		%[3]s
	}
}
`

// Start starts nginx on a free port of the loopback interface and returns its URL. server is
// what its server block has, such as "location / { proxy_pass http://127.0.0.1:9090; }".
// It ends with the test.
func Start(t testing.TB, server string) (url string) {
	t.Helper()
	dir, address := t.TempDir(), freeAddress(t)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, dir, address, server), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t), "-p", dir, "-e", "stderr", "-c", file) //nolint:noctx // ended below
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var why error
	go func() {
		why = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	for !answers(t.Context(), address) {
		select {
		case <-ended:
			t.Fatalf("nginx ended: %v\n%s", why, said.String())
		case <-time.After(10 * time.Millisecond): // until it listens
		}
	}
	return "http://" + address
}

func answers(ctx context.Context, address string) bool {
	connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	return connection.Close() == nil
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func program(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"nginx", "/usr/sbin/nginx", "/opt/homebrew/bin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("this test needs nginx: run .ci/setup, or install your system's nginx package")
	return ""
}
