// Package ops is what operators see: the asynq dashboard, metrics, profiles and health, on
// a listener of its own, behind a login.
package ops

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynqmon"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// dashboardPath is where asynqmon lives.
const dashboardPath = "/asynq"

// contentPolicy keeps the dashboard from asking for fonts on the internet, which
// an operator's network may drop instead of refuse. Its own scripts and styles
// are partly inline.
const contentPolicy = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; frame-ancestors 'none'"

// sitePolicy is for our own pages, which have nothing inline.
const sitePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'self'; frame-ancestors 'none'"

// Config is what the site consists of. Redis, Store and Log must be set.
type Config struct {
	// Redis is where asynq's dashboard looks. Closing it is for its owner.
	Redis asynqmon.Options
	Store Store
	// Webhooks sends tests to endpoints; where they are managed it must be set.
	Webhooks WebhookSender
	// TraceURL leads to a trace: a URL with {trace_id} in it. It may be empty.
	TraceURL string
	// Path is where browsers find the site behind a proxy, such as "/ops". Requests may have
	// it at the beginning of theirs, or the proxy may have taken it off. The site's links and
	// redirects are relative, and work without it; the dashboard's need it.
	Path string
	// URL is where browsers find the site, such as https://reset.example/ops, for links that people send to
	// each other; empty: where the browser of who makes the link has found it.
	URL string
	// Issuer knows operators who are not kept here; nil: there is none.
	Issuer *login.Issuer
	// Version of the service, for /healthz.
	Version string
	// ClientIP tells where a request comes from. nil: from where its connection does.
	ClientIP echo.IPExtractor
	// OpenHere lets everybody on this machine do everything as long as there is no operator,
	// unless a proxy says that it forwards a request.
	OpenHere bool
	// Stopping is closed when the process is going to stop: it is not ready any more. It may
	// be nil.
	Stopping <-chan struct{}
	// Quiet reports whether the process's worker takes nothing new. It may be nil.
	Quiet func() bool
	Log   *slog.Logger
	// now is by which tries to log in are counted.
	now func() time.Time
}

// Store is everything that the pages show and change. What takes an actor is in the audit trail
// when it is done.
type Store struct {
	Operators login.Operators // which have methods of the same names
	Accounts  Accounts        // and so have they
	Forms
	AuditTrail
	Jobs
	Records
	Runs RunStore // which has methods of the same names
	FailureIndex
	Fleet
	Workers     WorkerStore // which has methods of the same names
	Credentials Credentials // which have a method of the same name
	Policies
	Quotas
	Endpoints Endpoints // which have methods of the same names
	Notices   Notices
	Summary
	Server
	Clock
}

// Summary is what operators see at a glance.
type Summary interface {
	Overview(ctx context.Context) (tasks.Overview, error)
	WorkCensus
}

// Server is where all of it is kept.
type Server interface {
	// Check looks whether it can be worked with. A tasks.Error may be shown to anyone.
	Check(ctx context.Context) error
	// MayManage reports whether this process may write what is managed.
	MayManage(ctx context.Context, what tasks.Managed) (bool, error)
}

// Clock is the one that records go by.
type Clock interface {
	Now() time.Time
}

// AuditTrail is where decisions are written.
type AuditTrail interface {
	// Decide writes an entry of the audit trail and does what it is about, which may be
	// refused with a tasks.Error.
	Decide(ctx context.Context, e tasks.AuditEntry, act func(context.Context) error) error
	login.Trail
	// Recent returns the last entries that a filter selects.
	Recent(ctx context.Context, f tasks.AuditFilter, cursor string, limit int) (found []tasks.AuditEntry, older string, err error)
}

type site struct {
	Config
	door    *login.Door
	glance  sharedGlance
	pages   *template.Template
	imports sync.Mutex // held while a list of the fleet is in memory
}

// New returns the operators' site. The metrics are those of Go, of the process and of
// more, which must not have a name in common.
func New(cfg Config, more ...prometheus.Collector) http.Handler {
	s, e := newSite(cfg, more...)
	// No other site may make a browser change something here.
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.logRefusal(r, s.ClientIP(r), "", "it comes from another site")
		http.Error(w, "this request comes from another site", http.StatusForbidden)
	}))
	return httpsOnly(below(s.Path, headLikeGet(protection.Handler(e))))
}

// newSite makes a site with its routes.
func newSite(cfg Config, more ...prometheus.Collector) (*site, *echo.Echo) {
	s := &site{Config: cfg, pages: template.Must(template.New("").Funcs(helpers).ParseFS(files, "site/*.html"))}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	registry.MustRegister(more...)

	if s.ClientIP == nil {
		s.ClientIP = echo.ExtractIPDirect()
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.door = login.New(login.Config{
		Operators: s.Store.Operators, Trail: s.Store.AuditTrail, Clock: s.Store.Clock, Issuer: s.Issuer,
		Path: s.Path, OpenHere: s.OpenHere, Log: s.Log, Now: s.now,
		Site: login.Site{Show: s.showLogin, Refuse: s.refuse, RefusedOr: s.refusedOr, Redirect: redirect, Asks: s.asks, Form: s.form},
	})
	e := echo.New()
	e.IPExtractor = s.ClientIP
	e.HTTPErrorHandler = s.fail
	e.Use(s.limitBody, s.glance.forgetAfter)
	viewer, approver, operator := s.door.Require(tasks.RightLook), s.door.Require(tasks.RightApprove), s.door.Require(tasks.RightAct)
	// Open to everybody: what monitoring asks for, and the way in.
	e.GET("/healthz", s.healthz)
	e.GET("/readyz", s.readyz)
	e.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(registry, promhttp.HandlerOpts{})))
	s.assetRoutes(e)
	s.door.Routes(e)
	// For those who are logged in.
	e.GET("/", s.overview, viewer)
	e.GET("/find", s.find, viewer)
	e.GET("/jobs", s.jobs, viewer)
	e.GET("/jobs/:job", s.job, viewer)
	s.timelineRoutes(e, viewer)
	s.workRoutes(e)
	s.runRoutes(e, viewer, approver, operator)
	s.bulkRoutes(e, operator)
	s.machineryRoutes(e, viewer, operator)
	s.manageRoutes(e)
	s.operatorRoutes(e, viewer, s.door.Require(tasks.RightManage))
	e.GET("/failures", s.failures, viewer)
	e.GET("/failures/items", s.failedItems, viewer)
	e.GET("/instances/:instance", s.instance, viewer)
	e.GET("/tenants", s.tenants, viewer)
	e.GET("/callers", s.callers, viewer)
	e.GET("/audit", s.auditTrail, viewer)
	e.GET("/jobs/:job/cancel", s.askJob("cancel"), operator)
	e.POST("/jobs/:job/cancel", s.cancelJob, operator, s.form("reason"))
	e.GET("/jobs/:job/retry", s.askJob("retry"), operator)
	e.POST("/jobs/:job/retry", s.retryJob, operator, s.form("reason", "state"))
	e.GET("/tenants/halt", s.askHalt(false), operator)
	e.POST("/tenants/halt", s.halt, operator, s.form("tenant", "all", "reason"))
	e.GET("/tenants/resume", s.askHalt(true), operator)
	e.POST("/tenants/resume", s.resume, operator, s.form("tenant", "all", "own", "reason"))
	dashboard := s.dashboard()
	e.Any(dashboardPath, dashboard, withPolicy, viewer)
	e.Any(dashboardPath+"/*", dashboard, withPolicy, viewer, s.audited)
	for path, handler := range map[string]http.HandlerFunc{
		"": pprof.Index, "/*": pprof.Index, "/cmdline": pprof.Cmdline, "/profile": pprof.Profile, "/symbol": pprof.Symbol, "/trace": pprof.Trace,
	} {
		e.Any("/debug/pprof"+path, echo.WrapHandler(handler), operator)
	}
	return s, e
}

// httpsOnly has browsers that came by https come by https from now on.
func httpsOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil {
			w.Header().Set(echo.HeaderStrictTransportSecurity, "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// below has a path taken off those requests that begin with it.
func below(path string, h http.Handler) http.Handler {
	stripped := http.StripPrefix(path, h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case path != "" && r.URL.Path == path:
			http.Redirect(w, r, path+"/", http.StatusSeeOther)
		case strings.HasPrefix(r.URL.Path, path+"/"):
			stripped.ServeHTTP(w, r)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

// headLikeGet answers HEAD as if it were GET. The server, which has the request as it was,
// leaves out the body.
func headLikeGet(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			r = r.WithContext(r.Context())
			r.Method = http.MethodGet
		}
		h.ServeHTTP(w, r)
	})
}

// root leads from the page of a request to the first one, whatever a proxy has put before
// its path.
func root(c echo.Context) string {
	depth := strings.Count(c.Request().URL.EscapedPath(), "/") - 1
	return cmp.Or(strings.Repeat("../", max(depth, 0)), "./")
}

// redirect leads to another path of the site.
func redirect(c echo.Context, path string) error {
	return c.Redirect(http.StatusSeeOther, root(c)+strings.TrimPrefix(path, "/"))
}

// page is what the templates show.
type page struct {
	Root       string // leads to the first page
	Self       query  // leads from there to this one
	Title      string
	Count      string // before the title, in a browser's tab; may be empty
	Problem    string
	Name       string // that was typed
	Operator   *tasks.Operator
	Navigation bool   // shows the links to the other pages
	Section    string // of the navigation
	// Halted is the halt of all tenants, if it is known that there is one.
	Halted *tasks.Halt
}

// may reports whether who looks has a right.
func (p page) may(right tasks.Right) bool { return p.Operator == nil || p.Operator.Role.May(right) }

// MayAct, MayApprove and MayManage say what buttons to show.
func (p page) MayAct() bool     { return p.may(tasks.RightAct) }
func (p page) MayApprove() bool { return p.may(tasks.RightApprove) }
func (p page) MayManage() bool  { return p.may(tasks.RightManage) }

// helpers are what templates call.
var helpers = template.FuncMap{
	"clock": func(t tasks.Time) template.HTML {
		if t.IsZero() {
			return "–"
		}
		return template.HTML(t.UTC().Format(`<time datetime="2006-01-02T15:04:05.000Z">2006-01-02 15:04:05Z</time>`)) //nolint:gosec // digits
	},
	"ended":    func(c tasks.Counts) int { return c.Total() - c.Open() },
	"bad":      func(c tasks.Counts) int { return c.In(failureStates) },
	"span":     func(d time.Duration) string { return d.Round(time.Second).String() },
	"mib":      func(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) },
	"chart":    newChart,
	"rate":     rate,
	"percent":  func(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) },
	"number64": func(n int64) string { return number(int(n)) },
	"more":     func(total int, named []string) int { return total - len(named) },
	"number":   number, "instances": instances, "shares": sharesOf,
	"firstLabels": func(labels map[string]string) []string {
		texts := labelTexts(labels)
		return texts[:min(len(texts), labelsShown)]
	},
	"moreLabels": func(labels map[string]string) []string {
		texts := labelTexts(labels)
		return texts[min(len(texts), labelsShown):]
	},
	"pathed": func(path string, e exports) pathedExports { return pathedExports{path, e} },
	"short":  tasks.ShortDuration, "shortms": func(ms int64) string { return tasks.ShortDuration(time.Duration(ms) * time.Millisecond) },
	"timeline": timelinePath,
	"sign":     func(s tasks.ItemState) string { return signs[s] },
}

// number is a whole number for people, such as 4,312.
func number(n int) string {
	text := strconv.Itoa(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

// rate is how many end, such as "4.2 per second", or by the minute if they are few.
func rate(perSecond float64) string {
	if perSecond < 1 {
		return fmt.Sprintf("%.1f per minute", 60*perSecond)
	}
	return fmt.Sprintf("%.1f per second", perSecond)
}

// endedOf is how far something is, such as "12 of 4,312".
func endedOf(counts tasks.Counts, total int) string {
	return number(counts.Total()-counts.Open()) + " of " + number(total)
}

// instances is how many there are, such as "4,312 instances".
func instances(n int) string {
	if n == 1 {
		return "1 instance"
	}
	return number(n) + " instances"
}

// signs are item states in one character.
var signs = map[tasks.ItemState]string{
	tasks.ItemPending: "·", tasks.ItemRunning: "▶", tasks.ItemRetrying: "↻",
	tasks.ItemSucceeded: "✓", tasks.ItemFailed: "✗", tasks.ItemUnknown: "?", tasks.ItemCancelled: "–",
}

// page is the frame of a page for somebody who was let in.
func (s *site) page(c echo.Context, title string) page {
	p := page{Root: root(c), Self: query(strings.TrimPrefix(c.Request().URL.RequestURI(), "/")), Title: title, Operator: login.Operator(c), Navigation: true, Section: section(c)}
	if all, err := s.Store.Policy(c.Request().Context(), ""); err == nil { // else what the page is about fails, too
		p.Halted = all.OperatorHalt
	}
	return p
}

// loginPage is a page of the log-in in its frame.
type loginPage struct {
	page
	Content any
}

// showLogin answers with a page of the log-in.
func (s *site) showLogin(c echo.Context, status int, p login.Page) error {
	frame := page{Root: root(c), Title: p.Title}
	if p.Framed {
		frame = s.page(c, p.Title)
	}
	frame.Problem = p.Problem
	return s.show(c, status, p.Template, loginPage{frame, p.Content})
}

// show answers with a page.
func (s *site) show(c echo.Context, status int, name string, p any) error {
	var b bytes.Buffer
	if err := s.pages.ExecuteTemplate(&b, name, p); err != nil {
		return err
	}
	h := c.Response().Header()
	h.Set(echo.HeaderContentSecurityPolicy, sitePolicy)
	h.Set(echo.HeaderReferrerPolicy, "same-origin")
	h.Set(echo.HeaderXContentTypeOptions, "nosniff")
	h.Set(echo.HeaderCacheControl, "no-store")
	return c.HTML(status, tasks.VisibleLines(b.String()))
}

// fail answers errors: Echo's own are about routes, all others are ours or Redis's.
func (s *site) fail(err error, c echo.Context) {
	if c.Response().Committed {
		return
	}
	if e, ok := errors.AsType[*echo.HTTPError](err); ok {
		err = c.String(e.Code, http.StatusText(e.Code)+"\n")
	} else {
		s.Log.Error("request failed", "path", cut(c.Request().URL.Path), "error", err)
		p := page{Root: root(c), Title: "Not now", Problem: "Redis does not answer, or something else is wrong: the log says which. What to do is in the runbook, in the section Redis.", Navigation: true}
		err = s.show(c, http.StatusServiceUnavailable, "refused", p)
	}
	if err != nil {
		s.Log.Debug("answer not sent", "error", err)
	}
}

func withPolicy(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderContentSecurityPolicy, contentPolicy)
		return next(c)
	}
}

// readable indents a JSON payload and shows anything else as it is.
func readable(_ string, payload []byte) string {
	var b bytes.Buffer
	if err := json.Indent(&b, payload, "", "  "); err != nil {
		return tasks.VisibleLines(string(payload))
	}
	return tasks.VisibleLines(b.String())
}
