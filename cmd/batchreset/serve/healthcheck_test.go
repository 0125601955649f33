package serve

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHealthcheckAsksWhereTheProcessListens(t *testing.T) {
	says := func(status int, body string) string {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" {
				status = http.StatusNotFound
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		return strings.TrimPrefix(s.URL, "http://")
	}
	const fine = `{"error_code":"0","error_msg":"ok"}`
	ours, other, ill := says(http.StatusOK, fine), says(http.StatusOK, "hello"), says(http.StatusInternalServerError, fine)
	port := ours[strings.LastIndex(ours, ":"):]
	const closed = "127.0.0.1:1"
	for _, row := range []struct {
		name, ops, listen string
		args              []string
		want              string // of the error; none: it is well
	}{
		{name: "the operators' listener", ops: ours, listen: closed},
		{name: "the API without one", listen: ours},
		{name: "a listener on every address", ops: port},
		{name: "a listener on every address by number", ops: "0.0.0.0" + port},
		{name: "a listener on every address by IPv6 number", ops: "[::]" + port},
		{name: "the command line, which wins", ops: closed, args: []string{"--ops-listen", ours}},
		{name: "the URL, which wins over all", ops: closed, args: []string{"--url", "http://" + ours + "/healthz"}},
		{name: "the wrong place", ops: closed, want: "connection refused"},
		{name: "somebody else", ops: other, want: "is answered by something else"},
		{name: "a process that is not well", ops: ill, want: "500"},
		{name: "any port", ops: "127.0.0.1:0", want: "has no fixed port"},
		{name: "no port", ops: "127.0.0.1", want: "missing port"},
	} {
		t.Run(row.name, func(t *testing.T) {
			environment := map[string]string{"BATCHRESET_OPS_LISTEN": row.ops, "BATCHRESET_LISTEN": row.listen}
			got := command(t, environment, append([]string{"healthcheck"}, row.args...)...)
			if row.want == "" {
				got.OK(t)
				return
			}
			got.WantError(t, row.want)
		})
	}
}

// What a process listens on may stand in its part of a file of settings.
func TestHealthcheckOfAProcessGoesByItsPart(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"error_code":"0","error_msg":"ok"}`)
	}))
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "batchreset.yaml")
	text := "listen: 127.0.0.1:1\nops-listen: 127.0.0.1:1\nworker:\n  ops-listen: " + strings.TrimPrefix(s.URL, "http://") + "\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	environment := map[string]string{"BATCHRESET_CONFIG": file}
	command(t, environment, "healthcheck", "worker").OK(t)
	command(t, environment, "healthcheck", "api").WantError(t, "connection refused")
	command(t, environment, "healthcheck", "redis").WantError(t, "invalid argument")
}

func TestHealthcheckNamesWhoIsSilent(t *testing.T) {
	t.Parallel() // it waits
	var config net.ListenConfig
	silent, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	address := silent.Addr().String()
	got := command(t, nil, "healthcheck", "--ops-listen", address)
	got.WantError(t, "http://"+address+"/healthz did not answer within 2s")
}
