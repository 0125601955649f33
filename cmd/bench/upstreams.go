package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// upstreams are those at which no reset ever ends.
type upstreams struct {
	http   string // of a control plane, and of Cloud Phone Host
	engine string // socket of a Docker engine
	secret string // file with a key that nobody verifies

	servers []*httptest.Server
}

func startUpstreams(ctx context.Context, dir string) (*upstreams, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	u := &upstreams{engine: filepath.Join(dir, "docker.sock"), secret: filepath.Join(dir, "secret")}
	if err := os.WriteFile(u.secret, []byte("secret\n"), 0o600); err != nil {
		return nil, err
	}
	plane := httptest.NewServer(http.HandlerFunc(answerForEver))
	u.http, u.servers = plane.URL, append(u.servers, plane)
	socket, err := new(net.ListenConfig).Listen(ctx, "unix", u.engine)
	if err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	engine := httptest.NewUnstartedServer(http.HandlerFunc(answerForEver))
	_ = engine.Listener.Close()
	engine.Listener = socket
	engine.Start()
	u.servers = append(u.servers, engine)
	return u, nil
}

// close ends them. Whoever waits for an answer has ended.
func (u *upstreams) close() {
	for _, s := range u.servers {
		s.CloseClientConnections()
		s.Close()
	}
}

// answerForEver lets no reset end: Cloud Phone Host has a job that runs, and the others do not
// answer.
func answerForEver(w http.ResponseWriter, r *http.Request) {
	last := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	switch {
	case strings.Contains(r.URL.Path, "/cloud-phone/phones/") && r.Method == http.MethodGet:
		_, _ = fmt.Fprintf(w, `{"request_id":"r","phone_id":%q,"status":2,"update_time":"2026-01-01T00:00:00Z"}`, last)
	case strings.Contains(r.URL.Path, "/cloud-phone/jobs/"):
		_, _ = fmt.Fprintf(w, `{"job_id":%q,"status":1}`, last)
	case last == "batch-reset":
		var id string
		body := make([]byte, 4<<10)
		n, _ := r.Body.Read(body)
		_, id, _ = strings.Cut(string(body[:n]), `"phone_id":"`)
		id, _, _ = strings.Cut(id, `"`)
		_, _ = fmt.Fprintf(w, `{"request_id":"r","jobs":[{"phone_id":%q,"job_id":"job-%s"}]}`, id, id)
	case last == "version":
		_, _ = fmt.Fprint(w, `{"ApiVersion":"1.41"}`)
	default:
		_, _ = io.Copy(io.Discard, r.Body) // or net/http does not notice that the worker has gone
		<-r.Context().Done()
	}
}

// raiseFiles raises the limit of open files, of this process and those that it starts, to n if it
// may. It returns the limit.
func raiseFiles(n uint64) uint64 {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	wanted := syscall.Rlimit{Cur: max(n, limit.Cur), Max: max(n, limit.Max)}
	if syscall.Setrlimit(syscall.RLIMIT_NOFILE, &wanted) == nil {
		return wanted.Cur
	}
	return limit.Cur
}
