package serve

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/worker"
)

// workerFlags are the settings of a worker and its driver.
type workerFlags struct {
	worker.Config

	drivers   string // file
	driver    string // type
	http      httpSettings
	simulator simulatorSettings
	upstream  worker.UpstreamConfig

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
	flags.BoolVar(&f.simulator.Look, "simulator-look", true, "simulator: look at each instance after its reset, and keep what was seen as evidence")
	flags.Int64Var(&f.simulator.Seed, "simulator-seed", 1, "simulator: the same seed gives the same failures")
}

func (f *workerFlags) defineDriver(flags *pflag.FlagSet) {
	flags.StringVar(&f.driver, "driver", "", "what resets the instances: 'http' or 'simulator'; other types need --drivers")
	flags.StringVar(&f.drivers, "drivers", "", "YAML `file` with named drivers and their settings, instead of --driver and the flags for it: see 'batchreset drivers'")
	terminal.Alternatives(flags, "driver", "drivers")
	flags.StringVar(&f.http.URL, "driver-url", "", "http: `template` of the URL that resets an instance, with {instance_id}")
	flags.StringVar(&f.http.LookURL, "driver-look-url", "", "http: `template` of a URL on the same host that says whether an instance is in its initial state, with {instance_id}: a GET answers {\"initial\":true|false,\"evidence\":…}; a reset counts as done only once it is seen there")
	flags.StringVar(&f.http.TokenFile, "driver-token-file", "", "http: `file` with the bearer token for the control plane")
	flags.BoolVar(&f.http.Idempotent, "driver-idempotent", false, "http: the control plane honours Idempotency-Key, so a call whose answer was lost may be repeated")
	flags.IntSliceVar(&f.http.Definite, "driver-definite", nil, "http: `statuses` from 500 to 599 after which a reset is certainly not done and not under way, such as 500,503; without it nobody knows after a 5xx")
	flags.StringSliceVar(&f.http.Words, "driver-words", nil, "http: `words` of the control plane for the states of a reset, such as done=wiped,running=wiping,failed=broken, beside those that are known anyway")
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
// one. Only where the driver is named in a stronger place, such as the command line, and they are not, are
// they left from another time.
func (f *workerFlags) checkDriver(flags *pflag.FlagSet) (err error) {
	named := flags.Lookup("driver")
	if f.drivers != "" {
		named = flags.Lookup("drivers")
	}
	flags.Visit(func(flag *pflag.Flag) {
		of, _ := terminal.OriginOf(flag)
		if than, _ := terminal.OriginOf(named); of < than {
			return
		}
		if f.drivers != "" && (strings.HasPrefix(flag.Name, "driver-") || strings.HasPrefix(flag.Name, "simulator-")) {
			err = errors.Join(err, fmt.Errorf("--%s does not go together with --drivers: write it into the file", flag.Name))
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

// newDrivers makes the drivers: the default one of the flags, or those of the file that they name.
func (f *workerFlags) newDrivers(log *slog.Logger) ([]driverEntry, error) {
	if f.drivers != "" {
		entries, err := readDrivers(f.drivers, log)
		if err != nil {
			return nil, fmt.Errorf("--drivers %s: %w", f.drivers, err)
		}
		f.driver = tasks.DefaultDriver
		return entries, nil
	}
	driver, err := f.newDriver()
	return []driverEntry{{
		Name: tasks.DefaultDriver, Type: f.driver, Concurrency: f.upstream.Concurrency, Rate: f.upstream.Rate, driver: driver,
	}}, err
}

// newDriver makes the driver of the flags.
func (f *workerFlags) newDriver() (d worker.Driver, err error) {
	switch {
	case f.driver == "simulator":
		d, err = f.simulator.driver()
		return d, asFlag("--simulator-", err)
	case f.driver == "http" && f.http.URL == "":
		return nil, errors.New("--driver-url is missing; --driver http needs it")
	case f.driver == "http":
		d, err = f.http.driver()
		return d, asFlag("--driver-", err)
	case f.driver == "":
		return nil, errors.New("--driver is missing: 'http' or 'simulator', or --drivers with a file")
	case slices.Contains(driverTypes(), f.driver):
		return nil, fmt.Errorf("--driver %s has settings that need a file: --drivers", f.driver)
	}
	return nil, fmt.Errorf("--driver must be 'http' or 'simulator', not %q", f.driver)
}

// asFlag turns the key at the beginning of a driver's error into the flag for it.
func asFlag(prefix string, err error) error {
	if err == nil {
		return nil
	}
	key := firstWord(err)
	return fmt.Errorf("%s%s%w", prefix, strings.ReplaceAll(key, "_", "-"), &rest{err, len(key)})
}

// rest is an error without the beginning of its text.
type rest struct {
	error
	from int
}

func (e *rest) Error() string { return e.error.Error()[e.from:] }

func (e *rest) Unwrap() error { return e.error }

// HasDriver reports whether the flags of a worker name a driver.
func HasDriver(flags *pflag.FlagSet) bool { return flags.Changed("driver") || flags.Changed("drivers") }
