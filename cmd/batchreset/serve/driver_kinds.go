package serve

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"time"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/worker"
	"batchreset/worker/cph"
	"batchreset/worker/docker"
	"batchreset/worker/execdriver"
	"batchreset/worker/httpdriver"
	"batchreset/worker/simulator"
)

// driverKinds are the types of drivers.
var driverKinds = map[string]driverKind{
	"simulator": kindOf(func(s simulatorSettings, _ *slog.Logger) (worker.Driver, error) { return s.driver() }),
	"http":      kindOf(func(s httpSettings, _ *slog.Logger) (worker.Driver, error) { return s.driver() }),
	"exec":      kindOf(newExec),
	"docker":    kindOf(func(c docker.Config, _ *slog.Logger) (worker.Driver, error) { return docker.New(c) }),
	"cph":       kindOf(func(c cph.Config, _ *slog.Logger) (worker.Driver, error) { return cph.New(c) }),
}

// newExec makes an exec driver, which logs what its programs say for people.
func newExec(c execdriver.Config, log *slog.Logger) (worker.Driver, error) {
	return execdriver.New(c, func(a worker.Attempt, text string) {
		log.Info("the program says", "item", a.ItemID, "instance", a.InstanceID, "attempt", a.Number, "text", text)
	})
}

func driverTypes() []string { return slices.Sorted(maps.Keys(driverKinds)) }

// simulatorSettings are those of the simulator. Its keys are the flags' names without simulator-.
type simulatorSettings struct {
	Latency     time.Duration `yaml:"latency"`
	FailureRate float64       `yaml:"failure_rate"`
	HangRate    float64       `yaml:"hang_rate"`
	Seed        int64         `yaml:"seed"`
	Look        bool          `yaml:"look"`
}

func (s simulatorSettings) driver() (worker.Driver, error) {
	d, err := simulator.New(simulator.Config{Latency: s.Latency, FailureRate: s.FailureRate, HangRate: s.HangRate, Seed: s.Seed})
	if err != nil {
		return nil, err
	}
	if s.Look {
		return simulator.Looking{Driver: d}, nil
	}
	return d, nil
}

// httpSettings are those of the http driver. Its keys are the flags' names without driver-.
type httpSettings struct {
	URL        string   `yaml:"url"`
	LookURL    string   `yaml:"look_url"`
	TokenFile  string   `yaml:"token_file"`
	Idempotent bool     `yaml:"idempotent"`
	Definite   []int    `yaml:"definite"`
	Words      []string `yaml:"words"`

	// Only in a file.
	Body     string `yaml:"body"`
	CAFile   string `yaml:"ca_file"`
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

func (s httpSettings) driver() (worker.Driver, error) {
	certificates, err := s.tls()
	if err != nil {
		return nil, err
	}
	cfg := httpdriver.Config{
		URL: s.URL, LookURL: s.LookURL, Idempotent: s.Idempotent, Definite: s.Definite, Words: s.Words, Body: s.Body, TLS: certificates,
	}
	if s.TokenFile != "" {
		token, err := terminal.ReadSecret(s.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("token_file: %w", err)
		}
		cfg.Token = token
	}
	d, err := httpdriver.New(cfg)
	if err != nil {
		return nil, err
	}
	if s.LookURL != "" {
		return httpdriver.Looking{Driver: d}, nil
	}
	return d, nil
}

// tls are the certificates of the files, or nil.
func (s httpSettings) tls() (*tls.Config, error) {
	if s.CAFile == "" && s.CertFile == "" && s.KeyFile == "" {
		return nil, nil
	}
	c := &tls.Config{}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("ca_file has no certificate in PEM")
		}
	}
	switch {
	case s.CertFile == "" && s.KeyFile == "":
		return c, nil
	case s.CertFile == "":
		return nil, errors.New("cert_file is missing, and there is a key_file")
	case s.KeyFile == "":
		return nil, errors.New("key_file is missing, and there is a cert_file")
	}
	own, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("cert_file and key_file: %w", err)
	}
	c.Certificates = []tls.Certificate{own}
	return c, nil
}
