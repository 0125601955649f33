package ops

import (
	"cmp"
	"errors"
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

// grantFields are those of a form for a new token or access key.
var grantFields = []string{"kind", "tenant", "owner", "name", "days", "scope", "address", "instance_label"}

// callerRoutes are the pages on which tokens and access keys are made and ended.
func (s *site) callerRoutes(e *echo.Echo) {
	manager := func(more ...echo.MiddlewareFunc) []echo.MiddlewareFunc {
		return s.manager(tasks.ManagedCallers, tasks.RightManage, more...)
	}
	e.GET("/callers/new", s.newCaller, manager()...)
	e.GET("/callers/ask", s.askCaller, manager()...)
	e.POST("/callers/make", s.makeCaller, manager(s.form(slices.Concat(grantFields, []string{"form", "reason"})...))...)
	e.GET("/callers/:caller/rotate", s.askRotate, manager()...)
	e.POST("/callers/:caller/rotate", s.rotateCaller, manager(s.form("form", "overlap", "reason"))...)
	e.GET("/callers/:caller/revoke", s.askRevoke, manager()...)
	e.POST("/callers/:caller/revoke", s.revokeCaller, manager(s.form("reason"))...)
	// Who has the page with a secret load by its address is not shown it again.
	toList := func(c echo.Context) error { return redirect(c, "/callers") }
	e.GET("/callers/make", toList, s.door.Require(tasks.RightLook))
}

// grantPage is a form for a new token or access key, or the question whether that is what was meant.
type grantPage struct {
	page
	Kind   tasks.CredentialKind
	Sealed bool
	// Tenant to Scopes are as they were typed; Label is the name.
	Tenant, Owner, Label, Days, Address, Labels string

	Scopes []scopeChoice

	// Grant to Form are there once the form was checked.
	Grant     tasks.Token
	Life      time.Duration
	ExpiresAt tasks.Time // about
	Row       callerRow
	Form      string
}

// scopeChoice is a scope that can be chosen.
type scopeChoice struct {
	Scope  tasks.Scope
	What   string
	Chosen bool
}

var scopeTexts = map[tasks.Scope]string{
	tasks.ScopeSubmit: "submit jobs and runs", tasks.ScopeRead: "read jobs and runs", tasks.ScopeCancel: "cancel, pause and resume them",
	tasks.ScopeOperate: "halt the tenant's resets, and let them go on", tasks.ScopeApprove: "approve and reject runs of others; needs an owner",
}

// maxDays bounds how long a token lives, in the form.
const maxDays = 3650

// Noun is what people call it.
func (p grantPage) Noun() string { return nounOf(p.Kind) }

func nounOf(kind tasks.CredentialKind) string {
	if kind == tasks.KindKey {
		return "access key"
	}
	return "token"
}

// Plain says that Redis would keep the secret as it is.
func (p grantPage) Plain() bool { return p.Kind == tasks.KindKey && !p.Sealed }

// Fields are those of the form once more, for the one who confirms.
func (p grantPage) Fields() url.Values {
	fields := url.Values{
		"kind": {string(p.Kind)}, "tenant": {p.Tenant}, "owner": {p.Owner}, "name": {p.Label}, "days": {p.Days}, "address": {p.Address}, "instance_label": {p.Labels},
	}
	for _, choice := range p.Scopes {
		if choice.Chosen {
			fields.Add("scope", string(choice.Scope))
		}
	}
	return fields
}

// Query is Fields in an address, to go back to the form.
func (p grantPage) Query() string { return p.Fields().Encode() }

// grantIn reads a form as it was typed, without a look at what it says.
func (s *site) grantIn(c echo.Context, fields url.Values) grantPage {
	field := func(name string) string { return strings.TrimSpace(fields.Get(name)) }
	p := grantPage{
		Kind: tasks.CredentialKind(cmp.Or(field("kind"), string(tasks.KindToken))), Tenant: field("tenant"), Owner: field("owner"), Label: field("name"),
		Days: field("days"), Address: field("address"), Labels: field("instance_label"), Sealed: s.Store.Credentials.Sealed(),
	}
	p.page = s.page(c, "New "+p.Noun())
	for _, scope := range tasks.Scopes {
		p.Scopes = append(p.Scopes, scopeChoice{scope, scopeTexts[scope], slices.Contains(fields["scope"], string(scope))})
	}
	return p
}

// check reads what a form says. Errors: tasks.BadRequest, which names the field.
func (p *grantPage) check(fields url.Values) error {
	if p.Kind != tasks.KindToken && p.Kind != tasks.KindKey {
		return wrong("The field kind must be %s or %s, not %.40q.", tasks.KindToken, tasks.KindKey, string(p.Kind))
	}
	days, err := strconv.Atoi(p.Days)
	if err != nil || days < 0 || days > maxDays {
		return wrong("The field days must be a whole number from 0 (it never expires) to %d, not %.40q.", maxDays, p.Days)
	}
	if len(fields["scope"]) == 0 {
		return wrong("The field scope: choose at least one.")
	}
	p.Life = time.Duration(days) * 24 * time.Hour
	grant := tasks.Grant{
		Tenant: p.Tenant, Owner: p.Owner, Name: p.Label, Life: p.Life, Scopes: fields["scope"],
		Addresses: strings.FieldsFunc(p.Address, func(r rune) bool { return r == ' ' || r == ',' || r == '\t' }),
	}
	for i, scope := range grant.Scopes {
		if slices.Contains(grant.Scopes[:i], scope) {
			return wrong("The field scope has %.40q twice.", scope)
		}
	}
	if p.Labels != "" {
		if grant.InstanceLabels, err = tasks.ParseLabels(p.Labels); err != nil {
			return wrong("The field instance_label %v.", err)
		}
	}
	p.Grant, err = grant.Token()
	if e, ok := errors.AsType[*tasks.FieldError](err); ok {
		return wrong("The field %s.", e)
	}
	p.Row = callerRow{Token: p.Grant}
	return err
}

func (s *site) newCaller(c echo.Context) error {
	fields := c.QueryParams()
	if !fields.Has("scope") && !fields.Has("days") { // an empty form
		for _, scope := range tasks.DefaultScopes {
			fields.Add("scope", string(scope))
		}
		fields.Set("days", strconv.Itoa(int(tasks.DefaultTokenLife/(24*time.Hour))))
	}
	return s.show(c, http.StatusOK, "newcaller", s.grantIn(c, fields))
}

// askCaller shows what would be made, and asks once more.
func (s *site) askCaller(c echo.Context) error {
	p := s.grantIn(c, c.QueryParams())
	err := p.check(c.QueryParams())
	if e, ok := errors.AsType[*tasks.Error](err); ok {
		p.Problem = e.Message
		return s.show(c, http.StatusBadRequest, "newcaller", p)
	}
	if err != nil {
		return err
	}
	p.Form = tasks.NewFormID()
	if p.Life > 0 {
		p.ExpiresAt = tasks.Time{Time: s.Store.Now().Add(p.Life)}
	}
	return s.show(c, http.StatusOK, "askcaller", p)
}

// secretPage shows a secret, this once.
type secretPage struct {
	page
	Noun, ID       string
	Access, Secret string // Access is empty for what is a secret alone
	About          string // what it is for
	Old            string // what it replaces, if anything
	Overlap        time.Duration
	Back, BackName string
}

func (s *site) makeCaller(c echo.Context) error {
	fields, err := c.FormParams()
	if err != nil {
		return err
	}
	p := s.grantIn(c, fields)
	if err := p.check(fields); err != nil {
		return err
	}
	reason, err := reasonIn(c)
	if err != nil {
		return err
	}
	if err := s.useForm(c); err != nil {
		return err
	}
	made := secretPage{page: s.page(c, "New "+p.Noun()), Noun: p.Noun(), Back: "callers?tenant=" + url.QueryEscape(p.Tenant), BackName: "The callers of " + p.Tenant}
	var token tasks.Token
	if p.Kind == tasks.KindKey {
		made.Access, made.Secret = tasks.NewAccessKey()
		token, err = s.Store.Credentials.AddKey(c.Request().Context(), made.Access, made.Secret, p.Grant, p.Life, login.Actor(c, reason))
	} else {
		made.Secret = tasks.NewTokenSecret()
		token, err = s.Store.Credentials.Add(c.Request().Context(), made.Secret, p.Grant, p.Life, login.Actor(c, reason))
	}
	return s.showSecret(c, made, token, err)
}

// showSecret answers with a token or access key that was made, or says that nobody knows whether it was.
func (s *site) showSecret(c echo.Context, made secretPage, token tasks.Token, err error) error {
	if _, refused := errors.AsType[*tasks.Error](err); refused {
		return err
	}
	if err != nil {
		return s.inDoubt(c, err, "It is not known whether the "+made.Noun+" was made. Look at the list of callers, and revoke one of which nobody has the secret.")
	}
	made.ID, made.About = token.ID, "for tenant "+token.Tenant
	return s.show(c, http.StatusOK, "secret", made)
}

// inDoubt says that something may have been done.
func (s *site) inDoubt(c echo.Context, err error, what string) error {
	s.Log.Error("request failed", "path", cut(c.Request().URL.Path), "error", err)
	return s.refuse(c, http.StatusServiceUnavailable, "Redis does not answer as it should: see the log. "+what)
}

// callerIn is the token or access key of the path. Errors: tasks.NoRoute.
func (s *site) callerIn(c echo.Context) (callerRow, error) {
	all, err := s.Store.Credentials.List(c.Request().Context())
	if err != nil {
		return callerRow{}, err
	}
	for _, token := range all {
		if token.ID == c.Param("caller") {
			return newCallerRow(token, s.Store.Now()), nil
		}
	}
	return callerRow{}, noCaller()
}

func noCaller() error {
	return tasks.Errorf(tasks.NoRoute, "There is no such token or access key, or it is not remembered any more.")
}

// changePage asks once more before a token or access key is replaced or ended.
type changePage struct {
	page
	Row    callerRow
	Form   string
	Hours  int
	Plain  bool
	Revoke bool
}

// Noun is what people call it.
func (p changePage) Noun() string { return nounOf(p.Row.Kind) }

func (s *site) askRotate(c echo.Context) error {
	row, err := s.callerIn(c)
	if err != nil {
		return err
	}
	if err := row.Check(s.Store.Now()); err != nil {
		return tasks.Errorf(tasks.JobFinal, "This %s has ended: make a new one.", nounOf(row.Kind))
	}
	p := changePage{
		page: s.page(c, "Replace a "+nounOf(row.Kind)), Row: row, Form: tasks.NewFormID(), Hours: int(tasks.DefaultOverlap / time.Hour),
		Plain: row.Kind == tasks.KindKey && !s.Store.Credentials.Sealed(),
	}
	return s.show(c, http.StatusOK, "changecaller", p)
}

// maxOverlap bounds how long an old secret is good beside the new one, in the form.
const maxOverlap = 90 * 24

// overlapIn is how long the old one is good. Errors: tasks.BadRequest.
func overlapIn(c echo.Context) (time.Duration, error) {
	text := strings.TrimSpace(c.FormValue("overlap"))
	hours, err := strconv.Atoi(text)
	if err != nil || hours < 0 || hours > maxOverlap {
		return 0, wrong("The field overlap must be a whole number of hours from 0 (the old one ends at once) to %d, not %.40q.", maxOverlap, text)
	}
	return time.Duration(hours) * time.Hour, nil
}

// renewalIn reads the form of a renewal: how long what is replaced is good beside the new one, and why. It uses the form up.
func (s *site) renewalIn(c echo.Context) (overlap time.Duration, reason string, err error) {
	if overlap, err = overlapIn(c); err != nil {
		return 0, "", err
	}
	if reason, err = reasonIn(c); err != nil {
		return 0, "", err
	}
	return overlap, reason, s.useForm(c)
}

func (s *site) rotateCaller(c echo.Context) error {
	row, err := s.callerIn(c)
	if err != nil {
		return err
	}
	overlap, reason, err := s.renewalIn(c)
	if err != nil {
		return err
	}
	made := secretPage{
		page: s.page(c, "New "+nounOf(row.Kind)), Noun: nounOf(row.Kind), Old: row.ID, Overlap: overlap,
		Back: "callers?tenant=" + url.QueryEscape(row.Tenant), BackName: "The callers of " + row.Tenant,
	}
	var token tasks.Token
	ctx := c.Request().Context()
	if row.Kind == tasks.KindKey {
		made.Access, made.Secret = tasks.NewAccessKey()
		token, err = s.Store.Credentials.RotateKey(ctx, row.ID, made.Access, made.Secret, overlap, login.Actor(c, reason))
	} else {
		made.Secret = tasks.NewTokenSecret()
		token, err = s.Store.Credentials.Rotate(ctx, row.ID, made.Secret, overlap, login.Actor(c, reason))
	}
	return s.showSecret(c, made, token, err)
}

func (s *site) askRevoke(c echo.Context) error {
	row, err := s.callerIn(c)
	if err != nil {
		return err
	}
	if row.State == "revoked" {
		return tasks.Errorf(tasks.JobFinal, "This %s was revoked before.", nounOf(row.Kind))
	}
	return s.show(c, http.StatusOK, "changecaller", changePage{page: s.page(c, "Revoke a "+nounOf(row.Kind)), Row: row, Revoke: true})
}

// revokeCaller ends a token or access key. One that cannot be read is ended all the more.
func (s *site) revokeCaller(c echo.Context) error {
	reason, err := reasonIn(c)
	if err != nil {
		return err
	}
	found, err := s.Store.Credentials.Revoke(c.Request().Context(), c.Param("caller"), login.Actor(c, reason))
	if err != nil {
		return err
	}
	if !found {
		return noCaller()
	}
	return redirect(c, "/callers")
}
