package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"batchreset/api/tlsfiles"
	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
)

// tlsFlags are where the certificates of both listeners are.
type tlsFlags struct {
	tlsfiles.Files
}

func (f *tlsFlags) define(flags *pflag.FlagSet) {
	flags.StringVar(&f.Cert, "tls-cert", "", "serve https on both listeners, with the certificate in this PEM `file`, followed by those between it and its authority; read again within 10 s when it changes; none: http")
	flags.StringVar(&f.Key, "tls-key", "", "PEM `file` with the key of --tls-cert")
}

// defineClients adds the flag of processes that have callers.
func (f *tlsFlags) defineClients(flags *pflag.FlagSet) {
	flags.StringVar(&f.ClientCA, "tls-client-ca", "", "callers of --listen must have a certificate of an authority in this PEM `file`; --callers-file says whose is which; read again like --tls-cert")
}

func (f *tlsFlags) check() error {
	switch {
	case (f.Cert != "") != (f.Key != ""):
		return errors.New("--tls-cert and --tls-key go together")
	case f.ClientCA != "" && f.Cert == "":
		return errors.New("--tls-client-ca needs --tls-cert and --tls-key")
	case f.Cert == "":
		return nil
	}
	_, err := f.open(slog.New(slog.DiscardHandler))
	return err
}

// open reads the files. Errors name the flags.
func (f *tlsFlags) open(log *slog.Logger) (*tlsfiles.Certificates, error) {
	certificates, err := tlsfiles.Open(f.Files, log)
	if err != nil {
		return nil, terminal.WithCode(terminal.ExitUsage, fmt.Errorf("--tls-cert, --tls-key, --tls-client-ca: %w", err))
	}
	return certificates, nil
}

// openCertificates reads the certificates, if there are any, and has them read again when they change.
func (p *process) openCertificates(context.Context) (err error) {
	if p.ops.tls.Cert == "" {
		return nil
	}
	if p.certificates, err = p.ops.tls.open(p.log); err != nil {
		return err
	}
	p.metrics = append(p.metrics, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "batchreset_tls_certificate_expires_timestamp_seconds", Help: "When the certificate of the listeners expires.",
	}, func() float64 { return float64(p.certificates.Expires().Unix()) }))
	if exposed := redisflags.Exposed("tls-key", p.ops.tls.Key); exposed != "" {
		p.log.Warn("others may read the key of the certificate", "problem", exposed)
	}
	p.companions = append(p.companions, part{"certificates", p.certificates.Watch})
	return nil
}

// tlsConfig is how a listener speaks TLS; nil: it does not. clients says that it is the one of callers.
func (p *process) tlsConfig(clients bool) *tls.Config {
	if p.certificates == nil {
		return nil
	}
	return p.certificates.Config(clients)
}
