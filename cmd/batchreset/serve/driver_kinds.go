package serve

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/worker"
	"batchreset/worker/httpdriver"
	"batchreset/worker/simulator"
)

// driverKinds are the types of drivers.
var driverKinds = map[string]driverKind{
	"simulator": kindOf(simulatorSettings.driver),
	"http":      kindOf(httpSettings.driver),
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
}

func (s httpSettings) driver() (worker.Driver, error) {
	cfg := httpdriver.Config{URL: s.URL, LookURL: s.LookURL, Idempotent: s.Idempotent, Definite: s.Definite, Words: s.Words}
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
