package login

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"batchreset/tasks"
)

const (
	// issuerTimeout is for everything that one log-in asks the issuer.
	issuerTimeout = 5 * time.Second
	// issuerEvery is how often an issuer is asked for its settings that does not answer.
	issuerEvery = 5 * time.Second
	// maxIssuerAnswer bounds what is read of it, in bytes.
	maxIssuerAnswer = 1 << 20
	// issuerSkew is how far the issuer's clock may be from ours.
	issuerSkew = time.Minute
)

// DefaultGroupsClaim and DefaultNameClaim are what most issuers have.
const (
	DefaultGroupsClaim = "groups"
	DefaultNameClaim   = "email"
)

// IssuerConfig is how operators log in at an OpenID Connect issuer.
type IssuerConfig struct {
	URL      string
	ClientID string
	// ClientSecret is empty for a public client.
	ClientSecret string
	// Roles are those of the issuer's groups.
	Roles map[string]tasks.Role
	// GroupsClaim and NameClaim say who somebody is. An email must be verified.
	GroupsClaim, NameClaim string
	// Site is the URL at which browsers find the site, without a slash at its end.
	Site  string
	Clock Clock
	Log   *slog.Logger
}

// Issuer is an OpenID Connect issuer at which operators log in, with the authorization code flow and PKCE.
type Issuer struct {
	cfg      IssuerConfig
	host     string
	settings string
	client   *http.Client

	mu    sync.Mutex
	known *knownIssuer // nil: it was not asked yet, or did not answer
	asked time.Time
}

// knownIssuer is what an issuer says about itself.
type knownIssuer struct {
	provider *oidc.Provider
	verifier *oidc.IDTokenVerifier
	oauth    oauth2.Config
}

// NewIssuer makes an Issuer. It is asked for its settings when the first operator logs in.
func NewIssuer(cfg IssuerConfig) *Issuer {
	i := &Issuer{cfg: cfg, settings: settingsOf(cfg), client: &http.Client{
		Timeout: issuerTimeout, Transport: limitedAnswers{http.DefaultTransport},
		// What is asked has a secret in it, and is for the issuer alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if u, err := url.Parse(cfg.URL); err == nil {
		i.host = u.Host
	}
	return i
}

// settingsOf changes with everything that says who is let in, and as what.
func settingsOf(cfg IssuerConfig) string {
	parts := []string{cfg.URL, cfg.ClientID, cfg.GroupsClaim, cfg.NameClaim}
	for _, group := range slices.Sorted(maps.Keys(cfg.Roles)) {
		parts = append(parts, group, string(cfg.Roles[group]))
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	return hex.EncodeToString(sum[:16])
}

// Host is what people call the issuer.
func (i *Issuer) Host() string { return i.host }

// lets reports whether the settings of today are those with which an operator was let in.
func (i *Issuer) lets(o tasks.Operator) bool {
	return i != nil && subtle.ConstantTimeCompare([]byte(o.IssuerSettings), []byte(i.settings)) == 1
}

// limitedAnswers has every answer end somewhere.
type limitedAnswers struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (l limitedAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := l.RoundTripper.RoundTrip(r)
	if err == nil {
		answer.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(answer.Body, maxIssuerAnswer), answer.Body}
	}
	return answer, err
}

// errIssuerAway says that an issuer could not be asked.
var errIssuerAway = errors.New("the issuer does not answer")

// signatureAlgorithms are those with which who can verify cannot sign.
var signatureAlgorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

// ready asks the issuer for its settings, if that was not done yet.
func (i *Issuer) ready(ctx context.Context) (*knownIssuer, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.known != nil {
		return i.known, nil
	}
	if since := i.cfg.Clock.Now().Sub(i.asked); since >= 0 && since < issuerEvery {
		return nil, errIssuerAway
	}
	defer func() { i.asked = i.cfg.Clock.Now() }() // once it is over: those who came meanwhile do not ask, too
	known, err := i.discover(oidc.ClientContext(ctx, i.client))
	if err != nil {
		i.cfg.Log.Error("the issuer of operators cannot be asked", "issuer", i.cfg.URL, "error", err)
		return nil, errIssuerAway
	}
	i.known = known
	return known, nil
}

func (i *Issuer) discover(ctx context.Context) (*knownIssuer, error) {
	provider, err := oidc.NewProvider(ctx, i.cfg.URL)
	if err != nil {
		return nil, err
	}
	var says struct {
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
		Scopes     []string `json:"scopes_supported"`
		Methods    []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := provider.Claims(&says); err != nil {
		return nil, err
	}
	algorithms := slices.DeleteFunc(says.Algorithms, func(a string) bool { return !slices.Contains(signatureAlgorithms, a) })
	if len(algorithms) == 0 {
		algorithms = []string{oidc.RS256} // which every issuer must have
	}
	known := &knownIssuer{
		provider: provider,
		verifier: provider.Verifier(&oidc.Config{
			ClientID: i.cfg.ClientID, SupportedSigningAlgs: algorithms,
			Now: func() time.Time { return i.cfg.Clock.Now().Add(-issuerSkew) },
		}),
		oauth: oauth2.Config{
			ClientID: i.cfg.ClientID, ClientSecret: i.cfg.ClientSecret, Endpoint: provider.Endpoint(),
			RedirectURL: i.cfg.Site + callbackPath, Scopes: []string{oidc.ScopeOpenID, "profile", "email"},
		},
	}
	if slices.Contains(says.Scopes, "groups") {
		known.oauth.Scopes = append(known.oauth.Scopes, "groups")
	}
	// Which way it is has to be known: a code is good for one try.
	known.oauth.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if i.cfg.ClientSecret == "" || len(says.Methods) > 0 && !slices.Contains(says.Methods, "client_secret_basic") {
		known.oauth.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return known, nil
}

// journey is a log-in on its way through the issuer. The browser that began it keeps it.
type journey struct {
	State    string `json:"state"`
	Nonce    string `json:"nonce"`
	Verifier string `json:"verifier"`
	Next     string `json:"next"`
}

// where is the URL at the issuer that a log-in goes to.
func (k *knownIssuer) where(j journey) string {
	return k.oauth.AuthCodeURL(j.State, oidc.Nonce(j.Nonce), oauth2.S256ChallengeOption(j.Verifier))
}

// notLetIn says why somebody is not let in whom an issuer knows, or about whom it said something wrong.
type notLetIn struct {
	why  string
	name string // that the issuer knows them by; empty: it is not known
}

func (n *notLetIn) Error() string { return n.why }

// operator exchanges a code for who has logged in. Errors: errIssuerAway, *notLetIn.
func (i *Issuer) operator(ctx context.Context, known *knownIssuer, j journey, code string) (tasks.Operator, error) {
	ctx = oidc.ClientContext(ctx, i.client)
	token, err := known.oauth.Exchange(ctx, code, oauth2.VerifierOption(j.Verifier))
	if err != nil {
		if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok && refused.Response.StatusCode < http.StatusInternalServerError {
			i.cfg.Log.Warn("the issuer of operators refuses a code", "issuer", i.cfg.URL, "error", refused.ErrorCode, "status", refused.Response.StatusCode)
			return tasks.Operator{}, &notLetIn{why: i.host + " does not accept this log-in, or no longer. Begin again."}
		}
		return tasks.Operator{}, i.away(err)
	}
	raw, _ := token.Extra("id_token").(string)
	verified, err := known.verifier.Verify(ctx, raw)
	if err != nil {
		return tasks.Operator{}, i.doubtful(err)
	}
	switch now := i.cfg.Clock.Now(); {
	case subtle.ConstantTimeCompare([]byte(verified.Nonce), []byte(j.Nonce)) != 1:
		return tasks.Operator{}, i.doubtful(errors.New("its nonce is that of another log-in"))
	case verified.IssuedAt.After(now.Add(issuerSkew)):
		return tasks.Operator{}, i.doubtful(errors.New("it is from the future: look at the clocks"))
	}
	claims, err := i.claims(ctx, known, token, verified)
	if err != nil {
		return tasks.Operator{}, err
	}
	return i.judge(claims)
}

// away logs why an issuer cannot be asked.
func (i *Issuer) away(err error) error {
	i.cfg.Log.Error("the issuer of operators cannot be asked", "issuer", i.cfg.URL, "error", err)
	return errIssuerAway
}

// doubtful is about an ID token that is not accepted.
func (i *Issuer) doubtful(err error) error {
	i.cfg.Log.Error("an ID token of the issuer of operators is not accepted", "issuer", i.cfg.URL, "error", err)
	why := "What " + i.host + " says about you is not accepted"
	if _, expired := errors.AsType[*oidc.TokenExpiredError](err); expired {
		why += ": it has expired"
	}
	return &notLetIn{why: why + ". Begin again; if that does not help, an admin finds the reason in the log."}
}

// claims are what the issuer says about somebody: in the ID token, and else when it is asked.
func (i *Issuer) claims(ctx context.Context, known *knownIssuer, token *oauth2.Token, verified *oidc.IDToken) (map[string]any, error) {
	claims := map[string]any{}
	if err := verified.Claims(&claims); err != nil {
		return nil, i.doubtful(err)
	}
	if azp, _ := claims["azp"].(string); len(verified.Audience) > 1 && azp != i.cfg.ClientID {
		return nil, i.doubtful(errors.New("it is for several clients, and given to another one"))
	}
	if claims[i.cfg.NameClaim] != nil && claims[i.cfg.GroupsClaim] != nil || known.provider.UserInfoEndpoint() == "" {
		return claims, nil
	}
	info, err := known.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return nil, i.away(err)
	}
	if info.Subject != verified.Subject {
		return nil, i.doubtful(errors.New("it is about somebody else than what the issuer says when it is asked"))
	}
	more := map[string]any{}
	if err := info.Claims(&more); err != nil {
		return nil, i.doubtful(err)
	}
	if claims[DefaultNameClaim] != nil { // whether it is verified is said where it is said
		delete(more, DefaultNameClaim)
		delete(more, "email_verified")
	}
	for name, value := range claims {
		if name != "email_verified" || claims[DefaultNameClaim] != nil {
			more[name] = value
		}
	}
	return more, nil
}

// judge says who somebody is here. Errors: *notLetIn.
func (i *Issuer) judge(claims map[string]any) (tasks.Operator, error) {
	name, _ := claims[i.cfg.NameClaim].(string)
	if i.cfg.NameClaim == DefaultNameClaim {
		name = strings.ToLower(name) // or one mailbox would be two people
		if name != "" && !isTrue(claims["email_verified"]) {
			return tasks.Operator{}, &notLetIn{why: i.host + " does not say that your address is verified, so anybody could use it."}
		}
	}
	if name == "" {
		return tasks.Operator{}, &notLetIn{why: fmt.Sprintf("%s does not say who you are: it has no %s of yours.", i.host, i.cfg.NameClaim)}
	}
	if err := tasks.CheckOperatorName(name); err != nil {
		return tasks.Operator{}, &notLetIn{why: "Your name cannot be used here: " + err.Error() + "."}
	}
	role := i.role(claims[i.cfg.GroupsClaim])
	if role == "" {
		return tasks.Operator{}, &notLetIn{fmt.Sprintf("%s knows you as %s, but none of your groups has a role here. Ask an admin of batchreset.", i.host, name), name}
	}
	return tasks.Operator{Name: name, Role: role, Issuer: i.host, IssuerSettings: i.settings}, nil
}

// isTrue reports whether a claim is true, which some issuers say with a text.
func isTrue(claim any) bool { return claim == true || claim == "true" }

// role is the greatest of the groups; empty: there is none.
func (i *Issuer) role(groups any) (role tasks.Role) {
	names := []string{}
	switch groups := groups.(type) {
	case string:
		names = append(names, groups)
	case []any:
		for _, group := range groups {
			if name, ok := group.(string); ok {
				names = append(names, name)
			}
		}
	}
	for _, name := range names {
		if r, ok := i.cfg.Roles[name]; ok && slices.Index(tasks.Roles, r) > slices.Index(tasks.Roles, role) {
			role = r
		}
	}
	return role
}

// ParseIssuerRoles reads a table such as sre=operator of each group's role.
func ParseIssuerRoles(table []string) (map[string]tasks.Role, error) {
	roles := map[string]tasks.Role{}
	for _, line := range table {
		cut := strings.LastIndexByte(line, '=') // a group's name may have one
		if cut < 1 {
			return nil, fmt.Errorf("must be GROUP=ROLE such as sre=operator, not %q", line)
		}
		group, role := line[:cut], tasks.Role(line[cut+1:])
		if !slices.Contains(tasks.Roles, role) {
			return nil, fmt.Errorf("%s: %q is no role: they are %v", group, role, tasks.Roles)
		}
		if _, twice := roles[group]; twice {
			return nil, fmt.Errorf("has the group %q twice: %v", group, slices.Sorted(maps.Keys(roles)))
		}
		roles[group] = role
	}
	return roles, nil
}
