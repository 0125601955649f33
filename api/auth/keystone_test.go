//go:build keystone

package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"batchreset/cmd/harness"
	"batchreset/tasks"
)

// realKeystone is Debian's Keystone with a database of its own. 'make test-keystone' installs it.
type realKeystone struct {
	t    *testing.T
	dir  string
	addr string
	url  string

	server *exec.Cmd
	admin  string // token
}

func startKeystone(t *testing.T) *realKeystone {
	t.Helper()
	for _, name := range []string{"keystone-manage", "uwsgi_python3"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Fatalf("%s is missing: 'make test-keystone' installs it", name)
		}
	}
	k := &realKeystone{t: t, dir: t.TempDir(), addr: freeAddr(t)}
	k.url = "http://" + k.addr + "/v3"
	k.manage("db_sync")
	for _, keys := range []string{"fernet_setup", "receipt_setup", "credential_setup"} {
		k.manage(keys, "--keystone-user", "root", "--keystone-group", "root")
	}
	k.manage("bootstrap", "--bootstrap-password", "secret", "--bootstrap-public-url", k.url)
	k.server = k.start(k.addr, time.Hour)
	k.admin, _ = k.login(k.url, "admin", "admin", "secret")
	return k
}

func freeAddr(t *testing.T) string {
	t.Helper()
	addr, err := harness.FreeAddr(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// config writes a configuration whose tokens live for some time.
func (k *realKeystone) config(life time.Duration) string {
	path := filepath.Join(k.dir, fmt.Sprintf("keystone-%d.conf", int(life.Seconds())))
	text := fmt.Sprintf(`[DEFAULT]
log_file = %[1]s/keystone.log
[database]
connection = sqlite:///%[1]s/keystone.db
[fernet_tokens]
key_repository = %[1]s/fernet
[fernet_receipts]
key_repository = %[1]s/receipts
[credential]
key_repository = %[1]s/credential
[cache]
enabled = false
[token]
expiration = %[2]d
`, k.dir, int(life.Seconds()))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		k.t.Fatal(err)
	}
	return path
}

func (k *realKeystone) manage(args ...string) {
	k.t.Helper()
	args = append([]string{"--config-file", k.config(time.Hour)}, args...)
	out, err := exec.CommandContext(k.t.Context(), "keystone-manage", args...).CombinedOutput()
	if err != nil {
		k.t.Fatalf("keystone-manage %v: %v\n%s", args, err, out)
	}
}

// start starts a server on the database, whose tokens live for some time.
func (k *realKeystone) start(addr string, life time.Duration) *exec.Cmd {
	k.t.Helper()
	cmd := exec.Command("uwsgi_python3", "--http-socket", addr,
		"--wsgi-file", "/usr/bin/keystone-wsgi-public", "--master", "--die-on-term", "--buffer-size", "65535", "--post-buffering", "8192", "--pyargv", "--config-file "+k.config(life))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = os.Stderr // uWSGI says there what is wrong, and a line for each request
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { k.stop(cmd) })
	url := "http://" + addr + "/v3"
	harness.Eventually(k.t, time.Minute, "an answer of Keystone", func() bool {
		status, _, _ := k.try(http.MethodGet, url, nil, nil)
		return status == http.StatusOK
	})
	return cmd
}

func (k *realKeystone) stop(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
}

func (k *realKeystone) try(method, url string, header map[string]string, body any) (status int, h http.Header, text []byte) {
	var encoded []byte
	if body != nil {
		var err error
		if encoded, err = json.Marshal(body); err != nil {
			k.t.Fatal(err)
		}
	}
	r, err := http.NewRequestWithContext(context.Background(), method, url, bytes.NewReader(encoded))
	if err != nil {
		k.t.Fatal(err)
	}
	r.Header["Idempotency-Key"] = nil // see IAM.ownToken
	r.Header.Set("Content-Type", "application/json")
	for name, value := range header {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, nil, []byte(err.Error())
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, text
}

// call asks as the administrator.
func (k *realKeystone) call(method, path string, body any, want int) map[string]any {
	k.t.Helper()
	status, _, text := k.try(method, k.url+path, map[string]string{"X-Auth-Token": k.admin}, body)
	if status != want {
		k.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	var got map[string]any
	_ = json.Unmarshal(text, &got)
	return got
}

// login gets a token for a project.
func (k *realKeystone) login(url, user, project, password string) (token, projectID string) {
	k.t.Helper()
	domain := map[string]any{"name": "Default"}
	status, h, text := k.try(http.MethodPost, url+"/auth/tokens", nil, map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": map[string]any{"name": user, "domain": domain, "password": password}}},
		"scope":    map[string]any{"project": map[string]any{"name": project, "domain": domain}},
	}})
	if status != http.StatusCreated {
		k.t.Fatalf("log in as %s: %d %s", user, status, text)
	}
	var got struct {
		Token struct{ Project struct{ ID string } }
	}
	if err := json.Unmarshal(text, &got); err != nil {
		k.t.Fatal(err)
	}
	return h.Get("X-Subject-Token"), got.Token.Project.ID
}

// addUser makes a project with a user who is a member of it.
func (k *realKeystone) addUser(user, project string) {
	k.t.Helper()
	p := k.call(http.MethodPost, "/projects", map[string]any{"project": map[string]any{"name": project}}, http.StatusCreated)["project"].(map[string]any)
	u := k.call(http.MethodPost, "/users", map[string]any{"user": map[string]any{"name": user, "password": "secret"}}, http.StatusCreated)["user"].(map[string]any)
	roles := k.call(http.MethodGet, "/roles?name=member", nil, http.StatusOK)["roles"].([]any)
	k.call(http.MethodPut, fmt.Sprintf("/projects/%s/users/%s/roles/%s", p["id"], u["id"], roles[0].(map[string]any)["id"]), nil, http.StatusNoContent)
}

// counting counts what is asked about tokens.
type counting struct{ asked atomic.Int32 }

func (c *counting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodGet {
		c.asked.Add(1)
	}
	return http.DefaultTransport.RoundTrip(r)
}

func TestKeystone(t *testing.T) {
	k := startKeystone(t)
	k.addUser("alice", "phones")
	good, project := k.login(k.url, "alice", "phones", "secret")
	rules := IAMRules{Tenants: map[string]string{project: "acme"}, Roles: map[string][]tasks.Scope{"member": {tasks.ScopeSubmit, tasks.ScopeRead}}}
	// What an IAM knows is asked about anew by another one.
	fresh := func() (*IAM, *counting) {
		c := &counting{}
		i := NewIAM(k.url, IAMCredentials{User: "admin", Password: "secret", Project: "admin"}, rules, wall{}, slog.New(slog.DiscardHandler))
		i.client.Transport = c
		i.client.Timeout = 30 * time.Second // the machine may be busy
		return i, c
	}
	wants := func(what, secret string, want tasks.Code) tasks.Token {
		t.Helper()
		i, _ := fresh()
		token, err := i.Token(t.Context(), secret)
		if tasks.CodeOf(err) != want {
			t.Errorf("%s: %+v, %v, want %s", what, token, err, want)
		}
		return token
	}
	if token := wants("valid", good, tasks.OK); token.Tenant != "acme" || token.Owner != "alice" || fmt.Sprint(token.Scopes) != "[submit read]" || token.ID == "" {
		t.Errorf("valid: %+v", token)
	}
	wants("wrong", good[:len(good)-8]+"AAAAAAAA", tasks.BadToken)
	wants("unknown", "gAAAAAB"+strings.Repeat("x", 176), tasks.BadToken)
	wants("nonsense", "abc", tasks.BadToken)
	wants("of another project", k.admin, tasks.Forbidden)

	revoked, _ := k.login(k.url, "alice", "phones", "secret")
	wants("before it is revoked", revoked, tasks.OK)
	if status, _, text := k.try(http.MethodDelete, k.url+"/auth/tokens", map[string]string{"X-Auth-Token": k.admin, "X-Subject-Token": revoked}, nil); status != http.StatusNoContent {
		t.Fatalf("revoke: %d %s", status, text)
	}
	wants("revoked", revoked, tasks.BadToken)

	addr := freeAddr(t)
	short := k.start(addr, 5*time.Second)
	brief, _ := k.login("http://"+addr+"/v3", "alice", "phones", "secret")
	k.stop(short)
	harness.Eventually(t, time.Minute, "a token that has expired", func() bool {
		i, _ := fresh()
		_, err := i.Token(t.Context(), brief)
		if err != nil && tasks.CodeOf(err) != tasks.TokenExpired {
			t.Fatalf("expired: %v", err)
		}
		return err != nil
	})

	i, c := fresh()
	var g sync.WaitGroup
	for range 1000 {
		g.Go(func() {
			if _, err := i.Token(t.Context(), good); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	if got := c.asked.Load(); got != 1 {
		t.Errorf("1,000 callers cost %d look-ups", got)
	}

	k.stop(k.server)
	wants("killed", good, tasks.IAMAway)
	if _, err := i.Token(t.Context(), good); err != nil {
		t.Errorf("killed, within the minute: %v", err)
	}
	k.server = k.start(k.addr, time.Hour)
	wants("back", good, tasks.OK)
}
