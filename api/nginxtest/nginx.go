// Package nginxtest puts a real nginx before a server, for tests.
package nginxtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"batchreset/cmd/harness"
	"batchreset/cmd/harness/certs"
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
	return "http://" + start(t, t.TempDir(), "", server)
}

// StartTLS is Start for an nginx that speaks TLS and HTTP/2, with a certificate that nobody vouches for.
func StartTLS(t testing.TB, server string) (url string) {
	t.Helper()
	dir := t.TempDir()
	pair, err := certs.NewAuthority(certs.Subject{CommonName: "nginxtest"})
	if err == nil {
		err = pair.Write(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return "https://" + start(t, dir, " ssl http2", fmt.Sprintf("ssl_certificate %[1]s/cert.pem; ssl_certificate_key %[1]s/key.pem;\n\t\t%s", dir, server))
}

// start starts nginx and returns where it listens. how is what its listen directive says besides.
func start(t testing.TB, dir, how, server string) (address string) {
	t.Helper()
	address, err := harness.FreeAddr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, dir, address+how, server), 0o600); err != nil {
		t.Fatal(err)
	}
	nginx, err := harness.Start(context.WithoutCancel(t.Context()), harness.Command{
		Name: "nginx", Args: []string{program(t), "-p", dir, "-e", "stderr", "-c", file}, Log: filepath.Join(dir, "log"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nginx.Kill)
	if err := nginx.WaitReady(t.Context(), 30*time.Second, func(ctx context.Context) error {
		return harness.Listens(ctx, address)
	}); err != nil {
		t.Fatal(err)
	}
	return address
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
