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

	"batchreset/api/ops/login"
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

// endpointFields are those of a form for an endpoint.
var endpointFields = []string{"tenant", "url", "event"}

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

// endpointAction is something that admins do with an endpoint: what does it, and the fields of its form.
type endpointAction struct {
	do     echo.HandlerFunc
	fields []string
}

func (s *site) endpointActions() map[string]endpointAction {
	return map[string]endpointAction{
		"change":  {s.changeEndpoint, []string{"url", "event", "seen", "confirmed", "reason"}},
		"rotate":  {s.rotateEndpoint, []string{"form", "overlap", "reason"}},
		"enable":  {s.enableEndpoint, []string{"reason"}},
		"disable": {s.disableEndpoint, []string{"reason"}},
		"remove":  {s.removeEndpoint, []string{"reason"}},
	}
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

func (s *site) newEndpoint(c echo.Context) error {
	return s.show(c, http.StatusOK, "newendpoint", endpointPage{
		page: s.page(c, "New webhook"), Tenant: c.QueryParam("tenant"), Topics: topicChoices([]string{string(tasks.TopicJobFinished), string(tasks.TopicRunFinished)}),
		Sealed: s.Store.Endpoints.Sealed(),
	})
}

// target are the URL and the topics of a form. Errors: tasks.BadRequest.
func (s *site) target(c echo.Context) (to string, topics []tasks.Topic, err error) {
	fields, err := c.FormParams()
	if err != nil {
		return "", nil, err
	}
	if len(fields["event"]) == 0 {
		return "", nil, wrong("The field event: choose at least one.")
	}
	topics, err = tasks.ParseTopics(fields["event"])
	if e, ok := errors.AsType[*tasks.FieldError](err); ok {
		return "", nil, wrong("The field event%s.", e.Why)
	}
	to = strings.TrimSpace(fields.Get("url"))
	if to == "" {
		return "", nil, wrong("The field url is missing.")
	}
	if err := s.Webhooks.CheckURL(c.Request().Context(), to); err != nil {
		return "", nil, wrong("The field url %v.", err)
	}
	return to, topics, err
}

// newTarget is what a form for a new endpoint says. Errors: tasks.BadRequest.
func (s *site) newTarget(c echo.Context) (p endpointPage, err error) {
	fields, err := c.FormParams()
	if err != nil {
		return p, err
	}
	p = endpointPage{
		page: s.page(c, "New webhook"), Tenant: strings.TrimSpace(fields.Get("tenant")), URL: strings.TrimSpace(fields.Get("url")), Topics: topicChoices(fields["event"]),
		Sealed: s.Store.Endpoints.Sealed(),
	}
	if err := tasks.CheckTenant(p.Tenant); err != nil {
		return p, wrong("The field tenant: %v.", err)
	}
	p.URL, p.Chosen, err = s.target(c)
	if err != nil {
		p.URL = strings.TrimSpace(fields.Get("url"))
	}
	return p, err
}

// askEndpoint shows what would be made, and asks once more.
func (s *site) askEndpoint(c echo.Context) error {
	p, err := s.newTarget(c)
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		p.Problem = e.Message
		return s.show(c, http.StatusBadRequest, "newendpoint", p)
	}
	if err != nil {
		return err
	}
	p.Form = tasks.NewFormID()
	p.Row = endpointRow{Endpoint: tasks.Endpoint{Tenant: p.Tenant, URL: p.URL, Topics: p.Chosen}, manages: true}
	return s.show(c, http.StatusOK, "askendpoint", p)
}

func (s *site) makeEndpoint(c echo.Context) error {
	p, err := s.newTarget(c)
	if err != nil {
		return err
	}
	reason, err := reasonIn(c)
	if err != nil {
		return err
	}
	if err := s.useForm(c); err != nil {
		return err
	}
	e, err := s.Store.Endpoints.Add(c.Request().Context(), tasks.NewEndpoint(p.Tenant, p.URL, p.Chosen), login.Actor(c, reason))
	return s.showEndpointSecret(c, secretPage{ID: e.ID, Secret: e.Secret, About: "of the endpoint for tenant " + p.Tenant}, err)
}

// showEndpointSecret answers with the secret of an endpoint, or says that nobody knows whether it has it.
func (s *site) showEndpointSecret(c echo.Context, made secretPage, err error) error {
	if _, refused := errors.AsType[*tasks.Error](err); refused || errors.Is(err, tasks.ErrNoEndpoint) {
		return noEndpoint(err)
	}
	if err != nil {
		return s.inDoubt(c, err, "It is not known whether the endpoint has a new secret. Look at the list of webhooks, and rotate the secret of one of which nobody has it.")
	}
	made.page, made.Noun = s.page(c, "Secret of a webhook"), "secret"
	made.Back, made.BackName = "webhooks/"+made.ID, "The endpoint"
	return s.show(c, http.StatusOK, "secret", made)
}

func (s *site) rotateEndpoint(c echo.Context) error {
	p, err := s.endpointPage(c)
	if err != nil {
		return err
	}
	overlap, reason, err := s.renewalIn(c)
	if err != nil {
		return err
	}
	secret := tasks.NewEndpointSecret()
	err = s.Store.Endpoints.RotateSecret(c.Request().Context(), p.Row.Endpoint, secret, overlap, login.Actor(c, reason))
	return s.showEndpointSecret(c, secretPage{ID: p.Row.ID, Secret: secret, About: "of the endpoint for tenant " + p.Row.Tenant, Old: "the one before", Overlap: overlap}, err)
}

// askEndpointAction asks once more before something is done with an endpoint.
func (s *site) askEndpointAction(action string) echo.HandlerFunc {
	return func(c echo.Context) error {
		p, err := s.endpointPage(c)
		if err != nil {
			return err
		}
		switch {
		case action == "disable" && p.Row.Disabled():
			return tasks.Errorf(tasks.JobFinal, "The endpoint is disabled already.")
		case action == "enable" && !p.Row.Disabled() && !p.Row.Failing():
			return tasks.Errorf(tasks.JobFinal, "The endpoint is enabled already.")
		}
		p.Ask, p.Form = action, tasks.NewFormID()
		return s.show(c, http.StatusOK, "askendpoint", p)
	}
}

func (s *site) changeEndpointForm(c echo.Context) error {
	p, err := s.endpointPage(c)
	if err != nil {
		return err
	}
	return s.show(c, http.StatusOK, "newendpoint", p)
}

// changeEndpoint shows what an endpoint would become, and makes it that once it is confirmed.
func (s *site) changeEndpoint(c echo.Context) error {
	p, err := s.endpointPage(c)
	if err != nil {
		return err
	}
	seen := p.Seen
	to, topics, err := s.target(c)
	if err != nil {
		return err
	}
	reason, err := reasonIn(c)
	if err != nil {
		return err
	}
	if to == p.Row.URL && slices.Equal(topics, p.Row.Topics) {
		return wrong("Nothing would change: the endpoint is what it is.")
	}
	if c.FormValue("confirmed") != "true" {
		p.Ask, p.URL, p.Chosen, p.Topics = "change", to, topics, topicChoices(topicNames(topics))
		return s.show(c, http.StatusOK, "askendpoint", p)
	}
	if c.FormValue("seen") != seen {
		return tasks.Errorf(tasks.JobFinal, "Somebody else has changed this endpoint since the question was asked. Nothing was changed: look at it again.")
	}
	return s.changedEndpoint(c, s.Store.Endpoints.Change(c.Request().Context(), p.Row.Endpoint, to, topics, login.Actor(c, reason)))
}

func (s *site) changedEndpoint(c echo.Context, err error) error {
	if err != nil {
		return noEndpoint(err)
	}
	return redirect(c, "/webhooks/"+c.Param("endpoint"))
}

// onEndpoint does something with the endpoint of the path, for a reason.
func (s *site) onEndpoint(c echo.Context, do func(context.Context, tasks.Endpoint, tasks.Actor) error) error {
	p, err := s.endpointPage(c)
	if err != nil {
		return err
	}
	reason, err := reasonIn(c)
	if err != nil {
		return err
	}
	return do(c.Request().Context(), p.Row.Endpoint, login.Actor(c, reason))
}

func (s *site) enableEndpoint(c echo.Context) error {
	return s.changedEndpointIfOK(c, s.Store.Endpoints.Enable)
}

func (s *site) disableEndpoint(c echo.Context) error {
	return s.changedEndpointIfOK(c, func(ctx context.Context, e tasks.Endpoint, actor tasks.Actor) error {
		why := "by " + actor.By
		if actor.Reason != "" {
			why += ": " + actor.Reason
		}
		return s.Store.Endpoints.Disable(ctx, e, why, actor)
	})
}

func (s *site) changedEndpointIfOK(c echo.Context, do func(context.Context, tasks.Endpoint, tasks.Actor) error) error {
	return s.changedEndpoint(c, s.onEndpoint(c, do))
}

func (s *site) removeEndpoint(c echo.Context) error {
	if err := s.onEndpoint(c, s.Store.Endpoints.Remove); err != nil {
		return noEndpoint(err)
	}
	return redirect(c, "/webhooks")
}

// testEndpoint sends a test event now. It changes nothing, so it is not asked for twice.
func (s *site) testEndpoint(c echo.Context) error {
	p, err := s.endpointPage(c)
	if err != nil {
		return err
	}
	test, err := s.Webhooks.Test(c.Request().Context(), p.Row.Endpoint)
	if err != nil {
		return noEndpoint(err)
	}
	p.Test, p.Title = &test, "Test of "+p.Row.ID
	return s.show(c, http.StatusOK, "testendpoint", p)
}
