package call

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"
)

// certificateFlags say whom a command trusts as the server, and which certificate it shows.
type certificateFlags struct {
	ca, cert, key string
}

func (f *certificateFlags) define(flags *pflag.FlagSet) {
	flags.StringVar(&f.ca, "ca-file", "", "trust servers whose certificate is of an authority in this PEM `file`, and no others (default: those that the system trusts)")
	flags.StringVar(&f.cert, "cert-file", "", "show the server the certificate in this PEM `file`, which may stand for a token")
	flags.StringVar(&f.key, "key-file", "", "PEM `file` with the key of --cert-file")
}

// before are the files of the flags, and where these say nothing those of a context.
func (f *certificateFlags) before(kept savedContext) *certificateFlags {
	both := *f
	if both.ca == "" {
		both.ca = kept.CA
	}
	if both.cert == "" && both.key == "" {
		both.cert, both.key = kept.Cert, kept.Key
	}
	return &both
}

// keep has a context name the files of the flags, wherever its commands are started.
func (f *certificateFlags) keep(in *savedContext) (err error) {
	for _, file := range []struct {
		name string
		to   *string
	}{{f.ca, &in.CA}, {f.cert, &in.Cert}, {f.key, &in.Key}} {
		if file.name == "" {
			continue
		}
		if *file.to, err = filepath.Abs(file.name); err != nil {
			return err
		}
	}
	return nil
}

// config is nil if there is nothing to say.
func (f *certificateFlags) config() (*tls.Config, error) {
	if *f == (certificateFlags{}) {
		return nil, nil //nolint:nilnil // as documented
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if (f.cert != "") != (f.key != "") {
		return nil, errors.New("--cert-file and --key-file go together")
	}
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("--ca-file: %w", err)
		}
		if config.RootCAs = x509.NewCertPool(); !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("--ca-file: there is no certificate in %s", f.ca)
		}
	}
	if f.cert != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("--cert-file, --key-file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
