package serve

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/worker"
	"batchreset/worker/httpdriver"
	"batchreset/worker/simulator"
)

// workerFlags are the settings of a worker and its driver.
type workerFlags struct {
	worker.Config

	driver     string
	url        string
	lookURL    string
	tokenFile  string
	idempotent bool
	definite   []int
	words      []string
	upstream   worker.UpstreamConfig
	simulator  simulator.Config
	looks      bool // the simulator

	webhookPrivate bool
}

func (f *workerFlags) define(flags *pflag.FlagSet) {
	flags.IntVar(&f.Concurrency, "concurrency", 100, "attempts side by side in this process")
	flags.IntVar(&f.Lanes, "lanes", 0, "asynq servers that share this process's work: each takes one task after the other; 0 = 32 (4 on the embedded Redis), or --concurrency if that is less")
	flags.IntVar(&f.MaxAttempts, "max-attempts", 5, "failures after which an item is given up; calls without an answer are counted apart, to the same number")
	flags.DurationVar(&f.AttemptTimeout, "attempt-timeout", 10*time.Minute, "time for one attempt")
	flags.DurationVar(&f.LookPatience, "look-patience", time.Minute, "how long a driver that can look waits until it sees that a reset has happened which the control plane calls done")
	flags.DurationVar(&f.ShutdownTimeout, "shutdown-timeout", 0, "time for running attempts to end when the worker stops (default: the attempt timeout)")
	flags.Float64Var(&f.upstream.Rate, "driver-rate", 0, "resets that this process starts per second; 0 = no bound")
	flags.IntVar(&f.upstream.Concurrency, "driver-concurrency", 0, "resets that this process has under way; 0 = no bound but --concurrency")
	flags.DurationVar(&f.simulator.Latency, "simulator-latency", time.Second, "simulator: how long a reset takes, about")
	flags.Float64Var(&f.simulator.FailureRate, "simulator-failure-rate", 0, "simulator: share of attempts that fail, 0 to 1")
	flags.Float64Var(&f.simulator.HangRate, "simulator-hang-rate", 0, "simulator: share of attempts that never answer, 0 to 1")
	flags.BoolVar(&f.looks, "simulator-look", true, "simulator: look at each instance after its reset, and keep what was seen as evidence")
	flags.Int64Var(&f.simulator.Seed, "simulator-seed", 1, "simulator: the same seed gives the same failures")
}

func (f *workerFlags) defineDriver(flags *pflag.FlagSet) {
	flags.StringVar(&f.driver, "driver", "", "what resets the instances: 'http' or 'simulator' (required)")
	flags.StringVar(&f.url, "driver-url", "", "http: `template` of the URL that resets an instance, with {instance_id}")
	flags.StringVar(&f.lookURL, "driver-look-url", "", "http: `template` of a URL on the same host that says whether an instance is in its initial state, with {instance_id}: a GET answers {\"initial\":true|false,\"evidence\":…}; a reset counts as done only once it is seen there")
	flags.StringVar(&f.tokenFile, "driver-token-file", "", "http: `file` with the bearer token for the control plane")
	flags.BoolVar(&f.idempotent, "driver-idempotent", false, "http: the control plane honours Idempotency-Key, so a call whose answer was lost may be repeated")
	flags.IntSliceVar(&f.definite, "driver-definite", nil, "http: `statuses` from 500 to 599 after which a reset is certainly not done and not under way, such as 500,503; without it nobody knows after a 5xx")
	flags.StringSliceVar(&f.words, "driver-words", nil, "http: `words` of the control plane for the states of a reset, such as done=wiped,running=wiping,failed=broken, beside those that are known anyway")
}

// defaultLanes is where more lanes stopped making a worker faster: see
// deploy/BENCHMARKS.md.
const defaultLanes = 32

// check completes and checks the settings.
func (f *workerFlags) check() error {
	if f.Lanes == 0 {
		f.Lanes = min(defaultLanes, f.Concurrency)
	}
	if f.ShutdownTimeout == 0 {
		f.ShutdownTimeout = f.AttemptTimeout
	}
	return errors.Join(f.Check(), f.upstream.Check())
}

// driverSettings are the settings that one driver has and others do not, by what their flags
// begin with. The bounds of --driver-rate and --driver-concurrency are every driver's.
var driverSettings = map[string][]string{
	"http":      {"driver-url", "driver-look-url", "driver-token-file", "driver-idempotent", "driver-definite", "driver-words"},
	"simulator": {"simulator-"},
}

// checkDriver refuses settings that the driver does not have: who gives them expects another
// one. Only where the driver is named on the command line, and they are not, are they left
// from another time.
func (f *workerFlags) checkDriver(flags *pflag.FlagSet) (err error) {
	named := flags.Lookup("driver")
	flags.Visit(func(flag *pflag.Flag) {
		if terminal.FromEnvironment(flag) && !terminal.FromEnvironment(named) {
			return
		}
		for driver, names := range driverSettings {
			if driver != f.driver && f.driver != "" && slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(flag.Name, name) }) {
				err = errors.Join(err, fmt.Errorf("--%s is a setting of --driver %s, and this is --driver %s", flag.Name, driver, f.driver))
			}
		}
	})
	return err
}

// newDriver makes the driver of the flags.
func (f *workerFlags) newDriver() (worker.Driver, error) {
	switch f.driver {
	case "simulator":
		d, err := simulator.New(f.simulator)
		if err != nil {
			return nil, fmt.Errorf("--simulator-%w", err)
		}
		if f.looks {
			return simulator.Looking{Driver: d}, nil
		}
		return d, nil
	case "http":
		cfg := httpdriver.Config{URL: f.url, LookURL: f.lookURL, Idempotent: f.idempotent, Definite: f.definite, Words: f.words}
		if f.url == "" {
			return nil, errors.New("--driver-url is missing; --driver http needs it")
		}
		if f.tokenFile != "" {
			token, err := terminal.ReadSecret(f.tokenFile)
			if err != nil {
				return nil, fmt.Errorf("--driver-token-file: %w", err)
			}
			cfg.Token = token
		}
		d, err := httpdriver.New(cfg)
		if err != nil {
			return nil, err
		}
		if f.lookURL != "" {
			return httpdriver.Looking{Driver: d}, nil
		}
		return d, nil
	case "":
		return nil, errors.New("--driver is missing: 'http' or 'simulator'")
	}
	return nil, fmt.Errorf("--driver must be 'http' or 'simulator', not %q", f.driver)
}

// metricsOf is a worker's metrics with its driver's name.
func (f *workerFlags) metricsOf(w *worker.Worker) prometheus.Collector {
	return prometheus.WrapCollectorWith(prometheus.Labels{"driver": f.driver}, w)
}
