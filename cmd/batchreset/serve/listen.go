package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"batchreset/api"
	"batchreset/cmd/batchreset/terminal"
)

// addressFailed gives the error of an address to listen on its exit code: what the system
// has against it is not the command line's fault.
func addressFailed(err error) error {
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return terminal.WithCode(terminal.ExitOther, err)
	}
	return terminal.WithCode(terminal.ExitUsage, err)
}

// checkAddress refuses what can be no address to listen on, on any machine.
func checkAddress(flag, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.DefaultResolver.LookupPort(context.Background(), "tcp", port)
	}
	if err != nil {
		return fmt.Errorf("--%s must be an address such as 127.0.0.1:8080 or :8080, not %q", flag, address)
	}
	return nil
}

// bind opens a listener; errors name the flag.
func bind(ctx context.Context, flag, address string) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, addressFailed(fmt.Errorf("--%s: %w", flag, err))
	}
	return l, nil
}

// drainTimeout is how long requests may take to end when the process stops.
const drainTimeout = 10 * time.Second

// serve answers requests until ctx ends, then lets those under way end. With a config it speaks TLS.
func serve(ctx context.Context, l net.Listener, config *tls.Config, h http.Handler, log *slog.Logger) error {
	server := api.NewHTTPServer(h, log.With("listener", l.Addr().String()))
	failed := make(chan error, 1)
	if config == nil {
		go func() { failed <- server.Serve(l) }()
	} else {
		server.TLSConfig = config
		go func() { failed <- server.ServeTLS(l, "", "") }()
	}
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := server.Shutdown(drain)
	if err != nil {
		err = errors.Join(fmt.Errorf("stop %s: %w", l.Addr(), err), server.Close())
	}
	if ended := <-failed; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// sendOff has callers open their next connection, once stopping is closed: it will lead to
// a process that goes on.
func sendOff(stopping <-chan struct{}, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-stopping:
			w.Header().Set("Connection", "close")
		default:
		}
		next.ServeHTTP(w, r)
	})
}

// urlOf is the address of a listener as a URL that works on this machine.
func (p *process) urlOf(l net.Listener) string {
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return l.Addr().String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	scheme := "http://"
	if p.certificates != nil {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port)
}
