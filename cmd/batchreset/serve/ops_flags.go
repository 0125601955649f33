package serve

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"strings"

	"github.com/hibiken/asynqmon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"batchreset/api"
	"batchreset/api/ops"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/redisdb"
)

// opsFlags are the settings of what operators see, and of what every listener has.
type opsFlags struct {
	listen   string
	tls      tlsFlags
	proxies  []net.IPNet
	path     string
	otlp     string
	traceURL string
	openHere bool
	url      string
	issuer   operatorIssuerFlags
	notify   notifyFlags
	// webhookPrivate is --webhook-allow-private, where there is that flag.
	webhookPrivate bool
}

func (f *opsFlags) check() error {
	return errors.Join(checkAddress("ops-listen", f.listen), f.tls.check(), checkPath("ops-path", f.path), checkTracing(f.otlp), checkTraceURL(f.traceURL), checkSiteURL(f.url, f.path), f.issuer.check(f.url), f.notify.check())
}

func (f *opsFlags) define(flags *pflag.FlagSet, listen string) {
	flags.StringVar(&f.otlp, "otlp-endpoint", "", "send traces to the OTLP/HTTP collector at this `URL`, such as http://localhost:4318; none unless OTEL_EXPORTER_OTLP_ENDPOINT names one")
	flags.StringVar(&f.path, "ops-path", "", "the `path` below which browsers find the operators' site behind a proxy, such as /ops; the proxy may leave it on requests or remove it")
	flags.StringVar(&f.url, "ops-url", "", "the `URL` at which browsers find the operators' site, such as https://reset.example/ops, with --ops-path at its end: for links that people send to each other, and for --ops-oidc-issuer; none: what the browser says")
	f.issuer.define(flags)
	f.notify.define(flags)
	flags.StringVar(&f.traceURL, "trace-url", "", "where operators look at a trace: a `URL` with {trace_id} in it")
	f.tls.define(flags)
	flags.StringVar(&f.listen, "ops-listen", listen, "`address` of the operators' listener: the site is for operators, who log in; health and metrics are for everybody who reaches it")
	flags.IPNetSliceVar(&f.proxies, "trusted-proxies", nil, "`networks` (CIDR) of proxies whose X-Forwarded-For says where a request comes from, on both listeners; none: the connection does")
}

func (f *opsFlags) trusted() (networks []*net.IPNet) {
	for _, network := range f.proxies {
		networks = append(networks, &network)
	}
	return networks
}

func (f *opsFlags) handler(stopping <-chan struct{}, quiet func() bool, db *redisdb.DB, log *slog.Logger, metrics ...prometheus.Collector) http.Handler {
	return ops.New(ops.Config{
		Redis: asynqmon.Options{RedisConnOpt: db.Redis}, Store: opsStore(db), TraceURL: f.traceURL, Path: f.path, Version: terminal.Version(), Stopping: stopping, Quiet: quiet,
		Webhooks: webhookSender{db, f.webhookPrivate},
		ClientIP: api.ClientIP(f.trusted()), OpenHere: f.openHere, Log: log, URL: f.url, Issuer: f.issuer.configure(f.url, db.Redis, log),
	}, metrics...)
}

// pathPrefix is what a path below which something is found can be.
var pathPrefix = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*$`)

func checkPath(flag, path string) error {
	if !pathPrefix.MatchString(path) || strings.Contains(path+"/", "/./") || strings.Contains(path+"/", "/../") {
		return fmt.Errorf("--%s must be a path such as /reset, without a slash at its end, not %q", flag, path)
	}
	return nil
}
