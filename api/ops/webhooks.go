package ops

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"batchreset/tasks"
)

// Endpoints are the webhook endpoints of tenants. What changes one fails with tasks.ErrNoEndpoint if it is gone.
type Endpoints interface {
	// List returns every endpoint, by tenant and age.
	List(ctx context.Context) ([]tasks.Endpoint, error)
	EndpointByID(ctx context.Context, id string) (tasks.Endpoint, error)
	Add(ctx context.Context, e tasks.Endpoint, actor tasks.Actor) (tasks.Endpoint, error)
	Change(ctx context.Context, e tasks.Endpoint, url string, topics []tasks.Topic, actor tasks.Actor) error
	Disable(ctx context.Context, e tasks.Endpoint, reason string, actor tasks.Actor) error
	Enable(ctx context.Context, e tasks.Endpoint, actor tasks.Actor) error
	RotateSecret(ctx context.Context, e tasks.Endpoint, secret string, overlap time.Duration, actor tasks.Actor) error
	Remove(ctx context.Context, e tasks.Endpoint, actor tasks.Actor) error
	// Sealed reports whether the secrets of endpoints are sealed.
	Sealed() bool
}

// Notices are what endpoints are sent.
type Notices interface {
	// Waiting returns how many wait for another try, by endpoint; all says that they were all counted.
	Waiting(ctx context.Context) (byEndpoint map[string]int, all bool, err error)
}

// WebhookSender sends to endpoints from this process.
type WebhookSender interface {
	// CheckURL returns a sentence that says what is wrong with the URL of an endpoint, or nil.
	CheckURL(ctx context.Context, url string) error
	// Test sends an endpoint a test event, once.
	Test(ctx context.Context, e tasks.Endpoint) (WebhookTest, error)
}

// WebhookTest is what an endpoint has answered to a test event.
type WebhookTest struct {
	Status int
	Text   string
	Err    error // why there was no answer
	Took   time.Duration
}

// Taken reports whether the endpoint took the event.
func (t WebhookTest) Taken() bool { return t.Err == nil && t.Status/100 == 2 }

// webhookRoutes are the pages about webhook endpoints.
func (s *site) webhookRoutes(e *echo.Echo) {
	manager := func(more ...echo.MiddlewareFunc) []echo.MiddlewareFunc {
		return s.manager(tasks.ManagedWebhooks, tasks.RightManage, more...)
	}
	viewer := s.door.Require(tasks.RightLook)
	toList := func(c echo.Context) error { return redirect(c, "/webhooks") }
	e.GET("/webhooks", s.webhooks, viewer, s.told)
	e.GET("/webhooks/new", s.newEndpoint, manager()...)
	e.POST("/webhooks/ask", s.askEndpoint, manager(s.form(endpointFields...))...)
	e.GET("/webhooks/ask", toList, viewer)
	e.POST("/webhooks/make", s.makeEndpoint, manager(s.form(append([]string{"form", "reason"}, endpointFields...)...))...)
	e.GET("/webhooks/make", toList, viewer)
	e.GET("/webhooks/:endpoint", s.endpoint, viewer, s.told)
	e.GET("/webhooks/:endpoint/change", s.changeEndpointForm, manager()...)
	for action, a := range s.endpointActions() {
		if action != "change" { // which has a form of its own
			e.GET("/webhooks/:endpoint/"+action, s.askEndpointAction(action), manager()...)
		}
		e.POST("/webhooks/:endpoint/"+action, a.do, manager(s.form(a.fields...))...)
	}
	e.POST("/webhooks/:endpoint/test", s.testEndpoint, s.door.Require(tasks.RightManage), s.told, s.form()) // which writes nothing
	e.GET("/webhooks/:endpoint/test", func(c echo.Context) error { return redirect(c, "/webhooks/"+c.Param("endpoint")) }, viewer)
}

// endpointRow is an endpoint as a row of the page.
type endpointRow struct {
	tasks.Endpoint
	Retrying int // notices that wait for another try
	Whole    bool
	now      time.Time
	manages  bool
}

// Shown is the URL for who looks: it may have secrets of the receiver after its host.
func (r endpointRow) Shown() string {
	u, err := url.Parse(r.URL)
	if r.manages || err != nil {
		return r.URL
	}
	return u.Scheme + "://" + u.Host + "/…"
}

// Disabled, Failing and OldSigns are what its state can be.
func (r endpointRow) Disabled() bool { return !r.DisabledAt.IsZero() }
func (r endpointRow) Failing() bool  { return !r.FailingSince.IsZero() }
func (r endpointRow) OldSigns() bool { return r.now.Before(r.OldUntil.Time) }

// State is what it is, in a word.
func (r endpointRow) State() string {
	switch {
	case r.Disabled():
		return "disabled"
	case r.Failing():
		return "failing"
	}
	return "enabled"
}

// Told is what it is told of.
func (r endpointRow) Told() string {
	names := make([]string, len(r.Topics))
	for i, t := range r.Topics {
		names[i] = string(t)
	}
	return strings.Join(names, ", ")
}

// Came is what came of the last notice.
func (r endpointRow) Came() string {
	switch {
	case r.Last == nil:
		return "none yet"
	case r.Last.Error == "":
		return fmt.Sprintf("%s: taken, status %d, after %d ms", r.Last.Topic, r.Last.Status, r.Last.TookMillis)
	}
	return fmt.Sprintf("%s: %s, after %d ms", r.Last.Topic, r.Last.Error, r.Last.TookMillis)
}

// webhooksPage lists endpoints.
type webhooksPage struct {
	page
	Tenant    string
	Endpoints []endpointRow
	More      int
	Whole     bool // all notices that wait were counted
	Chips     []chip
	Exports   exports
}

func (s *site) webhooks(c echo.Context) error {
	ctx := c.Request().Context()
	all, err := s.Store.Endpoints.List(ctx)
	if err != nil {
		return err
	}
	waiting, whole, err := s.Store.Notices.Waiting(ctx)
	if err != nil {
		return err
	}
	p := webhooksPage{
		page: s.page(c, "Webhooks"), Tenant: strings.TrimSpace(c.QueryParam("tenant")), Whole: whole,
		Chips: chipsOf(c, tenantFilter...), Exports: exportsOf(c),
	}
	for _, e := range all {
		if p.Tenant == "" || e.Tenant == p.Tenant {
			p.Endpoints = append(p.Endpoints, endpointRow{e, waiting[e.ID], whole, s.Store.Now(), p.MayManage()})
		}
	}
	if wantsFile(c) {
		return s.exportEndpoints(c, p.Endpoints)
	}
	p.More = max(0, len(p.Endpoints)-callersOnPage)
	p.Endpoints = p.Endpoints[:len(p.Endpoints)-p.More]
	return s.show(c, http.StatusOK, "webhooks", p)
}

// exportEndpoints writes endpoints without their secrets: of a URL as much as who asks may see.
func (s *site) exportEndpoints(c echo.Context, rows []endpointRow) error {
	return export(s, c, list[endpointRow]{
		name: "webhooks",
		heads: []string{
			"endpoint_id", "tenant", "url", "events", "created_at", "state", "disabled_at", "disabled_reason", "failing_since", "last_at", "last_notice", "retrying",
		},
		cells: func(r endpointRow) []string {
			at := ""
			if r.Last != nil {
				at = cellOf(r.Last.At)
			}
			return []string{
				r.ID, r.Tenant, r.Shown(), strings.Join(topicNames(r.Topics), " "), cellOf(r.CreatedAt), r.State(), cellOf(r.DisabledAt), r.DisabledReason,
				cellOf(r.FailingSince), at, r.Came(), strconv.Itoa(r.Retrying),
			}
		},
		record: func(r endpointRow) any {
			e := r.Endpoint
			e.URL = r.Shown()
			return struct {
				tasks.Endpoint
				State    string `json:"state"`
				Retrying int    `json:"retrying"`
			}{e, r.State(), r.Retrying}
		},
		next: whole(rows),
	})
}

// endpointPage is an endpoint, or the question what is to be done with it.
type endpointPage struct {
	page
	Row    endpointRow
	Ask    string
	Test   *WebhookTest // its answer
	Form   string
	Hours  int
	Sealed bool
	Tenant string
	URL    string // as it was typed
	Topics []topicChoice
	// Chosen are the topics once they were checked, Seen what the endpoint was then.
	Chosen []tasks.Topic
	Seen   string
}

// topicChoice is a topic that can be chosen.
type topicChoice struct {
	Topic  tasks.Topic
	What   string
	Chosen bool
}

var topicTexts = map[tasks.Topic]string{
	tasks.TopicJobFinished: "a job has ended", tasks.TopicItemFailed: "an instance of a job failed, or is unknown",
	tasks.TopicRunWaiting: "a run waits for approval", tasks.TopicRunDecided: "somebody approved or rejected a run",
	tasks.TopicRunPaused: "a run pauses", tasks.TopicRunFinished: "a run has ended",
}

func topicChoices(chosen []string) (choices []topicChoice) {
	for _, t := range tasks.Topics {
		choices = append(choices, topicChoice{t, topicTexts[t], slices.Contains(chosen, string(t))})
	}
	return choices
}

func topicNames(topics []tasks.Topic) (names []string) {
	for _, t := range topics {
		names = append(names, string(t))
	}
	return names
}

// seenOf is what tells one state of an endpoint's URL and topics from another.
func seenOf(e tasks.Endpoint) string { return tasks.ListHash(append(topicNames(e.Topics), e.URL)) }

func noEndpoint(err error) error {
	if errors.Is(err, tasks.ErrNoEndpoint) {
		return tasks.Errorf(tasks.NoRoute, "There is no such webhook endpoint.")
	}
	return err
}

// endpointPage is the page of the endpoint of the path. Errors: tasks.NoRoute.
func (s *site) endpointPage(c echo.Context) (p endpointPage, err error) {
	e, err := s.Store.Endpoints.EndpointByID(c.Request().Context(), c.Param("endpoint"))
	if err != nil {
		return p, noEndpoint(err)
	}
	p = endpointPage{
		page: s.page(c, "Webhook "+e.ID), Hours: int(tasks.DefaultOverlap / time.Hour), Sealed: s.Store.Endpoints.Sealed(), URL: e.URL,
		Tenant: e.Tenant, Topics: topicChoices(topicNames(e.Topics)), Seen: seenOf(e),
	}
	p.Row = endpointRow{Endpoint: e, now: s.Store.Now(), manages: p.MayManage()}
	return p, nil
}

func (s *site) endpoint(c echo.Context) error {
	p, err := s.endpointPage(c)
	if err != nil {
		return err
	}
	waiting, whole, err := s.Store.Notices.Waiting(c.Request().Context())
	if err != nil {
		return err
	}
	p.Row.Retrying, p.Row.Whole = waiting[p.Row.ID], whole
	return s.show(c, http.StatusOK, "endpoint", p)
}
