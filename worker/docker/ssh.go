package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// defaultSocket is where an engine listens unless it is told otherwise.
const defaultSocket = "/var/run/docker.sock"

// tunnel reaches a socket on another machine. All its connections are channels of one ssh
// connection, because an sshd lets few log in at a time.
type tunnel struct {
	dial   dialFunc // to the sshd
	config *ssh.ClientConfig
	server string // host:port, as known_hosts has it
	socket string

	client chan *ssh.Client // holds the ssh connection, or nil; who takes it may log in
}

func dialSSH(host *url.URL, cfg Config) (dialFunc, func(), error) {
	if host.Hostname() == "" || host.User.Username() == "" {
		return nil, nil, errors.New("host must have a user and a name, like ssh://batchreset@phones.example")
	}
	if _, has := host.User.Password(); has {
		return nil, nil, errors.New("host must not have a password; use ssh_key_file")
	}
	server := net.JoinHostPort(host.Hostname(), cmp.Or(host.Port(), "22"))
	config, err := clientSSH(cfg, server)
	if err != nil {
		return nil, nil, err
	}
	config.User = host.User.Username()
	t := &tunnel{
		dial:   to("tcp", server),
		config: config,
		server: server,
		socket: cmp.Or(host.Path, defaultSocket),
		client: make(chan *ssh.Client, 1),
	}
	t.client <- nil
	return t.open, t.close, nil
}

func clientSSH(cfg Config, server string) (*ssh.ClientConfig, error) {
	pem, err := readFile("ssh_key_file", cfg.SSHKeyFile)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		return nil, fmt.Errorf("ssh_key_file %s: %w", cfg.SSHKeyFile, err)
	}
	if cfg.SSHKnownHostsFile == "" {
		return nil, errors.New("ssh_known_hosts_file is needed")
	}
	known, err := knownhosts.New(cfg.SSHKnownHostsFile)
	if err != nil {
		return nil, fmt.Errorf("ssh_known_hosts_file: %w", err)
	}
	algorithms := hostKeys(known, server, key.PublicKey())
	if len(algorithms) == 0 {
		return nil, fmt.Errorf("ssh_known_hosts_file %s has no key of %s", cfg.SSHKnownHostsFile, server)
	}
	return &ssh.ClientConfig{
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback:   known,
		HostKeyAlgorithms: algorithms,
	}, nil
}

// hostKeys are the kinds of key that are known of a server. It must be asked for one of them: it
// may show a key of another kind otherwise, which would look like a stranger's.
func hostKeys(known ssh.HostKeyCallback, server string, another ssh.PublicKey) (algorithms []string) {
	wrong, _ := errors.AsType[*knownhosts.KeyError](known(server, &net.TCPAddr{IP: net.IPv4zero}, another))
	if wrong == nil {
		return nil
	}
	for _, key := range wrong.Want {
		if kind := key.Key.Type(); kind != ssh.KeyAlgoRSA {
			algorithms = append(algorithms, kind)
		} else {
			algorithms = append(algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		}
	}
	return algorithms
}

// open opens a connection to the socket. An ssh connection that has died since it was last used is
// made again, once.
func (t *tunnel) open(ctx context.Context, _, _ string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, fresh, err := t.channel(ctx)
	if err == nil || fresh || ctx.Err() != nil {
		return conn, err
	}
	conn, _, err = t.channel(ctx)
	return conn, err
}

// channel opens a channel to the socket. If that fails, fresh says that another try is of no use.
func (t *tunnel) channel(ctx context.Context) (conn net.Conn, fresh bool, err error) {
	client, fresh, err := t.login(ctx)
	if err != nil {
		return nil, true, err
	}
	conn, err = client.DialContext(ctx, "unix", t.socket)
	if _, refused := errors.AsType[*ssh.OpenChannelError](err); refused {
		return nil, true, fmt.Errorf("the way to %s: %w", t.socket, err)
	}
	if err != nil {
		t.forget(client)
	}
	return conn, fresh, err
}

// login returns the ssh connection, and whether it is a new one.
func (t *tunnel) login(ctx context.Context) (client *ssh.Client, fresh bool, err error) {
	select {
	case client = <-t.client:
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
	defer func() { t.client <- client }()
	if client != nil {
		return client, false, nil
	}
	conn, err := t.dial(ctx, "", "")
	if err != nil {
		return nil, false, err
	}
	// The handshake knows no context.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	over, channels, requests, err := ssh.NewClientConn(conn, t.server, t.config)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, false, err
	}
	client = ssh.NewClient(over, channels, requests)
	return client, true, nil
}

// forget drops an ssh connection that does not work any more.
func (t *tunnel) forget(dead *ssh.Client) {
	_ = dead.Close()
	if client := <-t.client; client != dead {
		t.client <- client
		return
	}
	t.client <- nil
}

func (t *tunnel) close() {
	if client := <-t.client; client != nil {
		_ = client.Close()
	}
	t.client <- nil
}
