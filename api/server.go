// Package api is the HTTP contract: the KooPhone routes and our own, over the
// record store. A handler decodes, calls the store once, encodes; it returns its
// error, and errors.go alone says which status goes with which code.
package api

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"batchreset/api/auth"
	"batchreset/tasks"
	"batchreset/tasks/proof"
)

// Store is what the API asks of the record store and the registry. Every method fails with a
// tasks.Error, a tasks.Refusal, or an internal error. A method that takes an actor writes into
// the audit trail, unless it refuses.
type Store struct {
	Tokens
	Fleet
	Records
	Reader
	Quotas
	Policies
	Server
	Storage
	Clock
}

// Tokens are the callers' tokens and access keys.
type Tokens interface {
	auth.Store
	// NewTicket makes a ticket for the events of a job or run, TicketToken finds who got it.
	NewTicket(ctx context.Context, token tasks.Token, id string) (tasks.Ticket, error)
	TicketToken(ctx context.Context, ticket, id string) (tasks.Token, error)
}

// Fleet is the register of instances.
type Fleet interface {
	Registered(ctx context.Context, instances []string) (map[string]tasks.Instance, error)
	// InstancesOf returns some of a tenant's instances by ID, from offset on, and how many there are in all.
	InstancesOf(ctx context.Context, tenant string, offset, n int) (found []tasks.Instance, total int, err error)
}

// Records changes jobs.
type Records interface {
	Submit(ctx context.Context, s tasks.Submission) (tasks.Job, error)
	Replay(ctx context.Context, s tasks.Submission) (tasks.Job, error)
	Cancel(ctx context.Context, id string, actor tasks.Actor) error
	Retry(ctx context.Context, id string, states []tasks.ItemState, actor tasks.Actor, codes ...tasks.Code) error
}

// Reader reads jobs.
type Reader interface {
	Job(ctx context.Context, id string) (tasks.Job, error)
	Version(ctx context.Context, id string) (tasks.Job, error)
	JobsByID(ctx context.Context, ids []string) ([]tasks.Job, error)
	Jobs(ctx context.Context, tenant string, f tasks.JobFilter) (jobs []tasks.Job, cursor string, err error)
	Locked(ctx context.Context, instances []string) (map[string]bool, error)
	// OpenInstances returns those of the instances that an open item of the tenant has, or that are being reset.
	OpenInstances(ctx context.Context, tenant string, instances []string) (map[string]bool, error)
	// Finished calls heard with each job that ends, until ctx ends; some may be missed.
	Finished(ctx context.Context, heard func(job string)) error
	// Tags returns the tags of the jobs that there are.
	Tags(ctx context.Context, jobs []string) (map[string]string, error)
}

// Quotas count what tenants do against their limits.
type Quotas interface {
	// Pace counts a request against its tenant's limit.
	Pace(ctx context.Context, tenant string) error
	// Room is how many more instances of a tenant would be accepted; -1: any number.
	Room(ctx context.Context, tenant string) (int, error)
}

// Policies are halts and limits.
type Policies interface {
	Policy(ctx context.Context, tenant string) (tasks.Policy, error)
	Halt(ctx context.Context, tenant string, whose tasks.Halter, actor tasks.Actor) error
	Resume(ctx context.Context, tenant string, whose tasks.Halter, actor tasks.Actor) error
}

// Server is where all of it is kept.
type Server interface {
	// Check looks whether it can be worked with. A tasks.Error may be shown to anyone.
	Check(ctx context.Context) error
}

// Storage is the room there.
type Storage interface {
	// Accepting reports whether there is room for new work.
	Accepting(ctx context.Context) bool
}

// Clock is the one that records go by, and tokens.
type Clock interface {
	Now() time.Time
}

// Config are the settings of the API.
type Config struct {
	// MaxInstances is how many instances one request may list.
	MaxInstances int
	// AllowUnregistered accepts instances that are not registered. Those that are still
	// belong to their tenant alone.
	AllowUnregistered bool
	// TrustedProxies are the networks of proxies whose X-Forwarded-For says where a
	// request comes from.
	TrustedProxies []*net.IPNet
	// BasePath is the path of the API behind a proxy, such as "/reset". Requests may begin
	// with it, or the proxy may have removed it. Links in answers have it.
	BasePath string
	// Origins are those whose pages may read the answers in a browser: see CheckOrigin.
	Origins []string
	// MaxWaiters is how many requests may wait for jobs and runs at the same time.
	MaxWaiters int
	// Runs keeps runs. nil: there are none, nor their routes.
	Runs RunStore
	// MaxRunInstances is how many instances a run may list. 0: tasks.DefaultMaxRunInstances.
	MaxRunInstances int
	// ApprovalExpiry is how long a run waits for approval. 0: tasks.DefaultApprovalExpiry.
	ApprovalExpiry time.Duration
	// IAM and JWT know callers that this service has no credentials of. nil: there are none.
	IAM *auth.IAM
	JWT *auth.JWT
	// Certificates knows them by the certificate that each of them needs. nil: none is needed.
	Certificates *auth.Certificates
	// Sealed says that Redis keeps secrets sealed: /readyz tells.
	Sealed bool
	// Secrets says for /readyz whether the secrets in Redis can be opened: ok, unreadable, not known. nil: not known.
	Secrets func() string
	// Tracer makes a span of each request of the API. nil: none is made.
	Tracer trace.Tracer
	// Proofs signs what became of jobs and runs. nil: nobody does.
	Proofs *proof.Signer
	// Version of the service, for /, /healthz and proofs.
	Version string
	// Stopping is closed when the process is going to stop: it is not ready any more, but
	// still answers. nil: it is never closed.
	Stopping <-chan struct{}
}

const (
	maxBody    = 64 << 10
	maxRunBody = 8 << 20
	maxHeader  = 64 << 10 // KooPhone tokens alone may take 32 KiB
	// storeTimeout bounds what a request waits for Redis in all, so that a caller
	// has an answer within 2 s while Redis is away.
	storeTimeout = 1500 * time.Millisecond
	// brakeTimeout is that of requests that stop something. Redis itself may stand still for 2 s
	// when the disk is slow to take its appendonly file.
	brakeTimeout = 5 * time.Second
)

type server struct {
	cfg     Config
	store   Store
	encoded encodedRecords
	reads   singleflight.Group // of records, by version
	log     *slog.Logger

	callers     *auth.Callers
	uploads     *uploads // that are read before it is known who sends them
	watchers    *watchers
	subjects    []*subject
	strangers   *strangers
	readiness   readyLooks
	metrics     metrics
	routes      map[[2]string]bool // method and path of each
	probes      map[string]bool    // paths
	sendTimeout time.Duration      // for an event
}

// API is the public API. As a prometheus.Collector it counts requests, and those that wait.
type API struct {
	http.Handler
	prometheus.Collector
	server *server
}

// Run wakes requests that wait for jobs and runs when these have changed, until ctx ends. Then waiting
// requests, and later ones, are answered at once. It also notes when credentials were used last.
func (a *API) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.server.callers.Run(ctx) })
	g.Go(func() error { return a.server.watchers.run(ctx, a.server.subjects) })
	return g.Wait()
}

// New returns the public API. Without Run, a waiting request sees a change only when its time to
// wait is over.
func New(cfg Config, store Store, log *slog.Logger) *API {
	cfg.MaxRunInstances = cmp.Or(cfg.MaxRunInstances, tasks.DefaultMaxRunInstances)
	cfg.ApprovalExpiry = cmp.Or(cfg.ApprovalExpiry, tasks.DefaultApprovalExpiry)
	if cfg.Runs != nil {
		cfg.Runs = linkedRuns{cfg.Runs, cfg.BasePath}
	}
	callers := auth.New(auth.Config{IAM: cfg.IAM, JWT: cfg.JWT, Certificates: cfg.Certificates, BasePath: cfg.BasePath}, store, store, log)
	s := &server{
		cfg: cfg, store: store, encoded: newEncodedRecords(), log: log, callers: callers, uploads: newUploads(),
		watchers: newWatchers(waitingTokens{callers, store}, cfg.MaxWaiters, log), strangers: newStrangers(), sendTimeout: sendTimeout,
		probes: map[string]bool{"/healthz": true, "/readyz": true},
	}
	s.metrics = newMetrics(s.watchers)
	e := echo.New()
	e.HTTPErrorHandler = s.fail
	e.IPExtractor = ClientIP(cfg.TrustedProxies)
	e.Use(s.identify, s.accessLog, middleware.RecoverWithConfig(middleware.RecoverConfig{
		DisableErrorHandler: true, // the error goes to accessLog like any other
		LogErrorFunc: func(c echo.Context, err error, stack []byte) error {
			s.log.Error("panic", "request_id", requestID(c), "error", err, "stack", string(stack))
			return err
		},
	}))
	if len(cfg.Origins) > 0 {
		e.Use(cors(cfg.Origins))
	}
	e.Use(s.limitStrangers)

	route := func(method, path string, scope tasks.Scope, t takes, h echo.HandlerFunc) {
		e.Add(method, path, h, limitBody, s.admit(scope, t, true))
	}
	// Requests that stop something do not count against the rate limit: a caller who floods
	// the API by mistake must be able to stop that.
	brake := func(path string, scope tasks.Scope, t takes, h echo.HandlerFunc) {
		e.POST(path, h, limitBody, takeBrakeTime, s.admit(scope, t, false))
	}
	jobs, events := &subject{records: jobRecords{s}, name: "job", atOnce: looksAtOnce}, takes{query: parameters{ticketParameter: false}}
	s.subjects = append(s.subjects, jobs)
	route(http.MethodPost, "/v1/instances/batch-reset", tasks.ScopeSubmit, takes{body: true}, s.batchReset)
	route(http.MethodGet, "/v1/instances/tasks/:job", tasks.ScopeRead, nothing, s.taskQuery)
	route(http.MethodPost, "/v1/instances/batch-query-status", tasks.ScopeRead, takes{body: true}, s.batchQueryStatus)
	route(http.MethodGet, batchQueryPath, tasks.ScopeRead, takes{query: instancesParameters}, s.batchQuery)
	for path, method := range notServed {
		e.Add(method, path, sayNotServed)
	}
	route(http.MethodGet, "/v1/jobs/:job", tasks.ScopeRead, nothing, s.status(jobs))
	route(http.MethodGet, "/v1/jobs/:job/events", tasks.ScopeRead, events, s.events(jobs))
	route(http.MethodPost, "/v1/jobs/:job/ticket", tasks.ScopeRead, nothing, s.ticket(jobs))
	route(http.MethodGet, "/v1/jobs/:job/proof", tasks.ScopeRead, nothing, s.proof)
	route(http.MethodGet, "/v1/jobs", tasks.ScopeRead, takes{query: jobsParameters}, s.jobs)
	brake("/v1/jobs/:job/cancel", tasks.ScopeCancel, nothing, s.cancel)
	route(http.MethodPost, "/v1/jobs/:job/retry", tasks.ScopeSubmit, takes{body: true}, s.retry)
	brake("/v1/halt", tasks.ScopeOperate, takes{body: true}, s.halt)
	route(http.MethodPost, "/v1/resume", tasks.ScopeOperate, takes{body: true}, s.resume)
	if cfg.Runs != nil {
		runs := &subject{records: runRecords{s, newRunReads(cfg.Runs, store)}, name: "run", atOnce: 1, rest: runRest}
		s.subjects = append(s.subjects, runs)
		e.POST("/v1/runs", s.createRun, limitUpload, s.admit(tasks.ScopeSubmit, takes{body: true}, true))
		route(http.MethodGet, "/v1/runs", tasks.ScopeRead, takes{query: runsParameters}, s.runs)
		route(http.MethodGet, "/v1/runs/:run", tasks.ScopeRead, nothing, s.status(runs))
		route(http.MethodGet, "/v1/runs/:run/events", tasks.ScopeRead, events, s.events(runs))
		route(http.MethodPost, "/v1/runs/:run/ticket", tasks.ScopeRead, nothing, s.ticket(runs))
		route(http.MethodGet, "/v1/runs/:run/results", tasks.ScopeRead, takes{query: resultsParameters}, s.runResults)
		route(http.MethodGet, "/v1/runs/:run/proof", tasks.ScopeRead, nothing, s.runProof)
		brake("/v1/runs/:run/pause", tasks.ScopeCancel, nothing, s.pauseRun)
		brake("/v1/runs/:run/cancel", tasks.ScopeCancel, nothing, s.cancelRun)
		route(http.MethodPost, "/v1/runs/:run/resume", tasks.ScopeCancel, takes{body: true}, s.resumeRun)
		route(http.MethodPost, "/v1/runs/:run/retry", tasks.ScopeSubmit, takes{body: true}, s.retryRun)
		route(http.MethodPost, "/v1/runs/:run/approve", tasks.ScopeApprove, takes{body: true}, s.approveRun)
		brake("/v1/runs/:run/reject", tasks.ScopeApprove, takes{body: true}, s.rejectRun)
	}
	route(http.MethodGet, "/v1/whoami", anyScope, nothing, s.whoami)
	// HEAD is answered like GET, without the body.
	public := func(path string, h echo.HandlerFunc, m ...echo.MiddlewareFunc) {
		e.Match([]string{http.MethodGet, http.MethodHead}, path, h, m...)
	}
	public("/", front(cfg.Version), plain)
	public("/openapi.yaml", asset{contentType: "application/yaml", content: contractAt(cfg.BasePath)}.handler(), plain)
	for _, f := range docsFiles {
		public(f.path, f.handler(), plain)
	}
	public(proofKeysPath, proofKeys(cfg.Proofs), plain)
	public("/healthz", s.healthz) // probes may add any parameter
	public("/readyz", s.readyz)
	s.routes = map[[2]string]bool{}
	for _, r := range e.Routes() {
		s.routes[[2]string{r.Method, r.Path}] = true
	}
	return &API{below(cfg.BasePath, e), s.metrics, s}
}

// below removes a prefix from the paths of requests that begin with it.
func below(path string, h http.Handler) http.Handler {
	if path == "" {
		return h
	}
	stripped := http.StripPrefix(path, h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == path:
			http.Redirect(w, r, path+"/", http.StatusSeeOther)
		case strings.HasPrefix(r.URL.Path, path+"/"):
			stripped.ServeHTTP(w, r)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// ClientIP is the address that a request comes from: that of its connection or, if this is a
// trusted proxy's, the last address in X-Forwarded-For that is not a trusted proxy's.
func ClientIP(proxies []*net.IPNet) echo.IPExtractor {
	if len(proxies) == 0 {
		return echo.ExtractIPDirect()
	}
	trust := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, network := range proxies {
		trust = append(trust, echo.TrustIPRange(network))
	}
	return echo.ExtractIPFromXFFHeader(trust...)
}

// NewHTTPServer returns a server for h with limits that a public listener needs. What goes
// wrong below the requests is a warning in log.
func NewHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      90 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          newServerLog(log),
	}
}
