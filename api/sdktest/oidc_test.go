package sdktest

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"batchreset/api"
	"batchreset/api/auth"
	"batchreset/cmd/harness"
	"batchreset/tasks"
)

const audience = "https://reset.example"

// issuer is a provider whose one client is a pipeline with claims that the test chooses.
type issuer struct {
	*storage.Storage

	mu       sync.Mutex
	claims   map[string]any
	audience string
}

// pipeline is a client that gets its access tokens as JWT.
type pipeline struct{ op.Client }

func (pipeline) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

func (i *issuer) ClientCredentials(ctx context.Context, id, secret string) (op.Client, error) {
	c, err := i.Storage.ClientCredentials(ctx, id, secret)
	return pipeline{c}, err
}

func (i *issuer) ClientCredentialsTokenRequest(_ context.Context, id string, scopes []string) (op.TokenRequest, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return &oidc.JWTTokenRequest{Subject: "repo:acme/phones:ref:refs/heads/main", Audience: []string{i.audience}, Scopes: scopes}, nil
}

func (i *issuer) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.claims, nil
}

// provider serves an issuer at an address that stays, whatever is behind it.
type provider struct {
	url     string
	handler atomic.Value // http.Handler
	*issuer

	keys atomic.Int32 // how often they were read
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{url: "http://" + l.Addr().String()}
	p.rotate()
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/keys") {
			p.keys.Add(1)
		}
		p.handler.Load().(http.HandlerFunc)(w, r)
	})}}
	server.Start()
	t.Cleanup(server.Close)
	return p
}

// rotate gives the provider another key.
func (p *provider) rotate() {
	p.issuer = &issuer{
		Storage: storage.NewStorage(storage.NewUserStore(p.url)), audience: audience,
		claims: map[string]any{"repository": "acme/phones", "ref": "refs/heads/main", "groups": []string{"ci", "phones"}},
	}
	p.handler.Store(http.HandlerFunc(exampleop.SetupServer(p.url, p.issuer, slog.New(slog.DiscardHandler), false).ServeHTTP))
}

// token is what the pipeline gets.
func (p *provider) token(t *testing.T) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {"openid"}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth("sid1", "verysecret")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	var got struct {
		AccessToken string `json:"access_token"`
	}
	if err == nil {
		err = json.Unmarshal(text, &got)
	}
	if err != nil || strings.Count(got.AccessToken, ".") != 2 {
		t.Fatalf("no token: %v: %s", err, text)
	}
	return got.AccessToken
}

// moving is a clock that a test sets.
type moving struct{ ahead atomic.Int64 }

func (m *moving) Now() time.Time { return time.Now().Add(time.Duration(m.ahead.Load())) }

func ask(t *testing.T, method, url, bearer, body string) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+bearer)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(got)
}

func TestPipelinesComeWithTheTokensOfTheirIssuer(t *testing.T) {
	p, clock := newProvider(t), &moving{}
	rules := []auth.JWTRule{
		{Claims: map[string]string{"repository": "acme/phones", "ref": "refs/heads/main"}, Tenant: "acme", Scopes: tasks.DefaultScopes},
		{Claims: map[string]string{"groups": "readers"}, Tenant: "acme", Scopes: []tasks.Scope{tasks.ScopeRead}, Owner: "repository"},
	}
	_, server := serve(t, api.Config{JWT: auth.NewJWT(p.url, audience, rules, clock, slog.New(slog.DiscardHandler))})
	reset := func(token string) (int, string) {
		t.Helper()
		return ask(t, http.MethodPost, server+"/v1/instances/batch-reset", token, `{"instance_ids":["phone-1"]}`)
	}
	wants := func(what, token string, status int, text string) {
		t.Helper()
		if s, got := reset(token); s != status || !strings.Contains(got, text) {
			t.Errorf("%s: %d %s, want %d %s", what, s, got, status, text)
		}
	}
	good := p.token(t)
	wants("the main branch", good, 200, `"task_id"`)
	if _, who := ask(t, http.MethodGet, server+"/v1/whoami", good, ""); !strings.Contains(who, `"kind":"jwt","tenant":"acme","owner":"repo:acme/phones:ref:refs/heads/main","scopes":["submit","read","cancel"]`) {
		t.Errorf("whoami: %s", who)
	}
	p.claims = map[string]any{"repository": "acme/phones", "ref": "refs/heads/fork"}
	wants("another branch", p.token(t), 403, "no rule is for the claims of the bearer token")
	p.claims = map[string]any{"repository": "acme/phones", "groups": []string{"readers", "ci"}}
	wants("one who may only read", p.token(t), 403, `the token does not have the scope \"submit\"`)
	p.claims = map[string]any{"groups": []string{"readers"}}
	wants("nobody knows who", p.token(t), 403, "does not say whose it is")
	p.audience = "https://elsewhere.example"
	wants("for somebody else", p.token(t), 401, "the bearer token is not accepted: expected audience")
	p.audience = audience

	parts := strings.Split(good, ".")
	wants("changed", parts[0]+"."+parts[1]+"x."+parts[2], 401, "APIGW.0301")
	wants("without a signature", parts[0]+"."+parts[1]+".", 401, "APIGW.0301")
	wants("none for an algorithm", "eyJhbGciOiJub25lIn0."+parts[1]+".", 401, "APIGW.0301")
	wants("no token at all", "abc", 401, "APIGW.0301")
	clock.ahead.Store(int64(time.Hour))
	wants("an hour later", good, 401, `"error_code":"APIGW.0307","error_msg":"The token must be updated: the bearer token has expired"`)
	clock.ahead.Store(0)

	before := p.keys.Load()
	for range 20 { // keys that nobody has: the issuer is not asked each time
		s, got := reset(forged(good))
		if s != 401 && s != 503 {
			t.Fatalf("a forged key: %d %s", s, got)
		}
	}
	if asked := p.keys.Load() - before; asked > 1 {
		t.Errorf("the issuer's keys were read %d times for 20 forged tokens", asked)
	}
	wants("meanwhile", good, 200, `"task_id"`)
}

// forged is the token with a key ID that the issuer does not have.
func forged(token string) string {
	parts := strings.Split(token, ".")
	return "eyJhbGciOiJSUzI1NiIsImtpZCI6Im5vYm9keSJ9." + parts[1] + "." + parts[2]
}

func TestAnIssuerThatIsAwayLetsNobodyIn(t *testing.T) {
	p := newProvider(t)
	rules := []auth.JWTRule{{Claims: map[string]string{"repository": "acme/phones"}, Tenant: "acme", Scopes: tasks.DefaultScopes}}
	_, server := serve(t, api.Config{JWT: auth.NewJWT(p.url, audience, rules, &moving{}, slog.New(slog.DiscardHandler))})
	token, handler := p.token(t), p.handler.Load()
	p.handler.Store(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	if s, got := ask(t, http.MethodGet, server+"/v1/whoami", token, ""); s != 503 || !strings.Contains(got, "APIGW.0613") {
		t.Errorf("away: %d %s", s, got)
	}
	p.handler.Store(handler)
	isKnown := func(what, token string) { // the issuer is asked every few seconds, and until then nobody knows
		t.Helper()
		harness.Eventually(t, 30*time.Second, what, func() bool {
			s, got := ask(t, http.MethodGet, server+"/v1/whoami", token, "")
			if s != 200 && s != 503 {
				t.Fatalf("%s: %d %s", what, s, got)
			}
			return s == 200
		})
	}
	isKnown("it is back", token)
	p.rotate()
	isKnown("it has another key", p.token(t))
}
