package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchreset/tasks/redisdb/redistest"
)

// manager is a socket where processes tell what they would tell systemd.
type manager struct {
	t *testing.T
	*net.UnixConn
	path string
}

func newManager(t *testing.T) *manager {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify") //nolint:usetesting // a directory of the test has a long name, and the path of a socket at most 104 bytes
	if err != nil {
		t.Fatal(err)
	}
	m := &manager{t: t, path: filepath.Join(dir, "s")}
	if m.UnixConn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.Close()
		_ = os.RemoveAll(dir)
	})
	return m
}

// environment is that of a process which is to tell.
func (m *manager) environment() []string {
	return []string{"NOTIFY_SOCKET=" + m.path, "WATCHDOG_USEC=2000000"}
}

// told waits for something that begins like that.
func (m *manager) told(want string) string {
	m.t.Helper()
	if err := m.SetReadDeadline(time.Now().Add(patience)); err != nil {
		m.t.Fatal(err)
	}
	message := make([]byte, 1000)
	for {
		n, err := m.Read(message)
		if err != nil {
			m.t.Fatalf("the service manager is not told %s: %v", want, err)
		}
		if said := string(message[:n]); strings.HasPrefix(said, want) {
			return said
		}
	}
}

func TestRealProcessesTellTheServiceManager(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t).URL()
	for name, args := range map[string][]string{
		"api":    {"api", "--redis", redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"},
		"worker": {"worker", "--redis", redis, "--ops-listen", "127.0.0.1:0", "--driver", "simulator"},
	} {
		m := newManager(t)
		p := startIn(t, m.environment(), args...)
		if said := m.told("READY=1"); !strings.Contains(said, "STATUS="+name+" works") {
			t.Errorf("%s says %q", name, said)
		}
		started := map[string]string{"api": "api started", "worker": "worker started"}[name]
		p.logged(started) // is there already
		m.told("WATCHDOG=1")
		m.told("WATCHDOG=1")
		p.stop()
		m.told("STOPPING=1")
	}
}
