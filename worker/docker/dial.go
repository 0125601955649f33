package docker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path"
	"time"
)

// dialTimeout bounds the making of a connection, handshakes included.
const dialTimeout = 10 * time.Second

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// dialer returns the way to the engine, whatever address is asked for, and what closes it.
func dialer(cfg Config) (dial dialFunc, closer func(), err error) {
	host, err := url.Parse(cfg.Host)
	if err != nil {
		return nil, nil, errors.New("host is not a URL") // it may have a password in it
	}
	if host.RawQuery != "" || host.Fragment != "" {
		return nil, nil, errors.New("host must not have a query or a fragment")
	}
	if err := cfg.strangers(host.Scheme); err != nil {
		return nil, nil, err
	}
	nothing := func() {}
	switch host.Scheme {
	case "unix":
		dial, err = dialUnix(host)
		return dial, nothing, err
	case "tcp":
		dial, err = dialTCP(host, cfg)
		return dial, nothing, err
	case "ssh":
		return dialSSH(host, cfg)
	}
	return nil, nil, errors.New("host must begin with unix://, tcp:// or ssh://")
}

// strangers refuses settings of another way to the engine than the one that is chosen: whoever
// writes them counts on them.
func (c *Config) strangers(scheme string) error {
	for _, file := range []struct{ scheme, key, value string }{
		{"tcp", "tls_ca_file", c.TLSCAFile},
		{"tcp", "tls_cert_file", c.TLSCertFile},
		{"tcp", "tls_key_file", c.TLSKeyFile},
		{"ssh", "ssh_key_file", c.SSHKeyFile},
		{"ssh", "ssh_known_hosts_file", c.SSHKnownHostsFile},
	} {
		if file.value != "" && file.scheme != scheme {
			return fmt.Errorf("%s is only for a host that begins with %s://", file.key, file.scheme)
		}
	}
	return nil
}

func dialUnix(host *url.URL) (dialFunc, error) {
	if host.Host != "" || !path.IsAbs(host.Path) {
		return nil, errors.New("host must have the path of a socket, like unix:///var/run/docker.sock")
	}
	return to("unix", host.Path), nil
}

func dialTCP(host *url.URL, cfg Config) (dialFunc, error) {
	if host.Hostname() == "" || host.Port() == "" || host.User != nil || host.Path != "" {
		return nil, errors.New("host must have a name and a port and nothing else, like tcp://phones.example:2376")
	}
	plain := to("tcp", host.Host)
	if cfg.TLSCAFile == "" && cfg.TLSCertFile == "" && cfg.TLSKeyFile == "" {
		if ip := net.ParseIP(host.Hostname()); ip == nil || !ip.IsLoopback() {
			return nil, errors.New("tls_ca_file, tls_cert_file and tls_key_file are needed: without them tcp may only lead to an address of this machine, like 127.0.0.1")
		}
		return plain, nil
	}
	secure, err := clientTLS(cfg)
	if err != nil {
		return nil, err
	}
	secure.ServerName = host.Hostname()
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		return handshake(ctx, plain, secure)
	}, nil
}

// handshake makes a connection with TLS.
func handshake(ctx context.Context, plain dialFunc, secure *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := plain(ctx, "", "")
	if err != nil {
		return nil, err
	}
	over := tls.Client(conn, secure)
	if err := over.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return over, nil
}

func to(network, address string) dialFunc {
	d := net.Dialer{Timeout: dialTimeout}
	return func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, network, address) }
}

func clientTLS(cfg Config) (*tls.Config, error) {
	authorities, err := readFile("tls_ca_file", cfg.TLSCAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("tls_ca_file %s has no certificate in PEM", cfg.TLSCAFile)
	}
	certificate, err := readFile("tls_cert_file", cfg.TLSCertFile)
	if err != nil {
		return nil, err
	}
	key, err := readFile("tls_key_file", cfg.TLSKeyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, fmt.Errorf("tls_cert_file and tls_key_file do not fit: %w", err)
	}
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, nil
}

// readFile reads the file that a setting names.
func readFile(setting, name string) ([]byte, error) {
	if name == "" {
		return nil, fmt.Errorf("%s is needed", setting)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return content, nil
}
