package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchreset/cmd/harness"
	"batchreset/cmd/harness/certs"
	"batchreset/tasks/redisdb/redistest"
)

// secured is an api that speaks TLS, with an authority that vouches for it and for clients.
type secured struct {
	*process
	dir, redis, server, site string
	authority                *certs.Pair
	environment              map[string]string
}

func (s *secured) path(name string) string { return filepath.Join(s.dir, name) }

// issue makes a certificate and writes it into the folder.
func (s *secured) issue(t *testing.T, by *certs.Pair, name string, subject certs.Subject) *certs.Pair {
	t.Helper()
	pair, err := by.Issue(subject)
	if err == nil {
		err = pair.Write(s.path(name+".crt"), s.path(name+".key"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// startSecured starts it with the certificate of a subject and with more flags, in which {dir} is its folder.
func startSecured(t *testing.T, subject certs.Subject, flags ...string) *secured {
	t.Helper()
	s := &secured{dir: t.TempDir(), redis: redistest.Start(t).URL()}
	var err error
	if s.authority, err = certs.NewAuthority(certs.Subject{CommonName: "authority"}); err == nil {
		err = s.authority.Write(s.path("ca.crt"), s.path("ca.key"))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.issue(t, s.authority, "server", subject)
	args := []string{
		"api", "--redis", s.redis, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open",
		"--tls-cert", s.path("server.crt"), "--tls-key", s.path("server.key"),
	}
	for _, flag := range flags {
		args = append(args, strings.ReplaceAll(flag, "{dir}", s.dir))
	}
	s.process = start(t, args...)
	started := s.logged("api started")
	s.server, _ = started["api"].(string)
	s.site, _ = started["ops"].(string)
	s.environment = map[string]string{"BATCHRESET_REDIS": s.redis, "BATCHRESET_SERVER": s.server, "BATCHRESET_CA_FILE": s.path("ca.crt")}
	if !strings.HasPrefix(s.server, "https://") || !strings.HasPrefix(s.site, "https://") {
		t.Fatalf("%s and %s", s.server, s.site)
	}
	return s
}

func (s *secured) token(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(command(t, s.environment, "token", "add", "--tenant", "acme").OK(t).Out)
}

// client speaks HTTP/2, and shows a certificate if there is one.
func (s *secured) client(t *testing.T, show *certs.Pair) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: s.authority.Pool(), MinVersion: tls.VersionTLS12}
	if show != nil {
		config.Certificates = []tls.Certificate{show.TLS()}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// ask asks for a path, and returns the answer and its body.
func ask(t *testing.T, c *http.Client, url, token string) (reply, string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("X-Auth-Token", token)
	}
	response, err := c.Do(r)
	if err != nil {
		return reply{}, "", err
	}
	body, err := io.ReadAll(response.Body)
	return reply{response.Status, response.StatusCode, response.ProtoMajor, response.Header, response.TLS}, string(body), errors.Join(err, response.Body.Close())
}

// reply is the head of an answer.
type reply struct {
	Status                 string
	StatusCode, ProtoMajor int
	Header                 http.Header
	TLS                    *tls.ConnectionState
}

func TestBothListenersSpeakTLS(t *testing.T) {
	t.Parallel()
	s := startSecured(t, certs.Subject{})
	for _, url := range []string{s.server + "/healthz", s.site + "/healthz"} {
		response, _, err := ask(t, s.client(t, nil), url, "")
		if err != nil || response.StatusCode != http.StatusOK || response.ProtoMajor != 2 {
			t.Errorf("%s: %v, %v", url, response, err)
			continue
		}
		if got, want := response.Header.Get("Strict-Transport-Security") != "", strings.HasPrefix(url, s.site); got != want {
			t.Errorf("%s: HSTS %v", url, got)
		}
	}
	response, _, err := ask(t, http.DefaultClient, strings.Replace(s.server, "https:", "http:", 1), "")
	if err != nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("http is answered with %v, %v", response, err)
	}
	worker := start(t, "worker", "--redis", s.redis, "--ops-listen", "127.0.0.1:0", "--driver", "simulator", "--simulator-latency", "0",
		"--tls-cert", s.path("server.crt"), "--tls-key", s.path("server.key"))
	of, _ := worker.logged("worker starting")["ops"].(string)
	worker.logged("worker started")
	for _, address := range []string{s.site, of} {
		healthy := map[string]string{"BATCHRESET_OPS_LISTEN": strings.TrimPrefix(address, "https://"), "BATCHRESET_TLS_CERT": s.path("server.crt")}
		command(t, healthy, "healthcheck").OK(t)
	}
	s.environment["BATCHRESET_TOKEN"] = s.token(t)
	command(t, s.environment, "submit", "--wait", "--yes", "phone-1", "phone-2").OK(t)
	delete(s.environment, "BATCHRESET_CA_FILE")
	if r := command(t, s.environment, "jobs", "--timeout", "5s"); r.Code == 0 || !strings.Contains(fmt.Sprint(r.Err), "certificate") {
		t.Errorf("a server of an unknown authority: %+v", r)
	}
	worker.stop()
	s.stop()
}

// Whoever asks is told what is wrong with the certificate, and nothing is sent.
func TestCallersRefuseACertificateThatIsNotTheServers(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name    string
		subject certs.Subject
		want    string
	}{
		{"expired", certs.Subject{NotAfter: time.Now().Add(-time.Minute)}, "expired"},
		{"for another name", certs.Subject{DNS: []string{"reset.example"}}, "127.0.0.1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := startSecured(t, row.subject)
			s.environment["BATCHRESET_TOKEN"] = s.token(t)
			r := command(t, s.environment, "submit", "--yes", "--timeout", "5s", "phone-1")
			if r.Code == 0 || !strings.Contains(fmt.Sprint(r.Err), "certificate") || !strings.Contains(fmt.Sprint(r.Err), row.want) {
				t.Errorf("%+v", r)
			}
			if said := s.said(); row.name == "expired" && !strings.Contains(said, "the certificate has expired") {
				t.Errorf("log %s", said)
			}
		})
	}
}

// A new certificate is served within 10 seconds, to new connections, while one that is open goes on.
func TestACertificateIsRenewedWhileThingsWait(t *testing.T) {
	t.Parallel()
	s := startSecured(t, certs.Subject{CommonName: "first"})
	token := s.token(t)
	c := s.client(t, nil)
	job := s.submit(t, c, token, "phone-1") // no worker: it waits
	events := s.follow(t, c, token, job)
	poll := make(chan error, 1)
	go func() {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.server+"/v1/jobs/"+job, nil)
		r.Header.Set("X-Auth-Token", token)
		r.Header.Set("Prefer", "wait=60")
		response, err := c.Do(r)
		if err == nil {
			_, err = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
			if response.ProtoMajor != 2 || response.StatusCode != http.StatusOK {
				err = errors.New(response.Proto + " " + response.Status)
			}
		}
		poll <- err
	}()
	s.issue(t, s.authority, "server", certs.Subject{CommonName: "second"})
	s.logged("new certificates are in use")
	fresh := s.client(t, nil)
	response, _, err := ask(t, fresh, s.server+"/healthz", "")
	if err != nil || response.TLS.PeerCertificates[0].Subject.CommonName != "second" {
		t.Errorf("%v, %v", response, err)
	}
	// What waits over HTTP/2 is told of the end by the process that it began with.
	start(t, "worker", "--redis", s.redis, "--ops-listen", "127.0.0.1:0", "--driver", "simulator", "--simulator-latency", "0").logged("worker started")
	if err := <-poll; err != nil {
		t.Errorf("long poll: %v", err)
	}
	if last := <-events; !strings.Contains(last, `"succeeded"`) {
		t.Errorf("stream: %s", last)
	}
}

func (s *secured) submit(t *testing.T, c *http.Client, token string, instance string) (job string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.server+"/v1/instances/batch-reset", strings.NewReader(fmt.Sprintf(`{"instance_ids":[%q]}`, instance)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Auth-Token", token)
	response, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Data struct {
			TaskID string `json:"task_id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || answer.Data.TaskID == "" {
		t.Fatalf("%s, %v", response.Status, err)
	}
	return answer.Data.TaskID
}

// follow follows a job's stream, and returns its last line once it has ended.
func (s *secured) follow(t *testing.T, c *http.Client, token, job string) <-chan string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.server+"/v1/jobs/"+job+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Auth-Token", token)
	response, err := c.Do(r) //nolint:bodyclose // by the goroutine below
	if err != nil {
		t.Fatal(err)
	}
	if response.ProtoMajor != 2 || response.StatusCode != http.StatusOK {
		t.Fatalf("%s %s", response.Proto, response.Status)
	}
	lines := bufio.NewScanner(response.Body)
	if !lines.Scan() { // it has begun
		t.Fatal(lines.Err())
	}
	last := make(chan string, 1)
	go func() {
		defer func() { _ = response.Body.Close() }()
		var text string
		for lines.Scan() {
			if lines.Text() != "" {
				text = lines.Text()
			}
		}
		last <- text
	}()
	return last
}

const certificateRules = `certificates:
- {uri: "spiffe://farm.example/ci", tenant: acme, scopes: [submit, read]}
- {dns: nightly.farm.example, tenant: globex, scopes: [read], owner: nightly}
- {common_name: old, tenant: acme, scopes: [read]}
`

func TestCallersAreKnownByTheirCertificates(t *testing.T) {
	t.Parallel()
	rules := filepath.Join(t.TempDir(), "callers.yaml")
	if err := os.WriteFile(rules, []byte(certificateRules), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startSecured(t, certs.Subject{}, "--tls-client-ca", "{dir}/ca.crt", "--callers-file", rules)
	token := s.token(t)
	stranger, err := certs.NewAuthority(certs.Subject{CommonName: "stranger"})
	if err != nil {
		t.Fatal(err)
	}
	ci := s.issue(t, s.authority, "ci", certs.Subject{URI: []string{"spiffe://farm.example/ci"}})
	for _, row := range []struct {
		name  string
		show  *certs.Pair
		token string
		want  string // of whoami; empty: no connection
	}{
		{"no certificate", nil, token, ""},
		{"one of somebody else", s.issue(t, stranger, "other", certs.Subject{URI: []string{"spiffe://farm.example/ci"}}), token, ""},
		{"one that has expired", s.issue(t, s.authority, "old", certs.Subject{CommonName: "old", NotAfter: time.Now().Add(-time.Minute)}), token, ""},
		{"by its URI", ci, "", `"tenant":"acme","owner":"spiffe://farm.example/ci","scopes":["submit","read"]`},
		{"by its name", s.issue(t, s.authority, "nightly", certs.Subject{DNS: []string{"nightly.farm.example"}}), "", `"tenant":"globex","owner":"nightly"`},
		{"by its subject", s.issue(t, s.authority, "old", certs.Subject{CommonName: "old"}), "", `"tenant":"acme","owner":"old"`},
		{"of a name that is like one", s.issue(t, s.authority, "evil", certs.Subject{DNS: []string{"evil.nightly.farm.example"}, CommonName: "nightly.farm.example"}), "", "no rule is for the names"},
		{"with a token, which counts", ci, token, `"kind":"token","tenant":"acme"`},
		{"with a token that is none", ci, "brt_none", "APIGW.0301"},
	} {
		response, body, err := ask(t, s.client(t, row.show), s.server+"/v1/whoami", row.token)
		switch {
		case row.want == "" && err == nil:
			t.Errorf("%s: %s %s", row.name, response.Status, body)
		case row.want != "" && (err != nil || !strings.Contains(body, row.want)):
			t.Errorf("%s: %v, %s", row.name, err, body)
		}
	}
	if response, _, err := ask(t, s.client(t, nil), s.site+"/healthz", ""); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("the operators' listener asks for a certificate: %v", err)
	}
	s.environment["BATCHRESET_CERT_FILE"], s.environment["BATCHRESET_KEY_FILE"] = s.path("ci.crt"), s.path("ci.key")
	command(t, s.environment, "submit", "--yes", "phone-1").OK(t)

	// The authority is taken away while a connection is open: its next request is refused.
	c := s.client(t, ci)
	if _, body, err := ask(t, c, s.server+"/v1/jobs", ""); err != nil || strings.Contains(body, "APIGW") {
		t.Fatalf("%s, %v", body, err)
	}
	if err := os.WriteFile(s.path("ca.crt"), stranger.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := harness.Until(t.Context(), patience, func(context.Context) error {
		response, body, err := ask(t, c, s.server+"/v1/jobs", "")
		if err == nil && response.StatusCode != http.StatusUnauthorized {
			err = fmt.Errorf("%s %s", response.Status, body)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

func TestWrongTLSFlags(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	authority, err := certs.NewAuthority(certs.Subject{})
	if err == nil {
		err = authority.Write(filepath.Join(dir, "crt"), filepath.Join(dir, "key"))
	}
	if err != nil {
		t.Fatal(err)
	}
	rules := filepath.Join(dir, "rules")
	write := func(text string) {
		if err := os.WriteFile(rules, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	crt, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	for _, row := range []struct {
		rules, want string
		flags       []string
	}{
		{"", "--tls-cert and --tls-key go together", []string{"--tls-cert", crt}},
		{"", "--tls-client-ca needs --tls-cert", []string{"--tls-client-ca", crt}},
		{"", "no such file", []string{"--tls-cert", crt + "x", "--tls-key", key}},
		{"", "there is no certificate in it", []string{"--tls-cert", crt, "--tls-key", key, "--tls-client-ca", key}},
		{certificateRules, "none of which is there", []string{"--tls-cert", crt, "--tls-key", key, "--callers-file", rules}},
		{"certificates: [{tenant: acme, scopes: [read]}]", "rule 1: has to have one of uri, dns, email and common_name", []string{"--tls-cert", crt, "--tls-key", key, "--tls-client-ca", crt, "--callers-file", rules}},
		{"certificates: [{dns: a, uri: b, tenant: acme, scopes: [read]}]", "rule 1: has to have one of", []string{"--tls-cert", crt, "--tls-key", key, "--tls-client-ca", crt, "--callers-file", rules}},
		{"certificates: [{dns: a, tenant: acme, scopes: [all]}]", `"all" is no scope`, []string{"--tls-cert", crt, "--tls-key", key, "--tls-client-ca", crt, "--callers-file", rules}},
		{"certificates: [{cn: a, tenant: acme, scopes: [read]}]", "cn", []string{"--tls-cert", crt, "--tls-key", key, "--tls-client-ca", crt, "--callers-file", rules}},
	} {
		write(row.rules)
		r := command(t, nil, append([]string{"api"}, row.flags...)...)
		if r.Code != 64 || !strings.Contains(fmt.Sprint(r.Err), row.want) {
			t.Errorf("%q: %d %s", row.flags, r.Code, r.Err)
		}
	}
}
