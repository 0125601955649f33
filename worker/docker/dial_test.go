//go:build engine

package docker

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"batchreset/worker"
	"batchreset/worker/docker/enginetest"
)

func TestSettingsThatAreRefused(t *testing.T) {
	for name, test := range map[string]struct {
		cfg  Config
		want string
	}{
		"no host":                      {Config{}, "host must begin with"},
		"another scheme":               {Config{Host: "http://a:1"}, "host must begin with"},
		"no URL":                       {Config{Host: "tcp://a:b:c"}, "host "},
		"no URL, with a password":      {Config{Host: "ssh://u:geheim@phones.example:x"}, "host is not a URL"},
		"a socket that is relative":    {Config{Host: "unix://var/run/docker.sock"}, "host must have the path of a socket"},
		"no port":                      {Config{Host: "tcp://phones.example"}, "host must have a name and a port"},
		"a path":                       {Config{Host: "tcp://phones.example:2376/x"}, "host must have a name and a port"},
		"a query":                      {Config{Host: "unix:///a?b"}, "host must not have a query"},
		"no TLS on a network":          {Config{Host: "tcp://phones.example:2375"}, "tls_ca_file, tls_cert_file and tls_key_file are needed"},
		"no key for TLS":               {Config{Host: "tcp://phones.example:2376", TLSCAFile: "/nowhere"}, "tls_ca_file: open /nowhere"},
		"TLS for a socket":             {Config{Host: "unix:///a", TLSCAFile: "ca.pem"}, "tls_ca_file is only for a host that begins with tcp://"},
		"an ssh key for TCP":           {Config{Host: "tcp://127.0.0.1:1", SSHKeyFile: "id"}, "ssh_key_file is only for a host that begins with ssh://"},
		"no user":                      {Config{Host: "ssh://phones.example"}, "host must have a user"},
		"a password":                   {Config{Host: "ssh://u:p@phones.example"}, "host must not have a password"},
		"no ssh key":                   {Config{Host: "ssh://u@phones.example"}, "ssh_key_file is needed"},
		"data that is no path":         {Config{Host: "unix:///a", Data: []string{"data"}}, "data must list folders"},
		"data that is everything":      {Config{Host: "unix:///a", Data: []string{"/"}}, "data must list folders"},
		"a path to keep that is odd":   {Config{Host: "unix:///a", Keep: []string{"/a/../data"}}, "keep must list folders"},
		"data that is kept":            {Config{Host: "unix:///a", Keep: []string{"/data/media"}}, "keep has /data/media, which overlaps with data"},
		"a wipe command of nothing":    {Config{Host: "unix:///a", WipeCommand: []string{}}, "wipe_command must begin"},
		"a wipe command without a way": {Config{Host: "unix:///a", WipeCommand: []string{"rm"}}, "wipe_command must begin"},
		"a property without a name":    {Config{Host: "unix:///a", Properties: map[string]string{"a=b": "c"}}, "properties has the name"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(test.cfg); err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("%v; want %s…", err, test.want)
			}
		})
	}
}

func (e *testEngine) withTLS(who string) func(*Config) {
	return func(c *Config) {
		c.Host = "tcp://" + e.TCP
		c.TLSCAFile = filepath.Join(e.Dir, "ca.pem")
		c.TLSCertFile, c.TLSKeyFile = filepath.Join(e.Dir, who+".pem"), filepath.Join(e.Dir, who+"-key.pem")
	}
}

func TestAResetOverTLS(t *testing.T) {
	t.Parallel()
	p := newPhone(t, nil)
	p.mustReset(p.e.driver(t, p.e.withTLS("client")), p.attempt("KEY"))
	p.mustBeFresh()
}

func TestAStrangersCertificateIsRefused(t *testing.T) {
	t.Parallel()
	e := dockerd(t)
	if err := e.driver(t, e.withTLS("stranger")).Check(t.Context()); err == nil {
		t.Error("the engine let a stranger in")
	}
	a := worker.Attempt{InstanceID: "one", Key: "KEY"}
	mustFail(t, e.driver(t, e.withTLS("stranger")).Reset(t.Context(), a), worker.Unreachable, "")
	wrong := e.driver(t, func(c *Config) {
		e.withTLS("client")(c)
		c.TLSCAFile = filepath.Join(e.Dir, "stranger.pem")
	})
	if err := wrong.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("trusted a stranger: %v", err)
	}
}

func TestTLSFilesThatDoNotFit(t *testing.T) {
	dir := t.TempDir()
	if err := enginetest.WriteCertificates(dir); err != nil {
		t.Fatal(err)
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	for want, cfg := range map[string]Config{
		"tls_ca_file " + file("ca-key.pem") + " has no certificate": {TLSCAFile: file("ca-key.pem")},
		"tls_cert_file is needed":                                   {TLSCAFile: file("ca.pem")},
		"tls_key_file is needed":                                    {TLSCAFile: file("ca.pem"), TLSCertFile: file("client.pem")},
		"tls_cert_file and tls_key_file do not fit":                 {TLSCAFile: file("ca.pem"), TLSCertFile: file("client.pem"), TLSKeyFile: file("server-key.pem")},
	} {
		cfg.Host = "tcp://phones.example:2376"
		if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v; want %s…", err, want)
		}
	}
}

// sshd lets one key in, and out to Unix sockets, as OpenSSH's does.
type sshd struct {
	t        *testing.T
	listener net.Listener
	config   *ssh.ServerConfig
	work     sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn
	logins int
}

func startSSHD(t *testing.T, client ssh.PublicKey, host ssh.Signer) *sshd {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sshd{t: t, listener: listener, config: &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if string(key.Marshal()) != string(client.Marshal()) {
				return nil, os.ErrPermission
			}
			return nil, nil
		},
	}}
	s.config.AddHostKey(host)
	s.work.Go(s.accept)
	t.Cleanup(func() {
		_ = listener.Close()
		s.hangUp()
		s.work.Wait()
	})
	return s
}

func (s *sshd) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, conn)
		s.logins++
		s.mu.Unlock()
		s.work.Go(func() { s.serve(conn) })
	}
}

func (s *sshd) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_, channels, requests, err := ssh.NewServerConn(conn, s.config)
	if err != nil {
		return
	}
	s.work.Go(func() { ssh.DiscardRequests(requests) })
	for channel := range channels {
		s.work.Go(func() { s.forward(channel) })
	}
}

// forward answers the channel type direct-streamlocal@openssh.com (OpenSSH's PROTOCOL, 2.4).
func (s *sshd) forward(asked ssh.NewChannel) {
	var wants struct {
		Path     string
		Reserved string
		Unused   uint32
	}
	if asked.ChannelType() != "direct-streamlocal@openssh.com" || ssh.Unmarshal(asked.ExtraData(), &wants) != nil {
		_ = asked.Reject(ssh.UnknownChannelType, "no")
		return
	}
	socket, err := new(net.Dialer).DialContext(s.t.Context(), "unix", wants.Path)
	if err != nil {
		_ = asked.Reject(ssh.ConnectionFailed, "open failed")
		return
	}
	defer func() { _ = socket.Close() }()
	channel, requests, err := asked.Accept()
	if err != nil {
		return
	}
	s.work.Go(func() { ssh.DiscardRequests(requests) })
	s.work.Go(func() {
		_, _ = io.Copy(socket, channel)
		_ = socket.Close() // the client has gone
	})
	_, _ = io.Copy(channel, socket)
	_ = channel.Close()
}

// hangUp ends all connections.
func (s *sshd) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.conns {
		_ = conn.Close()
	}
}

func (s *sshd) loggedIn() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// newKey makes a key, writes it to a file and returns both.
func newKey(t *testing.T, name string) (ssh.Signer, string) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	return signer, file
}

// overSSH returns the settings that lead to a socket over an sshd of which this key is known.
func overSSH(t *testing.T, s *sshd, keyFile string, host ssh.PublicKey, socket string) func(*Config) {
	t.Helper()
	address := s.listener.Addr().String()
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte(knownhosts.Line([]string{address}, host)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return func(c *Config) {
		c.Host, c.SSHKeyFile, c.SSHKnownHostsFile = "ssh://batchreset@"+address+socket, keyFile, known
	}
}

func TestAResetOverSSH(t *testing.T) {
	t.Parallel()
	p := newPhone(t, nil)
	client, keyFile := newKey(t, "id")
	host, _ := newKey(t, "host")
	server := startSSHD(t, client.PublicKey(), host)
	d := p.e.driver(t, overSSH(t, server, keyFile, host.PublicKey(), filepath.Join(p.e.Dir, "docker.sock")))
	p.mustReset(d, p.attempt("KEY1"))
	p.mustBeFresh()
	if server.loggedIn() != 1 {
		t.Errorf("logged in %d times", server.loggedIn())
	}
	server.hangUp() // as a firewall does with what is idle
	p.mustReset(d, p.attempt("KEY2"))
	if server.loggedIn() != 2 {
		t.Errorf("logged in %d times", server.loggedIn())
	}
}

func TestWaysOverSSHThatDoNotLeadThere(t *testing.T) {
	t.Parallel()
	client, keyFile := newKey(t, "id")
	_, strangersFile := newKey(t, "id")
	host, hostFile := newKey(t, "host")
	stranger, _ := newKey(t, "host")
	server := startSSHD(t, client.PublicKey(), host)
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no socket there":          {overSSH(t, server, keyFile, host.PublicKey(), "/nowhere.sock"), "the way to /nowhere.sock"},
		"a key that nobody let in": {overSSH(t, server, strangersFile, host.PublicKey(), "/nowhere.sock"), "unable to authenticate"},
		"another server":           {overSSH(t, server, keyFile, stranger.PublicKey(), "/nowhere.sock"), "key mismatch"},
	} {
		cfg := Config{}
		test.change(&cfg)
		d, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		mustFail(t, d.Reset(t.Context(), unsent(t)), worker.Unreachable, test.want)
		d.Close()
		_ = name
	}
	cfg := Config{}
	overSSH(t, server, keyFile, host.PublicKey(), "/nowhere.sock")(&cfg)
	for want, change := range map[string]func(*Config){
		"ssh_key_file " + cfg.SSHKnownHostsFile:         func(c *Config) { c.SSHKeyFile = c.SSHKnownHostsFile },
		"ssh_known_hosts_file is needed":                func(c *Config) { c.SSHKnownHostsFile = "" },
		"ssh_known_hosts_file: ":                        func(c *Config) { c.SSHKnownHostsFile = hostFile },
		"ssh_known_hosts_file " + cfg.SSHKnownHostsFile: func(c *Config) { c.Host = "ssh://u@phones.example" },
	} {
		changed := cfg
		change(&changed)
		if _, err := New(changed); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v; want %s…", err, want)
		}
	}
}
