package ops_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hibiken/asynqmon"

	"batchreset/api/ops"
	"batchreset/api/ops/login"
	"batchreset/tasks"
)

const (
	siteURL  = "https://reset.example"
	clientID = "batchreset"
)

// standIn is an OpenID Connect issuer with one person, about whom it says what a test wants.
type standIn struct {
	*httptest.Server
	key *rsa.PrivateKey

	mu     sync.Mutex
	codes  map[string]url.Values // what they were asked for with
	secret string                // of the client; empty: it is public
	claims map[string]any        // over those of a good token
	info   map[string]any        // of userinfo; nil: there is none
	sign   func(t *standIn, claims []byte) string
	away   bool
	asked  int // for its settings
	used   int // codes
}

func newStandIn(t *testing.T) *standIn {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &standIn{key: key, codes: map[string]url.Values{}, secret: "s3cret&=", claims: map[string]any{}, sign: (*standIn).rs256}
	i.Server = httptest.NewServer(i)
	t.Cleanup(i.Close)
	return i
}

func (i *standIn) set(f func()) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f()
}

// rs256 signs a token as an issuer does.
func (i *standIn) rs256(claims []byte) string {
	return signed(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: i.key, KeyID: "k1"}}, claims)
}

func signed(key jose.SigningKey, claims []byte) string {
	signer, err := jose.NewSigner(key, nil)
	if err != nil {
		panic(err)
	}
	object, err := signer.Sign(claims)
	if err != nil {
		panic(err)
	}
	text, err := object.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return text
}

func (i *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	say := func(status int, body any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		if err := json.NewEncoder(w).Encode(body); err != nil {
			panic(err) // maps and texts always encode
		}
	}
	if i.away {
		say(http.StatusBadGateway, nil)
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		i.asked++
		settings := map[string]any{
			"issuer": i.URL, "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token", "jwks_uri": i.URL + "/keys",
			"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"}, "scopes_supported": []string{"openid", "email", "groups"},
		}
		if i.info != nil {
			settings["userinfo_endpoint"] = i.URL + "/userinfo"
		}
		say(http.StatusOK, settings)
	case "/keys":
		say(http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: "k1", Algorithm: "RS256", Use: "sig"}}})
	case "/authorize":
		q := r.URL.Query()
		if q.Get("client_id") != clientID || q.Get("redirect_uri") != siteURL+"/login/issuer/callback" || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" ||
			len(q.Get("code_challenge")) != 43 || q.Get("nonce") == "" || q.Get("scope") != "openid profile email groups" {
			say(http.StatusBadRequest, map[string]string{"error": "invalid_request", "query": r.URL.RawQuery})
			return
		}
		code := rand.Text()
		i.codes[code] = q
		http.Redirect(w, r, q.Get("redirect_uri")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}, "iss": {i.URL}}.Encode(), http.StatusFound)
	case "/token":
		i.token(r, say)
	case "/userinfo":
		if r.Header.Get("Authorization") != "Bearer access" {
			say(http.StatusUnauthorized, nil)
			return
		}
		say(http.StatusOK, i.info)
	default:
		say(http.StatusNotFound, nil)
	}
}

func (i *standIn) token(r *http.Request, say func(int, any)) {
	refuse := func(why string) { say(http.StatusBadRequest, map[string]string{"error": why}) }
	id, secret, basic := r.BasicAuth()
	if !basic {
		id, secret = r.FormValue("client_id"), r.FormValue("client_secret")
	}
	secret, err := url.QueryUnescape(secret)
	asked, known := i.codes[r.FormValue("code")]
	challenge := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	switch {
	case err != nil || id != clientID || secret != i.secret:
		refuse("invalid_client")
		return
	case !known || r.FormValue("grant_type") != "authorization_code" || r.FormValue("redirect_uri") != asked.Get("redirect_uri"),
		base64.RawURLEncoding.EncodeToString(challenge[:]) != asked.Get("code_challenge"):
		refuse("invalid_grant")
		return
	}
	delete(i.codes, r.FormValue("code")) // it is good for once
	i.used++
	now := time.Now()
	claims := map[string]any{
		"iss": i.URL, "aud": clientID, "sub": "u1", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "nonce": asked.Get("nonce"),
		"email": "Dora@Corp.example", "email_verified": true, "groups": []string{"sre"},
	}
	maps.Copy(claims, i.claims)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	say(http.StatusOK, map[string]any{"access_token": "access", "token_type": "Bearer", "id_token": i.sign(i, text)})
}

// moving is a clock that a test sets.
type moving struct {
	mu sync.Mutex
	by time.Duration
}

func (m *moving) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.by)
}

func (m *moving) pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.by += d
}

func (i *standIn) config(clock ops.Clock, change ...func(*login.IssuerConfig)) *login.Issuer {
	cfg := login.IssuerConfig{
		URL: i.URL, ClientID: clientID, ClientSecret: "s3cret&=", Roles: map[string]tasks.Role{"sre": tasks.RoleOperator, "managers": tasks.RoleApprover, "it": tasks.RoleViewer},
		GroupsClaim: login.DefaultGroupsClaim, NameClaim: login.DefaultNameClaim, Site: siteURL, Clock: clock, Log: slog.New(slog.DiscardHandler),
	}
	for _, change := range change {
		change(&cfg)
	}
	return login.NewIssuer(cfg)
}

// tab is a browser that keeps the cookies of the site, which is not reached by https here.
type tab struct {
	g       guarded
	cookies map[string]string
}

func (g guarded) newTab() *tab { return &tab{g, map[string]string{}} }

func (b *tab) ask(t *testing.T, method, path string, form url.Values) answer {
	t.Helper()
	header := []string{"Cookie", strings.Join(b.header(), "; ")}
	a := b.g.ask(t, method, path, nil, form, header...)
	for _, text := range a.header.Values("Set-Cookie") {
		c, err := http.ParseSetCookie(text)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(c.Name, "__Host-") && (!c.Secure || c.Path != "/" || c.Domain != "" || !c.HttpOnly || c.SameSite == http.SameSiteNoneMode) {
			t.Errorf("cookie %+v", c)
		}
		if c.MaxAge < 0 {
			delete(b.cookies, c.Name)
		} else {
			b.cookies[c.Name] = c.Value
		}
	}
	return a
}

func (b *tab) header() (all []string) {
	for name, value := range b.cookies {
		all = append(all, name+"="+value)
	}
	return all
}

func (b *tab) get(t *testing.T, path string) answer {
	t.Helper()
	return b.ask(t, http.MethodGet, path, nil)
}

func (b *tab) post(t *testing.T, path string, fields ...string) answer {
	t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	return b.ask(t, http.MethodPost, path, form)
}

// authorize has the issuer know who is there, and returns the path and query to which it sends the browser back.
func (b *tab) authorize(t *testing.T, next string) string {
	t.Helper()
	begun := b.get(t, "/login/issuer?next="+url.QueryEscape(next))
	if begun.status != http.StatusSeeOther {
		t.Fatalf("begin: %+v", begun)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, begun.header.Get("Location"), http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	back, err := response.Location()
	if err != nil || !strings.HasPrefix(back.String(), siteURL+"/login/issuer/callback?") {
		t.Fatalf("the issuer answers %d and leads to %v: %v", response.StatusCode, back, err)
	}
	return back.RequestURI()
}

func newIssued(t *testing.T, change ...func(*login.IssuerConfig)) (guarded, *standIn, *moving) {
	t.Helper()
	issuer, clock := newStandIn(t), new(moving)
	g := newGuardedAs(t, ops.Config{Issuer: issuer.config(clock, change...)}.Frozen(), map[string]tasks.Role{"alice": tasks.RoleAdmin})
	return g, issuer, clock
}

func TestLogInAtAnIssuer(t *testing.T) {
	g, issuer, _ := newIssued(t)
	b := g.newTab()
	host := strings.TrimPrefix(issuer.URL, "http://")
	if a := b.get(t, "/login?next=%2Fjobs"); !strings.Contains(a.body, "Log in with "+host) || !strings.Contains(a.body, `href="login/issuer?next=%2fjobs"`) {
		t.Errorf("login page %s", a.body)
	}
	back := b.authorize(t, "/jobs?state=failed")
	if a := b.get(t, back); a.status != http.StatusSeeOther || a.location != "/jobs?state=failed" {
		t.Fatalf("back: %+v", a)
	}
	if a := b.get(t, "/"); a.status != http.StatusOK || !strings.Contains(a.body, "dora@corp.example (operator)") || strings.Contains(a.body, "Add an operator") {
		t.Errorf("home %d %s", a.status, a.body)
	}
	if a := b.get(t, "/me"); a.status != http.StatusOK || !strings.Contains(a.body, host) || strings.Contains(a.body, "me/password") {
		t.Errorf("account %d %s", a.status, a.body)
	}
	g.want(t, b.get(t, "/me/password"), http.StatusConflict, "")
	g.want(t, b.get(t, "/operators/add"), http.StatusForbidden, "Only an admin")
	g.want(t, b.post(t, pause), http.StatusNoContent, "")
	trail := g.wholeTrail(t)
	if e := trail[0]; e.Action != tasks.ActionLogin || e.By != "operator dora@corp.example" || e.Detail != "as operator, known by "+host {
		t.Errorf("entry %+v", e)
	}
	if e := trail[1]; e.Action != tasks.ActionDashboard || e.By != "operator dora@corp.example" {
		t.Errorf("entry %+v", e)
	}
	if a := (&tab{g, map[string]string{"__Host-batchreset": g.login(t, "alice").Value}}).get(t, "/operators"); !strings.Contains(a.body, "dora@corp.example") || !strings.Contains(a.body, host) {
		t.Errorf("operators %s", a.body)
	}
	g.want(t, b.post(t, "/logout"), http.StatusSeeOther, "")
	g.want(t, b.get(t, "/"), http.StatusSeeOther, "")
}

func TestWhomAnIssuerLetsIn(t *testing.T) {
	g, issuer, _ := newIssued(t)
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for _, row := range []struct {
		name   string
		claims map[string]any
		sign   func(*standIn, []byte) string
		role   string // empty: not let in
		why    string
	}{
		{"one group", nil, nil, "operator", ""},
		{"two groups", map[string]any{"groups": []string{"it", "managers", "others"}}, nil, "approver", ""},
		{"two groups, the other way", map[string]any{"groups": []string{"managers", "it"}}, nil, "approver", ""},
		{"a group as a text", map[string]any{"groups": "it"}, nil, "viewer", ""},
		{"verified in a text", map[string]any{"email_verified": "true"}, nil, "operator", ""},
		{"a clock that is half a minute slow", map[string]any{"exp": at(-30 * time.Second)}, nil, "operator", ""},
		{"a clock that is half a minute fast", map[string]any{"iat": at(30 * time.Second), "nbf": at(30 * time.Second)}, nil, "operator", ""},
		{"for two, given to us", map[string]any{"aud": []string{clientID, "other"}, "azp": clientID}, nil, "operator", ""},
		{"no group that is known", map[string]any{"groups": []string{"others"}}, nil, "", "none of your groups has a role here"},
		{"no groups", map[string]any{"groups": nil}, nil, "", "none of your groups has a role here"},
		{"groups that are none", map[string]any{"groups": map[string]any{"sre": true}}, nil, "", "none of your groups has a role here"},
		{"an address that is not verified", map[string]any{"email_verified": false}, nil, "", "does not say that your address is verified"},
		{"nothing about whether it is", map[string]any{"email_verified": nil}, nil, "", "does not say that your address is verified"},
		{"no address", map[string]any{"email": nil}, nil, "", "does not say who you are"},
		{"a name that is none", map[string]any{"email": "do ra@corp.example"}, nil, "", "Your name cannot be used here"},
		{"another nonce", map[string]any{"nonce": "another"}, nil, "", "is not accepted"},
		{"no nonce", map[string]any{"nonce": nil}, nil, "", "is not accepted"},
		{"another audience", map[string]any{"aud": "other"}, nil, "", "is not accepted"},
		{"for two, given to the other", map[string]any{"aud": []string{clientID, "other"}, "azp": "other"}, nil, "", "is not accepted"},
		{"another issuer", map[string]any{"iss": "https://evil.example"}, nil, "", "is not accepted"},
		{"expired", map[string]any{"exp": at(-2 * time.Minute)}, nil, "", "has expired"},
		{"from the future", map[string]any{"iat": at(10 * time.Minute)}, nil, "", "is not accepted"},
		{"no signature", nil, func(_ *standIn, claims []byte) string {
			return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(claims) + "."
		}, "", "is not accepted"},
		{"a signature that we could make", nil, func(i *standIn, claims []byte) string {
			return signed(jose.SigningKey{Algorithm: jose.HS256, Key: i.key.N.Bytes()}, claims)
		}, "", "is not accepted"},
		{"somebody else's signature", nil, func(_ *standIn, claims []byte) string {
			key, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				panic(err)
			}
			return signed(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}}, claims)
		}, "", "is not accepted"},
		{"no token", nil, func(*standIn, []byte) string { return "" }, "", "is not accepted"},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := newGuardedOn(t, g, ops.Config{Issuer: issuer.config(new(moving))})
			issuer.set(func() {
				issuer.claims, issuer.sign = row.claims, (*standIn).rs256
				if row.sign != nil {
					issuer.sign = row.sign
				}
			})
			b := g.newTab()
			a := b.get(t, b.authorize(t, "/"))
			home := b.get(t, "/")
			if row.role == "" {
				if a.status != http.StatusForbidden || !strings.Contains(a.body, row.why) || home.status != http.StatusSeeOther {
					t.Errorf("answer %d: %s; then %d", a.status, a.body, home.status)
				}
				return
			}
			if a.status != http.StatusSeeOther || !strings.Contains(home.body, "dora@corp.example ("+row.role+")") {
				t.Errorf("answer %d: %.300s; then %d", a.status, a.body, home.status)
			}
		})
	}
}

// newGuardedOn is another process on the same Redis.
func newGuardedOn(t *testing.T, g guarded, cfg ops.Config) guarded {
	t.Helper()
	g.log = new(logged)
	cfg.Redis, cfg.Store, cfg.Log = asynqmon.Options{RedisConnOpt: g.db.Redis}, storeOf(g.db), slog.New(slog.NewJSONHandler(g.log, nil))
	g.Server = httptest.NewServer(ops.New(cfg))
	t.Cleanup(g.Close)
	return g
}

func TestALogInIsForTheBrowserThatBeganIt(t *testing.T) {
	g, issuer, _ := newIssued(t)
	const notHere = "This log-in was not begun in this browser"
	wants := func(what string, a answer, status int, text string) {
		t.Helper()
		if a.status != status || !strings.Contains(a.body, text) {
			t.Errorf("%s: %d, want %d with %q: %s", what, a.status, status, text, a.body)
		}
	}
	victim, attacker := g.newTab(), g.newTab()
	back := attacker.authorize(t, "/")
	wants("another browser", victim.get(t, back), http.StatusBadRequest, notHere)
	own := victim.authorize(t, "/")
	wants("somebody else's answer", victim.get(t, back), http.StatusBadRequest, notHere)
	wants("one's own, after that", victim.get(t, own), http.StatusBadRequest, notHere)

	own = victim.authorize(t, "/")
	changed := strings.Replace(own, "state=", "state=x", 1)
	wants("another state", victim.get(t, changed), http.StatusBadRequest, notHere)

	own = victim.authorize(t, "/")
	other, err := url.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	q := other.Query()
	q.Set("iss", "https://evil.example")
	wants("another issuer's answer", victim.get(t, other.Path+"?"+q.Encode()), http.StatusBadRequest, "from another issuer")

	own = victim.authorize(t, "/")
	wants("a state twice", victim.get(t, own+"&state=x"), http.StatusBadRequest, "twice")

	// A code that somebody has seen is no use without the verifier, nor a second time.
	stolen, err := url.Parse(attacker.authorize(t, "/"))
	if err != nil {
		t.Fatal(err)
	}
	own = victim.authorize(t, "/")
	mine, err := url.Parse(own)
	if err != nil {
		t.Fatal(err)
	}
	q = mine.Query()
	q.Set("code", stolen.Query().Get("code"))
	wants("a stolen code", victim.get(t, mine.Path+"?"+q.Encode()), http.StatusForbidden, "does not accept this log-in")

	own = victim.authorize(t, "/")
	kept := maps.Clone(victim.cookies)
	if a := victim.get(t, own); a.status != http.StatusSeeOther {
		t.Errorf("the right one: %+v", a)
	}
	wants("again", victim.get(t, own), http.StatusBadRequest, notHere)
	wants("again, with the cookie of then", (&tab{g, kept}).get(t, own), http.StatusForbidden, "does not accept this log-in")

	denied := g.newTab()
	state, err := url.Parse(denied.authorize(t, "/"))
	if err != nil {
		t.Fatal(err)
	}
	wants("somebody who says no", denied.get(t, "/login/issuer/callback?error=access_denied&error_description=%3Cb%3Eno&state="+state.Query().Get("state")), http.StatusUnauthorized, "access_denied &lt;b&gt;no")
	if issuer.used != 1 {
		t.Errorf("%d codes were used", issuer.used)
	}
}

func TestALogInLeadsNowhereElse(t *testing.T) {
	g, _, _ := newIssued(t)
	for _, next := range []string{"https://evil.example/", "//evil.example", `/\evil.example`, "javascript:alert(1)", "/" + strings.Repeat("x", 3000)} {
		b := g.newTab()
		if a := b.get(t, b.authorize(t, next)); a.status != http.StatusSeeOther || a.location != "/" {
			t.Errorf("%.40q leads to %s: %d", next, a.location, a.status)
		}
	}
}

func TestAnIssuerThatIsAway(t *testing.T) {
	g, issuer, clock := newIssued(t)
	issuer.set(func() { issuer.away = true })
	b := g.newTab()
	const kept = `name="next" value="/runs?state=paused"` // where to, for who logs in with a password instead
	for range 3 {
		if a := b.get(t, "/login/issuer?next=/runs?state=paused"); !strings.Contains(a.body, kept) || a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "does not answer") || !strings.Contains(a.body, `name="password"`) {
			t.Errorf("away: %d %s", a.status, a.body)
		}
	}
	if a := b.post(t, "/login", "name", "alice", "password", password); a.status != http.StatusSeeOther {
		t.Errorf("a local log-in: %+v", a)
	}
	issuer.set(func() { issuer.away = false })
	if a := b.get(t, "/login/issuer"); a.status != http.StatusServiceUnavailable || issuer.asked != 0 {
		t.Errorf("a moment later it is asked again: %d", a.status)
	}
	clock.pass(6 * time.Second)
	back := b.authorize(t, "/runs?state=paused")
	issuer.set(func() { issuer.away = true })
	if a := b.get(t, back); !strings.Contains(a.body, kept) || a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, "does not answer") {
		t.Errorf("away on the way back: %d %s", a.status, a.body)
	}
	issuer.set(func() { issuer.away = false })
	if a := b.get(t, b.authorize(t, "/")); a.status != http.StatusSeeOther || issuer.asked != 1 {
		t.Errorf("it is back: %d, asked %d times", a.status, issuer.asked)
	}
}

func TestASessionEndsWithTheSettingsOfItsIssuer(t *testing.T) {
	g, issuer, clock := newIssued(t)
	b := g.newTab()
	b.get(t, b.authorize(t, "/"))
	on := func(cfg ops.Config) int {
		t.Helper()
		return (&tab{newGuardedOn(t, g, cfg), b.cookies}).get(t, "/").status
	}
	if status := on(ops.Config{Issuer: issuer.config(clock)}); status != http.StatusOK {
		t.Errorf("another process with the same settings: %d", status)
	}
	for what, cfg := range map[string]ops.Config{
		"no issuer": {},
		"another table": {Issuer: issuer.config(clock, func(cfg *login.IssuerConfig) {
			cfg.Roles = map[string]tasks.Role{"sre": tasks.RoleViewer, "managers": tasks.RoleApprover, "it": tasks.RoleViewer}
		})},
		"another client": {Issuer: issuer.config(clock, func(cfg *login.IssuerConfig) { cfg.ClientID = "other" })},
		"another claim":  {Issuer: issuer.config(clock, func(cfg *login.IssuerConfig) { cfg.GroupsClaim = "roles" })},
	} {
		if status := on(cfg); status != http.StatusSeeOther {
			t.Errorf("%s: %d", what, status)
		}
	}
	// An admin ends it here, whoever is known there.
	admin := g.newTab()
	admin.post(t, "/login", "name", "alice", "password", password)
	if a := admin.post(t, "/operators/sessions/end", "name", "dora@corp.example", "id", "", "reason", "left"); a.status != http.StatusSeeOther {
		t.Errorf("end: %+v", a)
	}
	g.want(t, b.get(t, "/"), http.StatusSeeOther, "")
}

func TestWhatAnIssuerSaysWhenItIsAsked(t *testing.T) {
	g, issuer, _ := newIssued(t)
	for _, row := range []struct {
		name         string
		claims, info map[string]any
		role         string
	}{
		{"groups", map[string]any{"groups": nil}, map[string]any{"sub": "u1", "groups": []string{"it"}}, "viewer"},
		{"an address, verified there", map[string]any{"email": nil, "email_verified": nil}, map[string]any{"sub": "u1", "email": "dora@corp.example", "email_verified": true}, "operator"},
		{"an address, verified elsewhere", map[string]any{"email": nil}, map[string]any{"sub": "u1", "email": "dora@corp.example"}, ""},
		{"whether the token's address is verified", map[string]any{"email_verified": nil, "groups": nil}, map[string]any{"sub": "u1", "email": "x@y.example", "email_verified": true, "groups": []string{"it"}}, ""},
		{"about somebody else", map[string]any{"groups": nil}, map[string]any{"sub": "u2", "groups": []string{"it"}}, ""},
	} {
		issuer.set(func() { issuer.claims, issuer.info = row.claims, row.info })
		on := newGuardedOn(t, g, ops.Config{Issuer: issuer.config(new(moving))})
		b := on.newTab()
		a := b.get(t, b.authorize(t, "/"))
		home := b.get(t, "/")
		if row.role == "" && (a.status != http.StatusForbidden || home.status == http.StatusOK) || row.role != "" && !strings.Contains(home.body, "dora@corp.example ("+row.role+")") {
			t.Errorf("%s: %d %s; then %d", row.name, a.status, a.body, home.status)
		}
	}
}

func TestWhoIsNotLetInIsInTheTrail(t *testing.T) {
	g, issuer, _ := newIssued(t)
	issuer.set(func() { issuer.claims = map[string]any{"groups": []string{"others"}} })
	b := g.newTab()
	b.get(t, b.authorize(t, "/"))
	if trail := g.wholeTrail(t); len(trail) != 1 || trail[0].Action != tasks.ActionFailedLogin || trail[0].Detail != "as dora@corp.example" {
		t.Errorf("trail %+v", trail)
	}
}

func TestAPublicClientAndAnotherName(t *testing.T) {
	g, issuer, _ := newIssued(t, func(cfg *login.IssuerConfig) { cfg.ClientSecret, cfg.NameClaim = "", "preferred_username" })
	issuer.set(func() {
		issuer.secret, issuer.claims = "", map[string]any{"preferred_username": "Dora", "email_verified": false}
	})
	b := g.newTab()
	b.get(t, b.authorize(t, "/"))
	if a := b.get(t, "/"); !strings.Contains(a.body, "Dora (operator)") {
		t.Errorf("home %d %s", a.status, a.body)
	}
}

// Whoever logs in here and there under one name is one person, whose approval counts once.
func TestOneNameIsOnePerson(t *testing.T) {
	g, issuer, _ := newIssued(t, func(cfg *login.IssuerConfig) { cfg.NameClaim = "preferred_username" })
	issuer.set(func() { issuer.claims = map[string]any{"preferred_username": "alice"} })
	issued, local := g.newTab(), g.newTab()
	issued.get(t, issued.authorize(t, "/"))
	local.post(t, "/login", "name", "alice", "password", password)
	if a := local.get(t, "/me"); strings.Count(a.body, "End the session of alice") != 2 {
		t.Errorf("account %s", a.body)
	}
	g.want(t, issued.get(t, "/operators/add"), http.StatusForbidden, "") // with the role of the groups
	g.want(t, local.get(t, "/operators/add"), http.StatusOK, "")
	// Another password of the local account does not end what the issuer has begun; its removal does.
	if _, err := g.db.Operators.SetPassword(t.Context(), "alice", "x", tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	g.want(t, issued.get(t, "/"), http.StatusOK, "")
	if _, err := g.db.Operators.Forced().Remove(t.Context(), "alice", tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	g.want(t, issued.get(t, "/"), http.StatusSeeOther, "")
}

// Without an operator of its own the site is closed, even where it would be open, once there is an issuer.
func TestWithAnIssuerTheSiteIsNotOpen(t *testing.T) {
	issuer := newStandIn(t)
	g := newGuardedAs(t, ops.Config{OpenHere: true, Issuer: issuer.config(new(moving))}, nil)
	b := g.newTab()
	g.want(t, b.get(t, "/"), http.StatusSeeOther, "")
	b.get(t, b.authorize(t, "/"))
	g.want(t, b.get(t, "/"), http.StatusOK, "")
}

func TestTheTableOfGroups(t *testing.T) {
	roles, err := login.ParseIssuerRoles([]string{"sre=operator", "cn=boss,dc=x=admin", "/teams/it=viewer"})
	if err != nil || roles["sre"] != tasks.RoleOperator || roles["cn=boss,dc=x"] != tasks.RoleAdmin || roles["/teams/it"] != tasks.RoleViewer {
		t.Errorf("%v, %v", roles, err)
	}
	for _, bad := range [][]string{{"sre"}, {"=admin"}, {"sre=boss"}, {"sre=admin", "sre=viewer"}, {""}} {
		if roles, err := login.ParseIssuerRoles(bad); err == nil {
			t.Errorf("%v is %v", slices.Clone(bad), roles)
		}
	}
}
