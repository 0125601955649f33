package auth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	lru "github.com/hashicorp/golang-lru/v2"

	"batchreset/tasks"
)

const (
	jwtHandle = "jwt:"
	// jwtRemembered is how many tokens are remembered for those who wait with them.
	jwtRemembered = 8192
	// jwtTimeout is for one request to the issuer.
	jwtTimeout = 5 * time.Second
	// keysEvery is how often the issuer's keys are read at most: somebody may send tokens with keys that
	// nobody has.
	keysEvery = 5 * time.Second
)

// JWTRule says what a token with some claims may do.
type JWTRule struct {
	// Claims are those that a token must have, with just these values; one that is a list must have it.
	Claims map[string]string `yaml:"claims"`
	Tenant string            `yaml:"tenant"`
	Scopes []tasks.Scope     `yaml:"scopes"`
	// Owner is the claim that says who acts; empty: sub.
	Owner string `yaml:"owner"`
}

// JWT knows callers by the tokens that an OpenID Connect issuer signs: the jobs of GitHub or GitLab, service
// accounts of Kubernetes.
type JWT struct {
	issuer, audience string
	rules            []JWTRule
	clock            Clock
	log              *slog.Logger
	client           *http.Client
	seen             *lru.Cache[string, tasks.Token]

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // nil: the issuer was not asked yet
	asked    time.Time             // for its settings
}

// NewJWT makes a JWT. The issuer is asked for its keys when the first token comes.
func NewJWT(issuer, audience string, rules []JWTRule, clock Clock, log *slog.Logger) *JWT {
	seen, err := lru.New[string, tasks.Token](jwtRemembered)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &JWT{
		issuer: issuer, audience: audience, rules: rules, clock: clock, log: log, seen: seen,
		client: &http.Client{Timeout: jwtTimeout, Transport: bounded{http.DefaultTransport}},
	}
}

// Token says whose a token is, by the first rule whose claims it has. Errors: tasks.BadToken,
// tasks.TokenExpired, tasks.Forbidden, tasks.IAMAway.
func (j *JWT) Token(ctx context.Context, secret string) (tasks.Token, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), jwtTimeout)
	defer cancel()
	verifier, err := j.ready(ctx)
	if err != nil {
		return tasks.Token{}, err
	}
	var unread error
	verified, err := verifier.Verify(noting(ctx, &unread), secret)
	if err != nil {
		return tasks.Token{}, j.refusal(err, unread)
	}
	if !sayable(verified.IssuedAt) || !sayable(verified.Expiry) {
		return tasks.Token{}, tasks.NotAuthenticated("the bearer token is not accepted: its iat or exp is no time that can be")
	}
	claims := map[string]any{}
	if err := verified.Claims(&claims); err != nil {
		return tasks.Token{}, tasks.NotAuthenticated("the claims of the bearer token cannot be read")
	}
	n := slices.IndexFunc(j.rules, func(r JWTRule) bool { return r.fits(claims) })
	if n < 0 {
		return tasks.Token{}, tasks.Errorf(tasks.Forbidden, "no rule is for the claims of the bearer token")
	}
	rule := j.rules[n]
	sum := sha256.Sum256([]byte(secret))
	hash := hex.EncodeToString(sum[:])
	token := tasks.Token{
		ID: hash[:16], Kind: tasks.KindJWT, Hash: jwtHandle + hash, Tenant: rule.Tenant, Scopes: rule.Scopes, Owner: verified.Subject,
		CreatedAt: tasks.FromMillis(verified.IssuedAt.UnixMilli()), ExpiresAt: tasks.FromMillis(verified.Expiry.UnixMilli()),
	}
	if rule.Owner != "" {
		token.Owner, _ = claims[rule.Owner].(string)
	}
	if !isName(token.Owner) {
		return tasks.Token{}, noOwner("the bearer token")
	}
	j.seen.Add(token.Hash, token)
	return token, nil
}

// sayable reports whether a time can be written as RFC 3339 has it, with a year of four digits; or is none.
func sayable(at time.Time) bool {
	at = at.UTC()
	return at.IsZero() || at.Year() >= 1970 && at.Year() <= 9999
}

// again returns a token that was seen before.
func (j *JWT) again(handle string) (tasks.Token, bool) { return j.seen.Get(handle) }

// fits reports whether a token has the claims of the rule.
func (r JWTRule) fits(claims map[string]any) bool {
	for name, want := range r.Claims {
		switch have := claims[name].(type) {
		case string:
			if have != want {
				return false
			}
		case []any:
			if !slices.Contains(have, any(want)) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// ready asks the issuer for its settings, if that was not done yet.
func (j *JWT) ready(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.verifier != nil {
		return j.verifier, nil
	}
	if time.Since(j.asked) < keysEvery {
		return nil, issuerAway()
	}
	defer func() { j.asked = time.Now() }() // once it is over: those who came meanwhile do not ask, too
	ctx = oidc.ClientContext(ctx, j.client)
	provider, err := oidc.NewProvider(ctx, j.issuer)
	var settings struct {
		Keys       string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err == nil {
		err = provider.Claims(&settings)
	}
	if err != nil {
		j.log.Error("the issuer of bearer tokens cannot be asked", "issuer", j.issuer, "error", err)
		return nil, issuerAway()
	}
	algorithms := slices.DeleteFunc(settings.Algorithms, func(a string) bool { return !slices.Contains(publicKeyAlgorithms, a) })
	if len(algorithms) == 0 {
		algorithms = []string{oidc.RS256} // which every issuer must have
	}
	keys := &keySet{address: settings.Keys, client: j.client, algorithms: algorithms, clock: j.clock, log: j.log}
	j.verifier = oidc.NewVerifier(j.issuer, keys, &oidc.Config{ClientID: j.audience, Now: j.clock.Now, SupportedSigningAlgs: algorithms})
	return j.verifier, nil
}

// publicKeyAlgorithms are those with which who can verify cannot sign.
var publicKeyAlgorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

func issuerAway() *tasks.Error {
	away := tasks.Errorf(tasks.IAMAway, "the issuer of bearer tokens cannot be reached, try again later")
	away.RetryAfter = keysEvery
	return away
}

// refusal is the answer to a token that is not verified. unread says why the issuer's keys could not be read.
func (j *JWT) refusal(err, unread error) error {
	if _, expired := errors.AsType[*oidc.TokenExpiredError](err); expired {
		return tasks.Errorf(tasks.TokenExpired, "The token must be updated: the bearer token has expired")
	}
	if unread != nil {
		j.log.Warn("the keys of the issuer of bearer tokens are not read", "issuer", j.issuer, "error", unread)
		return issuerAway()
	}
	return tasks.NotAuthenticated(fmt.Sprintf("the bearer token is not accepted: %s", strings.TrimPrefix(err.Error(), "oidc: ")))
}
