package ops

import (
	"bytes"
	"maps"
	"net/http"
	"strings"

	"github.com/hibiken/asynqmon"
	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// dashboard is asynqmon in a frame of ours, which can change nothing for viewers. It wants to see its
// requests as browsers send them.
func (s *site) dashboard() echo.HandlerFunc {
	options := s.Redis
	options.RootPath = s.Path + dashboardPath
	options.PayloadFormatter = asynqmon.PayloadFormatterFunc(readable)
	changing := asynqmon.New(options)
	options.ReadOnly = true
	looking := asynqmon.New(options)
	return func(c echo.Context) error {
		framed := mayBePage(c.Request().URL.Path)
		r := c.Request().Clone(c.Request().Context())
		r.URL.Path, r.URL.RawPath = s.Path+r.URL.Path, ""
		c.SetRequest(r)
		handler := http.Handler(changing)
		if !login.May(c, tasks.RightAct) {
			handler = looking
		}
		switch {
		case looks(r) && framed:
			return s.frame(c, handler)
		case looks(r) || !login.May(c, tasks.RightAct):
			handler.ServeHTTP(c.Response(), r)
			return nil
		default:
			return s.change(c, handler)
		}
	}
}

// mayBePage reports whether the dashboard may answer with its page: it does for all that it does not know.
func mayBePage(path string) bool {
	return !strings.HasPrefix(path, dashboardPath+"/api/") && !strings.HasPrefix(path, dashboardPath+"/static/")
}

// frame puts a bar above the dashboard's page, and adds a script that runs before its own. Their links have the whole path,
// because the page's address changes while it is shown.
func (s *site) frame(c echo.Context, dashboard http.Handler) error {
	answer := hold(dashboard, c.Request())
	if isPage(answer) {
		p := page{Root: s.Path + "/", Operator: login.Operator(c)}
		var head, bar bytes.Buffer
		if err := s.pages.ExecuteTemplate(&head, "asynq-head", p); err != nil {
			return err
		}
		if err := s.pages.ExecuteTemplate(&bar, "asynq-bar", p); err != nil {
			return err
		}
		text := answer.body.String()
		text = strings.Replace(text, "</head>", head.String()+"</head>", 1)
		text = strings.Replace(text, "<body>", "<body>"+bar.String(), 1)
		text = strings.Replace(text, "<title>Asynq - Monitoring</title>", "<title>Queues · batchreset</title>", 1)
		answer.body.Reset()
		answer.body.WriteString(text)
		answer.header.Set(echo.HeaderContentType, echo.MIMETextHTMLCharsetUTF8)
		answer.header.Set(echo.HeaderCacheControl, "no-store") // it has a name in it
	}
	return answer.send(c)
}

// change passes a request on that is to change something. What the dashboard does not know
// it answers with its page, as if something had been done.
func (s *site) change(c echo.Context, dashboard http.Handler) error {
	answer := hold(dashboard, c.Request())
	if isPage(answer) {
		return s.refuse(c, http.StatusMethodNotAllowed, "The dashboard has no such request.")
	}
	return answer.send(c)
}

// hold is what a handler answers, without its being sent.
func hold(h http.Handler, r *http.Request) *heldAnswer {
	answer := &heldAnswer{header: http.Header{}, status: http.StatusOK}
	h.ServeHTTP(answer, r)
	return answer
}

func isPage(a *heldAnswer) bool {
	return strings.HasPrefix(http.DetectContentType(a.body.Bytes()), "text/html")
}

// heldAnswer is an http.ResponseWriter that keeps what is written to it.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (a *heldAnswer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *heldAnswer) WriteHeader(status int) { a.status = status }

// Write implements http.ResponseWriter.
func (a *heldAnswer) Write(p []byte) (int, error) { return a.body.Write(p) }

// send answers a request with it.
func (a *heldAnswer) send(c echo.Context) error {
	maps.Copy(c.Response().Header(), a.header)
	c.Response().WriteHeader(a.status)
	_, err := c.Response().Write(a.body.Bytes())
	return err
}
