package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
)

// NewHealthcheckCommand serves container images that have no shell and no curl.
func NewHealthcheckCommand() *cobra.Command {
	var (
		url, ops, public string
		files            tlsFlags
	)
	cmd := &cobra.Command{
		Use:   "healthcheck [PROCESS]",
		Short: "Ask a process on this machine whether it is alive",
		Long: `Asks a process of ours for /healthz and exits 0 if it answers. For health checks in
containers: it reads the variables that say where the process listens, and asks its
operators' listener, or without BATCHRESET_OPS_LISTEN the API that BATCHRESET_LISTEN
names, or the operators' listener of an api without either. With BATCHRESET_TLS_CERT it asks by
https, and does not look at the certificate: it only asks this machine. PROCESS is api, worker or dev:
its part of a file of settings (BATCHRESET_CONFIG) counts then, and its own default address.`,
		Example: `  batchreset healthcheck
  batchreset healthcheck worker
  batchreset healthcheck --ops-listen 127.0.0.1:9091
  batchreset healthcheck --url http://127.0.0.1:9091/healthz`,
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"api", "worker", "dev"},
		RunE: func(cmd *cobra.Command, processes []string) error {
			if url == "" {
				private := "127.0.0.1:9090"
				if slices.Equal(processes, []string{"worker"}) {
					private, public = "127.0.0.1:9091", "" // it has no API
				}
				if files.ClientCA != "" { // we have no certificate to show there
					public = ""
				}
				address, err := dialable(cmp.Or(ops, public, private))
				if err != nil {
					return err
				}
				scheme := "http://"
				if files.Cert != "" {
					scheme = "https://"
				}
				url = scheme + address + "/healthz"
			}
			return askHealth(cmd.Context(), url)
		},
	}
	cmd.Flags().StringVar(&url, "url", "", "where to ask, whatever the other flags say")
	cmd.Flags().StringVar(&ops, "ops-listen", "", "`address` of the process's operators' listener")
	cmd.Flags().StringVar(&public, "listen", "", "`address` of the process's API, asked if --ops-listen is not given")
	cmd.Flags().StringVar(&files.Cert, "tls-cert", "", "the process has its certificate from this `file`: ask by https")
	cmd.Flags().StringVar(&files.ClientCA, "tls-client-ca", "", "callers of its API need a certificate of an authority in this `file`: do not ask there")
	terminal.TakePart(cmd)
	terminal.Settings(cmd.Flags(), "ops-listen", "listen", "tls-cert", "tls-client-ca")
	terminal.EndEarly(cmd)
	return cmd
}

// dialable makes an address to listen on one that this machine can connect to.
func dialable(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("--ops-listen, --listen: %w", err)
	}
	if port == "0" || port == "" {
		return "", fmt.Errorf("%q has no fixed port: give --url", address)
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

const healthPatience = 2 * time.Second // less than the HEALTHCHECK of the image, which ends it

// askHealth returns an error unless a process of ours answers that it lives.
func askHealth(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, healthPatience, fmt.Errorf("%s did not answer within %s", url, healthPatience))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	response, err := (&http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // nothing secret is sent, and the name is not the certificate's
	}).RoundTrip(request) // through no proxy
	if err != nil {
		return terminal.WithCode(terminal.ExitAway, cmp.Or(context.Cause(ctx), err))
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Code string `json:"error_code"`
	}
	switch err := json.NewDecoder(io.LimitReader(response.Body, 1<<16)).Decode(&answer); {
	case response.StatusCode != http.StatusOK:
		return terminal.WithCode(terminal.ExitStatus(response.StatusCode), fmt.Errorf("%s answered %s", url, response.Status))
	case err != nil || answer.Code != "0":
		return terminal.WithCode(terminal.ExitAway, errors.New(url+" is answered by something else"))
	}
	return nil
}
