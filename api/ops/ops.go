// Package ops is what operators see: the asynq dashboard, metrics, profiles and health, on
// a listener of its own. It has no login; the listener belongs on loopback.
package ops

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/pprof"

	"github.com/hibiken/asynqmon"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"batchreset/tasks"
)

// dashboardPath is where asynqmon lives.
const dashboardPath = "/asynq"

// contentPolicy keeps the dashboard from asking for fonts on the internet, which
// an operator's network may drop instead of refuse. Its own scripts and styles
// are partly inline.
const contentPolicy = "default-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; frame-ancestors 'none'"

// New returns the operators' site. Of dashboard only the Redis connection is
// read. Closing is for the owner of that connection. The metrics are those of
// Go, of the process and of more, which must not have a name in common.
//
// audit is called before each change on the dashboard, which is not made after an error.
func New(dashboard asynqmon.Options, audit func(context.Context, tasks.AuditEntry) error, more ...prometheus.Collector) http.Handler {
	dashboard.RootPath = dashboardPath
	dashboard.PayloadFormatter = asynqmon.PayloadFormatterFunc(readable)
	dashboardHandler := asynqmon.New(dashboard)

	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
	)
	registry.MustRegister(more...)

	e := echo.New()
	e.IPExtractor = echo.ExtractIPDirect()
	e.GET("/", func(c echo.Context) error { return c.Redirect(http.StatusFound, dashboardPath) })
	e.Any(dashboardPath, echo.WrapHandler(dashboardHandler), withPolicy)
	e.Any(dashboardPath+"/*", echo.WrapHandler(dashboardHandler), withPolicy, audited(audit))
	e.GET("/healthz", func(c echo.Context) error {
		return c.JSON(http.StatusOK, map[string]string{"error_code": "0", "error_msg": "ok"})
	})
	e.GET("/metrics", echo.WrapHandler(promhttp.HandlerFor(registry, promhttp.HandlerOpts{})))
	for path, handler := range map[string]http.HandlerFunc{
		"": pprof.Index, "/*": pprof.Index, "/cmdline": pprof.Cmdline, "/profile": pprof.Profile, "/symbol": pprof.Symbol, "/trace": pprof.Trace,
	} {
		e.Any("/debug/pprof"+path, echo.WrapHandler(handler))
	}
	// The dashboard can delete tasks; no other site may make a browser do that.
	return http.NewCrossOriginProtection().Handler(e)
}

func withPolicy(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		c.Response().Header().Set(echo.HeaderContentSecurityPolicy, contentPolicy)
		return next(c)
	}
}

// audited has each request that may change something written to the audit trail first.
func audited(audit func(context.Context, tasks.AuditEntry) error) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			r := c.Request()
			if r.Method == http.MethodGet || r.Method == http.MethodHead {
				return next(c)
			}
			if err := audit(r.Context(), tasks.AuditEntry{
				Action: tasks.ActionDashboard, By: "dashboard", From: c.RealIP(), Detail: r.Method + " " + r.URL.Path,
			}); err != nil {
				return echo.NewHTTPError(http.StatusServiceUnavailable, "the audit trail cannot be written, nothing was changed")
			}
			return next(c)
		}
	}
}

// readable indents a JSON payload and shows anything else as it is.
func readable(_ string, payload []byte) string {
	var b bytes.Buffer
	if err := json.Indent(&b, payload, "", "  "); err != nil {
		return string(payload)
	}
	return b.String()
}
