package ops

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/labstack/echo/v4"

	"batchreset/api/ops/login"
	"batchreset/tasks"
)

// endpointFields are those of a form for an endpoint.
var endpointFields = []string{"tenant", "url", "event"}

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
