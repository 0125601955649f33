package cph

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"batchreset/worker"
)

const (
	// tokenLife is how long a token is used: IAM's live for 24 hours.
	tokenLife = 23 * time.Hour
	// loginPause is how long nobody logs in after that has failed: IAM locks users that fail
	// too often.
	loginPause = time.Minute
	maxToken   = 32 << 10
)

// tokens authorizes with a token of IAM, which all calls share.
type tokens struct {
	url   string
	login []byte // the request for a token
	http  *http.Transport
	turn  chan struct{} // of whoever reads or changes what follows: one at a time

	token  string
	got    time.Time
	failed *fault // why there is none
	since  time.Time
}

func newTokens(cfg *Config, t *http.Transport) (*tokens, error) {
	if err := checkEndpoint(cfg.IAMEndpoint); err != nil {
		return nil, fmt.Errorf("iam_endpoint %w", err)
	}
	for _, s := range []struct{ key, value string }{{"iam_domain", cfg.IAMDomain}, {"iam_user", cfg.IAMUser}} {
		if s.value == "" {
			return nil, fmt.Errorf("%s is missing", s.key)
		}
	}
	password, err := readSecret("iam_password_file", cfg.IAMPasswordFile)
	if err != nil {
		return nil, err
	}
	login, err := json.Marshal(loginRequest(cfg, password))
	if err != nil {
		return nil, err
	}
	url := strings.TrimRight(cfg.IAMEndpoint, "/") + "/v3/auth/tokens?nocatalog=true"
	return &tokens{url: url, login: login, http: t, turn: make(chan struct{}, 1)}, nil
}

// loginRequest asks for a token of the project: CPH refuses others (CPS.0001).
func loginRequest(cfg *Config, password string) any {
	type object = map[string]any
	user := object{"name": cfg.IAMUser, "password": password, "domain": object{"name": cfg.IAMDomain}}
	return object{"auth": object{
		"identity": object{"methods": []string{"password"}, "password": object{"user": user}},
		"scope":    object{"project": object{"id": cfg.ProjectID}},
	}}
}

func (t *tokens) authorize(r *http.Request, _ []byte) error {
	token, err := t.current(r.Context())
	if err != nil {
		return err
	}
	r.Header.Set("X-Auth-Token", token)
	return nil
}

// current is the token, which is fetched if there is none or if it is old.
func (t *tokens) current(ctx context.Context) (string, error) {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if t.token != "" && time.Since(t.got) < tokenLife {
		return t.token, nil
	}
	if t.failed != nil && time.Since(t.since) < loginPause {
		return "", t.failed
	}
	token, failed := t.fetch(ctx)
	if ctx.Err() != nil && failed != nil { // says nothing about IAM
		return "", ctx.Err()
	}
	t.token, t.got, t.failed, t.since = token, time.Now(), failed, time.Now()
	if failed != nil {
		return "", failed
	}
	return token, nil
}

// fetch logs in.
func (t *tokens) fetch(ctx context.Context) (string, *fault) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(t.login))
	if err != nil {
		return "", unreachable(err)
	}
	dress(r)
	response, err := t.http.RoundTrip(r)
	if err != nil {
		t.http.CloseIdleConnections()
		return "", &fault{class: shut, message: "IAM cannot be reached: " + unreachable(err).message}
	}
	defer func() { _ = response.Body.Close() }()
	said := reply{worker.ReadAnswer(response, maxBody)}
	token := said.Header.Get("X-Subject-Token")
	switch {
	case said.Status != http.StatusCreated:
		f := refusal(said)
		return "", &fault{class: shut, status: said.Status, code: f.code, message: "IAM gives no token (see iam_domain, iam_user, iam_password_file): " + f.message, wait: f.wait}
	case token == "" || len(token) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", &fault{class: shut, message: errNoToken.Error()}
	}
	return token, nil
}

var errNoToken = errors.New("IAM answered without a token that a header can carry")

// renew drops the token that a request was refused with, unless somebody has done so. A new one
// that is refused, too, stays: another would not be better.
func (t *tokens) renew(r *http.Request) bool {
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-r.Context().Done():
		return false
	}
	if t.token != r.Header.Get("X-Auth-Token") {
		return true
	}
	if time.Since(t.got) < loginPause {
		return false
	}
	t.token = ""
	return true
}
