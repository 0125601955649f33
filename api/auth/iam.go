package auth

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/singleflight"

	"batchreset/tasks"
)

const (
	// iamHandle begins the handles of IAM's tokens. The rest is their keyed hash: only this process knows
	// the key, so that it says nothing about the token.
	iamHandle = "iam:"
	// A token that is valid is asked about again after iamFresh: it may have been revoked. One that is not is
	// asked about again after iamRefused.
	iamFresh   = time.Minute
	iamRefused = 10 * time.Second
	// iamGrace is how long who waits with a token is told news while the token service is asked again.
	iamGrace = 10 * time.Second
	// iamTimeout is for one question, with what is needed to ask it.
	iamTimeout = 5 * time.Second
	// iamAtOnce is how many tokens are asked about at the same time: strangers may send any number of them.
	iamAtOnce = 16
	// iamRemembered is how many tokens are remembered.
	iamRemembered = 8192
	// iamEarly is how long before its end our own token is replaced.
	iamEarly = 5 * time.Minute
	// maxIAMAnswer bounds an answer: a catalogue is long, and is asked to be left out.
	maxIAMAnswer = 1 << 20
)

// IAMCredentials are those of this service itself, with which it asks about others.
type IAMCredentials struct {
	User          string `yaml:"user"`
	UserDomain    string `yaml:"user_domain"` // empty: Default
	Password      string `yaml:"password"`
	Project       string `yaml:"project"`        // by its name; empty: the token has no project
	ProjectDomain string `yaml:"project_domain"` // empty: the user's
}

// IAMRules say what tokens of a token service may do.
type IAMRules struct {
	// Tenants has the tenant of each project, by the project's ID.
	Tenants map[string]string `yaml:"tenants"`
	// Roles has what a role allows, by the role's name. One that is not there allows nothing.
	Roles map[string][]tasks.Scope `yaml:"roles"`
}

// IAM knows the callers of a token service that speaks OpenStack's Identity API v3: Keystone, or Huawei's IAM.
type IAM struct {
	url         string // with the version
	credentials IAMCredentials
	rules       IAMRules
	client      *http.Client
	clock       Clock
	log         *slog.Logger

	hashKey   []byte
	questions sync.WaitGroup // that nobody waits for
	asked     singleflight.Group
	room      chan struct{} // for questions
	mu        sync.Mutex
	answers   *lru.Cache[string, *iamAnswer]
	own       string // token
	ownUntil  time.Time
}

// iamAnswer is what is known of a token.
type iamAnswer struct {
	secret string // to ask again for those who wait
	token  tasks.Token
	err    error
	until  time.Time // by this process's clock: when to ask again
	asking atomic.Bool
}

// NewIAM makes an IAM. The URL is that of the Identity API, with or without /v3.
func NewIAM(base string, credentials IAMCredentials, rules IAMRules, clock Clock, log *slog.Logger) *IAM {
	base = strings.TrimSuffix(strings.TrimSuffix(base, "/"), "/v3") + "/v3"
	answers, err := lru.New[string, *iamAnswer](iamRemembered)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails, says crypto/rand
	return &IAM{
		url: base, credentials: credentials, rules: rules, clock: clock, log: log, hashKey: key, answers: answers, room: make(chan struct{}, iamAtOnce),
		client: &http.Client{
			Timeout:       iamTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // nobody else gets tokens
		},
	}
}

// Close waits for what is being asked, and closes idle connections.
func (i *IAM) Close() {
	i.questions.Wait()
	i.client.CloseIdleConnections()
}

// Token says whose a token of the token service is. However many ask about one token, the token service is
// asked once, and not again for a while. Errors: tasks.BadToken, tasks.TokenExpired, tasks.IAMAway.
func (i *IAM) Token(ctx context.Context, secret string) (tasks.Token, error) {
	mac := hmac.New(sha256.New, i.hashKey)
	_, _ = mac.Write([]byte(secret)) // never fails
	handle := iamHandle + hex.EncodeToString(mac.Sum(nil))
	if answer, known := i.known(handle); known {
		return answer.token, cmp.Or(answer.err, answer.token.Check(i.clock.Now()))
	}
	return i.ask(ctx, handle, secret)
}

func (i *IAM) known(handle string) (*iamAnswer, bool) {
	answer, found := i.answers.Get(handle)
	return answer, found && time.Now().Before(answer.until)
}

// again says what is known of a token that was asked about before, and has the token service asked again if
// that is a while ago. It does not wait for that: many may wait with other credentials. If no answer comes,
// it is an error after iamGrace.
func (i *IAM) again(ctx context.Context, handle string) (token tasks.Token, found bool, err error) {
	answer, found := i.answers.Get(handle)
	if !found {
		return tasks.Token{}, false, nil
	}
	late := time.Since(answer.until)
	if late >= 0 && answer.asking.CompareAndSwap(false, true) {
		i.questions.Go(func() {
			defer answer.asking.Store(false)
			_, _ = i.ask(ctx, handle, answer.secret) // what it comes to is remembered
		})
	}
	switch {
	case answer.err != nil: // it was refused: for who asks now it is not there
		return tasks.Token{}, false, nil //nolint:nilerr // see above
	case late > iamGrace:
		return tasks.Token{}, false, iamAway()
	}
	return answer.token, true, nil
}

// ask asks the token service. Its time is its own: who asked first may go away.
func (i *IAM) ask(ctx context.Context, handle, secret string) (tasks.Token, error) {
	found, err, _ := i.asked.Do(handle, func() (any, error) {
		if answer, known := i.known(handle); known { // it came while this caller waited for its turn
			return answer.token, answer.err
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), iamTimeout)
		defer cancel()
		token, err := i.inTurn(ctx, secret)
		token.Hash = handle
		switch code := tasks.CodeOf(err); code {
		case tasks.OK:
			i.answers.Add(handle, &iamAnswer{secret: secret, token: token, until: time.Now().Add(iamFresh)})
		case tasks.BadToken, tasks.TokenExpired, tasks.Forbidden:
			i.answers.Add(handle, &iamAnswer{secret: secret, err: err, until: time.Now().Add(iamRefused)})
		default: // nobody knows, and nobody is let in for what was known before
			i.log.Error("the token service cannot be asked", "url", i.url, "error", err)
			err = iamAway()
		}
		return token, err
	})
	token, _ := found.(tasks.Token)
	return token, err
}

func iamAway() *tasks.Error {
	away := tasks.Errorf(tasks.IAMAway, "the token service cannot be reached, try again later")
	away.RetryAfter = iamTimeout
	return away
}

// inTurn validates a token when there is room.
func (i *IAM) inTurn(ctx context.Context, secret string) (tasks.Token, error) {
	select {
	case i.room <- struct{}{}:
		defer func() { <-i.room }()
		return i.validate(ctx, secret)
	case <-ctx.Done():
		return tasks.Token{}, errors.New("too many tokens are to be asked about")
	}
}

// identity is a token as the Identity API has it.
type identity struct {
	ExpiresAt time.Time `json:"expires_at"`
	AuditIDs  []string  `json:"audit_ids"`
	User      struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	} `json:"user"`
	Project struct {
		ID string `json:"id"`
	} `json:"project"`
	Roles []struct {
		Name string `json:"name"`
	} `json:"roles"`
}

// validate asks once, or twice if our own token has ended meanwhile.
func (i *IAM) validate(ctx context.Context, secret string) (tasks.Token, error) {
	for _, fresh := range []bool{false, true} {
		own, err := i.ownToken(ctx, fresh)
		if err != nil {
			return tasks.Token{}, err
		}
		who, status, err := i.look(ctx, own, secret)
		switch {
		case err != nil:
			return tasks.Token{}, err
		case status == http.StatusUnauthorized && !fresh:
			continue
		case status == http.StatusNotFound:
			return tasks.Token{}, tasks.NotAuthenticated("decrypt token fail")
		case status != http.StatusOK:
			return tasks.Token{}, fmt.Errorf("asked about a token, it answers %d", status)
		}
		return i.tokenOf(who, secret)
	}
	return tasks.Token{}, errors.New("it refuses the token of this service")
}

// look asks about a token. One that has expired is told apart from one that never was.
func (i *IAM) look(ctx context.Context, own, secret string) (who identity, status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, i.url+"/auth/tokens?nocatalog=true&allow_expired=1", http.NoBody)
	if err != nil {
		return identity{}, 0, err
	}
	r.Header.Set(tokenHeader, own)
	r.Header.Set("X-Subject-Token", secret)
	var body struct {
		Token *identity `json:"token"`
	}
	status, _, err = i.do(r, &body)
	switch {
	case err != nil || status != http.StatusOK:
		return identity{}, status, err
	case body.Token == nil || body.Token.ExpiresAt.IsZero():
		return identity{}, status, errors.New("its answer about a token is not understood")
	}
	return *body.Token, status, nil
}

// tokenOf is what somebody may do here.
func (i *IAM) tokenOf(who identity, secret string) (tasks.Token, error) {
	sum := sha256.Sum256([]byte(secret))
	id := hex.EncodeToString(sum[:8])
	if len(who.AuditIDs) > 0 && isName(who.AuditIDs[0]) { // so that it is found in the token service's own log
		id = who.AuditIDs[0]
	}
	token := tasks.Token{
		ID: id, Kind: tasks.KindIAM, Owner: cmp.Or(who.User.Name, who.User.ID),
		Tenant: i.rules.Tenants[who.Project.ID], ExpiresAt: tasks.FromMillis(who.ExpiresAt.UnixMilli()), Scopes: []tasks.Scope{},
	}
	if err := token.Check(i.clock.Now()); err != nil {
		return tasks.Token{}, err
	}
	if token.Tenant == "" {
		return tasks.Token{}, tasks.Errorf(tasks.Forbidden, "the project of the token has no tenant here")
	}
	if !isName(token.Owner) {
		return tasks.Token{}, noOwner("the token")
	}
	for _, role := range who.Roles {
		for _, scope := range i.rules.Roles[role.Name] {
			if !slices.Contains(token.Scopes, scope) {
				token.Scopes = append(token.Scopes, scope)
			}
		}
	}
	return token, nil
}

// ownToken is that of this service. A fresh one is got if the one before was refused.
func (i *IAM) ownToken(ctx context.Context, fresh bool) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !fresh && i.own != "" && i.clock.Now().Before(i.ownUntil) {
		return i.own, nil
	}
	type domain struct {
		Name string `json:"name"`
	}
	c := i.credentials
	userDomain := domain{cmp.Or(c.UserDomain, "Default")}
	auth := map[string]any{"identity": map[string]any{
		"methods": []string{"password"},
		"password": map[string]any{"user": map[string]any{
			"name": c.User, "domain": userDomain, "password": c.Password,
		}},
	}}
	if c.Project != "" {
		auth["scope"] = map[string]any{"project": map[string]any{"name": c.Project, "domain": domain{cmp.Or(c.ProjectDomain, userDomain.Name)}}}
	}
	text, err := json.Marshal(map[string]any{"auth": auth})
	if err != nil {
		return "", err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, i.url+"/auth/tokens?nocatalog=true", bytes.NewReader(text))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	// Not sent. net/http repeats such a request on another connection, if the one that it took was closed by the
	// other side: uWSGI, which many run Keystone in, closes them without a word.
	r.Header["Idempotency-Key"] = nil
	var body struct {
		Token identity `json:"token"`
	}
	status, h, err := i.do(r, &body)
	switch own := h.Get("X-Subject-Token"); {
	case err != nil:
		return "", err
	case status == http.StatusUnauthorized:
		return "", errors.New("it refuses the credentials of this service (--iam-credentials-file)")
	case status != http.StatusCreated || own == "":
		return "", fmt.Errorf("asked for a token for this service, it answers %d", status)
	default:
		i.own, i.ownUntil = own, body.Token.ExpiresAt.Add(-iamEarly)
		return own, nil
	}
}

// do sends a request and decodes an answer that is JSON. Nothing of an answer is in an error: it may have
// tokens in it.
func (i *IAM) do(r *http.Request, into any) (status int, h http.Header, err error) {
	resp, err := i.client.Do(r)
	if err != nil {
		if failed, ok := errors.AsType[*url.Error](err); ok {
			err = failed.Err
		}
		return 0, http.Header{}, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxIAMAnswer))
	if err != nil {
		return 0, http.Header{}, err
	}
	if resp.StatusCode/100 == 2 {
		if err := json.Unmarshal(text, into); err != nil {
			return 0, http.Header{}, fmt.Errorf("its answer %d is not understood", resp.StatusCode)
		}
	}
	return resp.StatusCode, resp.Header, nil
}
