package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/hibiken/asynqmon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/term"

	"batchreset/api"
	"batchreset/api/ops"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/worker"
	"batchreset/worker/httpdriver"
	"batchreset/worker/simulator"
	"batchreset/worker/webhook"
)

// newLogger writes text on a terminal and JSON otherwise.
func newLogger(w io.Writer) *slog.Logger {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(visibly{w}, nil))
	}
	return slog.New(slog.NewJSONHandler(visibly{w}, nil))
}

// visibly writes whole lines with text of others in them.
type visibly struct{ io.Writer }

func (w visibly) Write(lines []byte) (int, error) {
	_, err := io.WriteString(w.Writer, tasks.VisibleLines(string(lines)))
	return len(lines), err
}

// redisFlags say where Redis is.
type redisFlags struct {
	url      string
	file     string
	patience time.Duration
}

func (f *redisFlags) define(flags *pflag.FlagSet, value string) {
	flags.StringVar(&f.url, "redis", value, "`URL` of Redis: redis://, redis-sentinel://host:26379?master=NAME or redis-cluster://, with TLS rediss…; a password in it shows in the list of processes (ps), so give it with --redis-file")
	flags.StringVar(&f.file, "redis-file", "", "read the URL of Redis from this `file`: the way to give one with a password")
	alternatives(flags, "redis", "redis-file")
}

// definePatience is for api and worker, which are started together with Redis.
func (f *redisFlags) definePatience(flags *pflag.FlagSet) {
	flags.DurationVar(&f.patience, "redis-patience", 30*time.Second, "how long to wait at the start for a Redis that cannot be reached yet, or loads its data; 0 = not at all")
}

// defineReplicas is for the processes that change jobs.
func defineReplicas(flags *pflag.FlagSet, n *int) {
	flags.IntVar(n, "commit-replicas", 0, "how many Redis replicas must have a change of a job before it counts; give api and worker the same")
}

// defineQueues is for api and worker.
func defineQueues(flags *pflag.FlagSet, n *int) {
	flags.IntVar(n, "queues", 16, "how many asynq queues jobs are spread over, tenant by tenant; give api and worker the same")
}

// defineFullAt is for everything that accepts new work.
func defineFullAt(flags *pflag.FlagSet, percent *int) {
	flags.IntVar(percent, "full-at", redisdb.DefaultFullAt, "`percent` of Redis's maxmemory from which no new work is accepted: submits, retries, imports; give api and worker the same")
}

func checkFullAt(percent int) error {
	if percent < 1 || percent > 100 {
		return fmt.Errorf("--full-at must be from 1 to 100, not %d", percent)
	}
	return nil
}

// checkShared checks what api and worker have in common.
func checkShared(db redisdb.Options) error {
	switch {
	case db.CommitReplicas < 0:
		return errors.New("--commit-replicas must not be negative")
	case db.Queues < 1 || db.Queues > 1024:
		return fmt.Errorf("--queues must be from 1 to 1024, not %d", db.Queues)
	}
	return checkFullAt(db.FullAt)
}

// given reports whether there is a Redis at all.
func (f *redisFlags) given() bool { return f.url != "" || f.file != "" }

// open connects to the Redis of the flags.
func (f *redisFlags) open(ctx context.Context, opts redisdb.Options) (*redisdb.DB, error) {
	opts, err := f.locate(opts)
	if err != nil {
		return nil, err
	}
	db, err := openWithin(ctx, opts)
	return db, f.named(err)
}

// await is open for a process that may have been started before its Redis. Without an error
// and without a DB the process was stopped while it waited.
func (f *redisFlags) await(ctx context.Context, opts redisdb.Options, log *slog.Logger) (*redisdb.DB, error) {
	if f.patience < 0 {
		return nil, withCode(exitUsage, errors.New("--redis-patience must not be negative"))
	}
	opts, err := f.locate(opts)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	db, err := openWithin(ctx, opts)
	if redisdb.Passing(err) && f.patience > 0 {
		log.Warn("waiting for Redis", "at_most", f.patience, "error", err)
		for redisdb.Passing(err) && time.Since(began) < f.patience && rest(ctx, lookAgain) {
			db, err = openWithin(ctx, opts)
		}
		if err == nil {
			log.Info("Redis is there, going on", "waited", time.Since(began))
		}
	}
	if err != nil && ctx.Err() != nil {
		log.Info("stopped before Redis was there")
		return nil, nil //nolint:nilerr // nobody waits for it any more
	}
	return db, f.named(err)
}

const (
	// openTimeout bounds one try to connect to Redis, lookAgain is when the next one follows.
	openTimeout = 5 * time.Second
	lookAgain   = 500 * time.Millisecond
)

func openWithin(ctx context.Context, opts redisdb.Options) (*redisdb.DB, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	return redisdb.Open(ctx, opts)
}

// rest waits, and reports whether ctx lasted as long.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// locate completes the options with the URL of the flags.
func (f *redisFlags) locate(opts redisdb.Options) (redisdb.Options, error) {
	opts.URL = f.url
	if f.file == "" {
		return opts, nil
	}
	text, err := readSecret(f.file)
	if err != nil {
		return opts, withCode(exitUsage, fmt.Errorf("--redis-file: %w", err))
	}
	opts.URL = text
	return opts, nil
}

// named has an error about the URL begin with the flag that it came from.
func (f *redisFlags) named(err error) error {
	switch {
	case err == nil:
		return nil
	case f.file != "":
		return redisFailed(fmt.Errorf("--redis-file: %w", sentence(err)))
	}
	return redisFailed(fmt.Errorf("--redis: %w", sentence(err)))
}

// sentence drops the code from an error that is shown on a terminal.
func sentence(err error) error {
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		return errors.New(e.Message)
	}
	return err
}

// readSecret reads a secret from a file, without the line end that editors add.
func readSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(b))
	if secret == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return secret, nil
}

// apiFlags are the settings of the API.
type apiFlags struct {
	listen       string
	fleet        string
	maxInstances int
	maxWaiters   int
	basePath     string
	origins      []string
	drainDelay   time.Duration // of api alone
	db           redisdb.Options
}

func (f *apiFlags) define(flags *pflag.FlagSet, listen, fleet string) {
	flags.StringVar(&f.listen, "listen", listen, "`address` of the public API")
	flags.StringVar(&f.fleet, "fleet", fleet, "which instances may be reset: 'registered' = those in the fleet, by their tenant; 'open' = also any that is not registered")
	flags.IntVar(&f.maxInstances, "max-instances", tasks.DefaultMaxInstances, "how many instances one request may list, at most 100")
	flags.StringVar(&f.basePath, "base-path", "", "the `path` below which callers find the API behind a proxy, such as /reset: what answers say about places begins with it; the proxy may leave it on requests or take it off")
	flags.StringSliceVar(&f.origins, "cors-origins", nil, "`origins` such as https://app.example whose pages may read the API's answers in a browser; none: only the API's own may")
	flags.IntVar(&f.maxWaiters, "max-waiters", 20_000, "how many long polls and streams may wait at the same time, at 30 to 55 kB each, of one tenant no more than are left free, which is half of them if no other waits; further ones are told to poll")
	flags.DurationVar(&f.db.JobRetention, "job-retention", 7*24*time.Hour, "how long a job record is kept after its job has finished")
	flags.DurationVar(&f.db.GiveUpAfter, "give-up-after", 24*time.Hour, "an item that has not ended after this time never starts again")
	flags.DurationVar(&f.db.AuditRetention, "audit-retention", 30*24*time.Hour, "how long entries of the audit trail are kept")
	flags.IntVar(&f.db.MaxBacklog, "max-backlog", defaultBacklog, "how many instances may wait to be reset, about, before submits are refused with 429; 0 = any number")
	flags.DurationVar(&f.db.TaskRetention, "task-retention", 15*time.Minute, "how long finished tasks stay on the asynq dashboard; 0 = not at all")
}

func (f *apiFlags) check() error {
	switch {
	case f.fleet != "registered" && f.fleet != "open":
		return fmt.Errorf("--fleet must be 'registered' or 'open', not %q", f.fleet)
	case f.maxInstances < 1 || f.maxInstances > tasks.MaxMaxInstances:
		return fmt.Errorf("--max-instances must be from 1 to %d, not %d", tasks.MaxMaxInstances, f.maxInstances)
	case f.maxWaiters < 0:
		return errors.New("--max-waiters must not be negative")
	case f.drainDelay < 0:
		return errors.New("--drain-delay must not be negative")
	case f.db.JobRetention < time.Minute:
		return fmt.Errorf("--job-retention must be at least 1m, not %s", f.db.JobRetention)
	case f.db.GiveUpAfter < time.Second:
		return fmt.Errorf("--give-up-after must be at least 1s, not %s", f.db.GiveUpAfter)
	case f.db.AuditRetention < time.Hour:
		return fmt.Errorf("--audit-retention must be at least 1h, not %s", f.db.AuditRetention)
	case f.db.MaxBacklog < 0:
		return errors.New("--max-backlog must not be negative")
	case f.db.TaskRetention < 0:
		return errors.New("--task-retention must not be negative")
	}
	for _, origin := range f.origins {
		if err := api.CheckOrigin(origin); err != nil {
			return fmt.Errorf("--cors-origins: %w", err)
		}
	}
	return checkPath("base-path", f.basePath)
}

func (f *apiFlags) handler(stopping <-chan struct{}, db *redisdb.DB, ops opsFlags, tracer trace.Tracer, log *slog.Logger) *api.API {
	return api.New(api.Config{
		MaxInstances: f.maxInstances, AllowUnregistered: f.fleet == "open", MaxWaiters: f.maxWaiters, TrustedProxies: ops.trusted(),
		Tracer: tracer, Version: versionText(), BasePath: f.basePath, Origins: f.origins, Stopping: stopping,
	}, db, log)
}

// defaultBacklog is five times what one tenant may have open by default. Queued, each is
// about 1 kB of Redis.
const defaultBacklog = 500_000

// sayLimits tells the log what tenants are limited to that have no limits of their own.
func (f *apiFlags) sayLimits(ctx context.Context, db *redisdb.DB, log *slog.Logger) error {
	all, err := db.Policy(ctx, "")
	if err != nil {
		return err
	}
	log.Info("limits of a tenant without its own ('batchreset tenant limit' changes them; 0 = none)",
		"requests_per_second", *all.RequestsPerSecond, "open_instances", *all.OpenInstances,
		"instances_per_hour", *all.InstancesPerHour, "max_failures", *all.MaxFailures, "max_backlog", f.db.MaxBacklog)
	return nil
}

// workerFlags are the settings of a worker and its driver.
type workerFlags struct {
	worker.Config

	driver     string
	url        string
	tokenFile  string
	idempotent bool
	definite   []int
	words      []string
	upstream   worker.UpstreamConfig
	simulator  simulator.Config

	webhookPrivate bool
}

func (f *workerFlags) define(flags *pflag.FlagSet) {
	flags.IntVar(&f.Concurrency, "concurrency", 100, "attempts side by side in this process")
	flags.IntVar(&f.Lanes, "lanes", 0, "asynq servers that share this process's work: each takes one task after the other; 0 = 32 (4 on the embedded Redis), or --concurrency if that is less")
	flags.IntVar(&f.MaxAttempts, "max-attempts", 5, "failures after which an item is given up; calls without an answer are counted apart, to the same number")
	flags.DurationVar(&f.AttemptTimeout, "attempt-timeout", 10*time.Minute, "time for one attempt")
	flags.DurationVar(&f.ShutdownTimeout, "shutdown-timeout", 0, "time for running attempts to end when the worker stops (default: the attempt timeout)")
	flags.Float64Var(&f.upstream.Rate, "driver-rate", 0, "resets that this process starts per second; 0 = no bound")
	flags.IntVar(&f.upstream.Concurrency, "driver-concurrency", 0, "resets that this process has under way; 0 = no bound but --concurrency")
	flags.DurationVar(&f.simulator.Latency, "simulator-latency", time.Second, "simulator: how long a reset takes, about")
	flags.Float64Var(&f.simulator.FailureRate, "simulator-failure-rate", 0, "simulator: share of attempts that fail, 0 to 1")
	flags.Float64Var(&f.simulator.HangRate, "simulator-hang-rate", 0, "simulator: share of attempts that never answer, 0 to 1")
	flags.Int64Var(&f.simulator.Seed, "simulator-seed", 1, "simulator: the same seed gives the same failures")
}

func (f *workerFlags) defineDriver(flags *pflag.FlagSet) {
	flags.StringVar(&f.driver, "driver", "", "what resets the instances: 'http' or 'simulator' (required)")
	flags.StringVar(&f.url, "driver-url", "", "http: `template` of the URL that resets an instance, with {instance_id}")
	flags.StringVar(&f.tokenFile, "driver-token-file", "", "http: `file` with the bearer token for the control plane")
	flags.BoolVar(&f.idempotent, "driver-idempotent", false, "http: the control plane honours Idempotency-Key, so a call whose answer was lost may be repeated")
	flags.IntSliceVar(&f.definite, "driver-definite", nil, "http: `statuses` from 500 to 599 after which a reset is certainly not done and not under way, such as 500,503; without it nobody knows after a 5xx")
	flags.StringSliceVar(&f.words, "driver-words", nil, "http: `words` of the control plane for the states of a reset, such as done=wiped,running=wiping,failed=broken, beside those that are known anyway")
}

// defineWebhookPrivate is for what sends webhooks and for what checks their URLs.
func defineWebhookPrivate(flags *pflag.FlagSet, allowed *bool, value bool) {
	flags.BoolVar(allowed, "webhook-allow-private", value, "allow webhooks over http, and to addresses that are not public: loopback, private, link-local, metadata")
}

// newTeller makes what sends webhooks.
func newTeller(db *redisdb.DB, allowPrivate bool, tracer trace.Tracer, log *slog.Logger) *worker.Teller {
	return worker.NewTeller(redisdb.WebhookQueue, db, webhook.NewSender(userAgent(), allowPrivate, db.Now), db.NewServer, tracer, log)
}

func userAgent() string { return "batchreset/" + versionText() }

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
	"http":      {"driver-url", "driver-token-file", "driver-idempotent", "driver-definite", "driver-words"},
	"simulator": {"simulator-"},
}

// checkDriver refuses settings that the driver does not have: who gives them expects another
// one. Only where the driver is named on the command line, and they are not, are they left
// from another time.
func (f *workerFlags) checkDriver(flags *pflag.FlagSet) (err error) {
	named := flags.Lookup("driver")
	flags.Visit(func(flag *pflag.Flag) {
		if isFromEnvironment(flag) && !isFromEnvironment(named) {
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
		return d, nil
	case "http":
		cfg := httpdriver.Config{URL: f.url, Idempotent: f.idempotent, Definite: f.definite, Words: f.words}
		if f.url == "" {
			return nil, errors.New("--driver-url is missing; --driver http needs it")
		}
		if f.tokenFile != "" {
			token, err := readSecret(f.tokenFile)
			if err != nil {
				return nil, fmt.Errorf("--driver-token-file: %w", err)
			}
			cfg.Token = token
		}
		d, err := httpdriver.New(cfg)
		if err != nil {
			return nil, err
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

// opsFlags are the settings of what operators see, and of what every listener has.
type opsFlags struct {
	listen   string
	proxies  []net.IPNet
	path     string
	otlp     string
	traceURL string
	openHere bool
}

func (f *opsFlags) check() error {
	return errors.Join(checkPath("ops-path", f.path), checkTracing(f.otlp), checkTraceURL(f.traceURL))
}

func (f *opsFlags) define(flags *pflag.FlagSet, listen string) {
	flags.StringVar(&f.otlp, "otlp-endpoint", "", "send traces to the OTLP/HTTP collector at this `URL`, such as http://localhost:4318; none unless OTEL_EXPORTER_OTLP_ENDPOINT names one")
	flags.StringVar(&f.path, "ops-path", "", "the `path` below which browsers find the operators' site behind a proxy, such as /ops; the proxy may leave it on requests or take it off")
	flags.StringVar(&f.traceURL, "trace-url", "", "where operators look at a trace: a `URL` with {trace_id} in it")
	flags.StringVar(&f.listen, "ops-listen", listen, "`address` of the operators' listener: the site is for operators, who log in; health and metrics are for everybody who reaches it")
	flags.IPNetSliceVar(&f.proxies, "trusted-proxies", nil, "`networks` (CIDR) of proxies whose X-Forwarded-For says where a request comes from, on both listeners; none: the connection does")
}

func (f *opsFlags) trusted() (networks []*net.IPNet) {
	for _, network := range f.proxies {
		networks = append(networks, &network)
	}
	return networks
}

func (f *opsFlags) handler(stopping <-chan struct{}, db *redisdb.DB, log *slog.Logger, metrics ...prometheus.Collector) http.Handler {
	return ops.New(ops.Config{
		Redis: asynqmon.Options{RedisConnOpt: db}, Store: db, TraceURL: f.traceURL, Path: f.path, Stopping: stopping,
		ClientIP: api.ClientIP(f.trusted()), OpenHere: f.openHere, Log: log,
	}, append(metrics, db, buildInfo())...)
}

// pathPrefix is what a path below which something is found can be.
var pathPrefix = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*$`)

func checkPath(flag, path string) error {
	if !pathPrefix.MatchString(path) || strings.Contains(path+"/", "/./") || strings.Contains(path+"/", "/../") {
		return fmt.Errorf("--%s must be a path such as /reset, without a slash at its end, not %q", flag, path)
	}
	return nil
}

// logging has every entry of the audit trail in the log, too, keeps those that have to be
// written later, which is for WriteTrail, and has in the log what lists leave out.
func logging(opts redisdb.Options, log *slog.Logger) redisdb.Options {
	opts.Log, opts.LateEntries = log, 10_000
	opts.Audited = func(e tasks.AuditEntry, missing error) {
		level, attrs := slog.LevelInfo, e.LogAttrs()
		if missing != nil {
			level, attrs = slog.LevelWarn, append(attrs, slog.Bool("in_trail", false), slog.String("error", missing.Error()))
		}
		log.LogAttrs(context.Background(), level, "audit", attrs...)
	}
	return opts
}

// inviteFirst prints a link that makes the first operator, if there is none. It goes to
// standard output, for people: the log, which goes to standard error, is often kept and read
// elsewhere, by more of them than may log in. Without a link the service works all the same.
func inviteFirst(ctx context.Context, std *streams, db *redisdb.DB, site string, log *slog.Logger) {
	secret := rand.Text()
	invited, err := db.InviteFirst(ctx, secret, firstLasts)
	switch {
	case err != nil:
		log.Warn("no link was made for the first operator of the site; 'batchreset operator add' makes one", "error", err)
	case invited:
		log.Warn("the operators' site has no operator yet, so it is closed: standard output has a link that makes the first one, and so does 'batchreset operator add'")
		fmt.Fprintf(std.out, `There is no operator yet. Whoever opens this link first becomes one, within an hour:

  %s

It works once. Under another name of the site, through a proxy for example, put that in its place.

`, ops.FirstOperatorLink(site, secret))
	}
}

// firstLasts is how long the link for the first operator is good, as it says.
const firstLasts = time.Hour

// buildInfo is a metric that is always 1.
func buildInfo() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "batchreset_build_info", Help: "The version of this process.",
		ConstLabels: prometheus.Labels{"version": versionText()},
	}, func() float64 { return 1 })
}

// noArgs refuses arguments by name.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q (see '%s --help')", args[0], cmd.CommandPath())
	}
	return nil
}
