package main

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"batchreset/tasks/redisdb/redistest"
)

// A process that has no file descriptors left says so, and goes on when it has some again.
func TestAProcessThatMayNotOpenEnoughFiles(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t).URL()
	api := startCommand(t, nil, "api", "sh", "-c", `ulimit -n 200 && exec "$0" "$@"`,
		binary, "api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
	warning := api.logged("this process may need more open files than its limit allows; then it does not answer. " +
		"Raise the limit (ulimit -n, LimitNOFILE), or lower --max-waiters of an api, --concurrency of a worker")
	if warning["level"] != "WARN" || warning["limit"] != 200.0 || warning["may_need"] != 20_500.0 {
		t.Errorf("the warning is %v", warning)
	}
	started := api.logged("api started")
	for _, listener := range []string{"api", "ops"} {
		url, _ := started[listener].(string)
		address := strings.TrimPrefix(url, "http://")
		var idle []net.Conn
		for range 230 {
			c, err := net.Dial("tcp", address) //nolint:noctx // the kernel answers
			if err != nil {
				t.Fatal(err)
			}
			idle = append(idle, c)
		}
		trouble := api.logged("trouble of a listener")
		text, _ := trouble["text"].(string)
		if trouble["level"] != "WARN" || !strings.Contains(text, "too many open files") || trouble["listener"] != address {
			t.Errorf("the log says %v", trouble)
		}
		for _, c := range idle {
			_ = c.Close()
		}
		if status, _ := get(t, url+"/healthz"); status != http.StatusOK {
			t.Errorf("%s answers %d afterwards", listener, status)
		}
	}
	api.stop()
}
