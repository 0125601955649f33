package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"batchreset/api"
	"batchreset/tasks"
	"batchreset/tasks/sdkhmac"
)

// signing is a service and an access key of the tenant acme.
type signing struct {
	service
	key sdkhmac.Key
	at  time.Time // of signatures
	ip  string
}

func newSigning(t *testing.T, cfg api.Config, n tasks.Token) *signing {
	t.Helper()
	s := newService(t, cfg)
	access, secret := tasks.NewAccessKey()
	n.Tenant = "acme"
	if n.Scopes == nil {
		n.Scopes = tasks.DefaultScopes
	}
	if _, err := s.db.Tokens.AddKey(t.Context(), access, secret, n, time.Hour, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	return &signing{s, sdkhmac.Key{Access: access, Secret: secret}, s.db.Redis.Now(), "192.0.2.1"}
}

// signed is a request signed with the key, at a time that no other one of the test has.
func (s *signing) signed(t *testing.T, method, path, body string, headers ...string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.RemoteAddr = s.ip + ":1234"
	s.at = s.at.Add(time.Second)
	if err := sdkhmac.Sign(r, []byte(body), s.key, s.at, headers...); err != nil {
		t.Fatal(err)
	}
	return r
}

// send answers a request.
func (s *signing) send(t *testing.T, r *http.Request) reply {
	t.Helper()
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	checkContract(t, r.Method, r.URL.Path, w.Code, w.Header(), w.Body.Bytes())
	got := reply{status: w.Code, header: w.Result().Header}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	return got
}

// refused says what is wrong with an answer that should be 401 and say why.
func refused(t *testing.T, what string, got reply, why string) {
	t.Helper()
	want := "Incorrect IAM authentication information: " + why
	if got.status != http.StatusUnauthorized || got.Code != tasks.BadToken || !strings.HasPrefix(got.Message, want) {
		t.Errorf("%s: %d %s %q, want 401 %q", what, got.status, got.Code, got.Message, want)
	}
}

const twoPhones = `{"instance_ids":["phone-1","phone-2"]}`

// again is the same request, sent once more.
func again(r *http.Request, body string) *http.Request {
	twin := httptest.NewRequestWithContext(r.Context(), r.Method, r.RequestURI, strings.NewReader(body))
	twin.Header, twin.Host, twin.RemoteAddr = r.Header.Clone(), r.Host, r.RemoteAddr
	return twin
}

func TestASignedRequestIsItsKeysTenant(t *testing.T) {
	s := newSigning(t, testConfig, tasks.Token{Owner: "fleet-manager"})
	got := s.send(t, s.signed(t, http.MethodPost, batchReset, twoPhones, "Host"))
	if got.status != http.StatusOK {
		t.Fatalf("submit: %+v", got)
	}
	var accepted struct {
		TaskID string `json:"task_id"`
	}
	if err := json.Unmarshal(got.Data, &accepted); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/v1/instances/tasks/" + accepted.TaskID, "/v1/jobs?limit=1&state=pending", "/v1/whoami", "/v1/jobs/" + accepted.TaskID} {
		if got := s.send(t, s.signed(t, http.MethodGet, path, "")); got.status != http.StatusOK {
			t.Errorf("%s: %+v", path, got)
		}
	}
	who := s.send(t, s.signed(t, http.MethodGet, "/v1/whoami", ""))
	if want := fmt.Sprintf(`"token_id":%q,"kind":"access-key","tenant":"acme","owner":"fleet-manager"`, s.key.Access); !strings.Contains(string(who.Data), want) {
		t.Errorf("whoami says %s", who.Data)
	}
	trail, err := s.rdb.XRange(t.Context(), "reset:audit", "-", "+").Result()
	if err != nil || !strings.Contains(fmt.Sprint(trail), "access-key "+s.key.Access) {
		t.Errorf("the audit trail does not name the key: %v, %v", trail, err)
	}
}

func TestASignatureIsGoodOnceForWhatChangesSomething(t *testing.T) {
	s := newSigning(t, testConfig, tasks.Token{})
	post := s.signed(t, http.MethodPost, batchReset, twoPhones)
	if got := s.send(t, again(post, twoPhones)); got.status != http.StatusOK {
		t.Fatalf("first: %+v", got)
	}
	refused(t, "a POST that is sent again", s.send(t, again(post, twoPhones)), "verify aksk signature fail: this signature was used before")
	jobs, _, err := s.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 10})
	if err != nil || len(jobs) != 1 {
		t.Errorf("there are %d jobs, %v", len(jobs), err)
	}
	job := jobs[0].ID
	cancel := s.signed(t, http.MethodPost, "/v1/jobs/"+job+"/cancel", "")
	if got := s.send(t, again(cancel, "")); got.status != http.StatusOK {
		t.Fatalf("cancel: %+v", got)
	}
	refused(t, "a cancel that is sent again", s.send(t, again(cancel, "")), "verify aksk signature fail: this signature was used before")
	get, status := s.signed(t, http.MethodGet, "/v1/jobs", ""), s.signed(t, http.MethodPost, "/v1/instances/batch-query-status", twoPhones)
	for range 3 {
		if got := s.send(t, again(get, "")); got.status != http.StatusOK {
			t.Errorf("a GET that is sent again: %+v", got)
		}
		if got := s.send(t, again(status, twoPhones)); got.status != http.StatusOK {
			t.Errorf("a look-up that is sent again: %+v", got)
		}
	}
}

func TestWhyASignatureIsRefused(t *testing.T) {
	for _, row := range []struct {
		name  string
		spoil func(s *signing, r *http.Request)
		why   string
	}{
		{"another secret", func(s *signing, r *http.Request) { s.key.Secret = strings.Repeat("x", 40); s.resign(t, r) }, "verify aksk signature fail: the signature does not fit the request: another secret, or something was changed on the way"},
		{"no such key", func(s *signing, r *http.Request) { s.key.Access = "HST3WJVLBFCPLRBAPG4B"; s.resign(t, r) }, "Get secretKey failed,ak:HST3WJVLBFCPLRBAPG4B,err:ak not exist"},
		{"another body", func(_ *signing, r *http.Request) { r.Body = http.NoBody }, "verify aksk signature fail"},
		{"a proxy that changes Host", func(_ *signing, r *http.Request) { r.Host = "backend:8080" }, "verify aksk signature fail: the signature does not fit the request: another secret, or something was changed on the way (signed: method, path, query, body, content-type, host, user-agent, x-sdk-date)"},
		{"a proxy that changes User-Agent", func(_ *signing, r *http.Request) { r.Header.Set("User-Agent", "proxy/1") }, "verify aksk signature fail: the signature does not fit"},
		{"a proxy that drops User-Agent", func(_ *signing, r *http.Request) { r.Header.Del("User-Agent") }, `verify aksk signature fail: the signed request is malformed: the signed header "user-agent" is there 0 times`},
		{"a proxy that changes Content-Type", func(_ *signing, r *http.Request) { r.Header.Set("Content-Type", "application/json; charset=utf-8") }, "verify aksk signature fail: the signature does not fit"},
		{"a query that was not signed", func(_ *signing, r *http.Request) { r.RequestURI += "?dry_run=true"; r.URL.RawQuery = "dry_run=true" }, "verify aksk signature fail"},
		{"another method", func(_ *signing, r *http.Request) {
			r.Method, r.RequestURI, r.URL.Path = http.MethodGet, "/v1/jobs", "/v1/jobs"
		}, "verify aksk signature fail"},
		{"16 minutes old", func(s *signing, r *http.Request) { s.at = s.at.Add(-16*time.Minute - 20*time.Second); s.resign(t, r) }, "verify aksk signature fail: the date of the signature is not accepted: it differs from this server's clock by 16m"},
		{"16 minutes ahead", func(s *signing, r *http.Request) { s.at = s.at.Add(17 * time.Minute); s.resign(t, r) }, "verify aksk signature fail: the date of the signature is not accepted: it differs from this server's clock by -1"},
		{"a date that is not signed", func(_ *signing, r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), ";x-sdk-date", "", 1))
		}, "verify aksk signature fail: the signed request is malformed: SignedHeaders must list x-sdk-date"},
		{"a temporary key", func(_ *signing, r *http.Request) { r.Header.Set("X-Security-Token", "gQpj") }, "verify aksk signature fail: X-Security-Token goes with temporary access keys"},
		{"a derived key", func(_ *signing, r *http.Request) {
			r.Header.Set("Authorization", "V11-HMAC-SHA256 Credential=AK/20261130/region/service, SignedHeaders=x-sdk-date, Signature="+strings.Repeat("0", 64))
		}, "verify aksk signature fail: the signature has an algorithm that is not accepted here: V11-HMAC-SHA256, whose key is derived"},
		{"another scheme", func(_ *signing, r *http.Request) { r.Header.Set("Authorization", "Basic YTpi") }, "x-auth-token not found"},
		{"a bearer token that nobody has signed", func(_ *signing, r *http.Request) { r.Header.Set("Authorization", "Bearer abc") }, "x-auth-token not found, and bearer tokens are not accepted here"},
		{"nothing", func(_ *signing, r *http.Request) { r.Header.Del("Authorization") }, "x-auth-token not found"},
		{"an access key for a token", func(s *signing, r *http.Request) {
			r.Header.Del("Authorization")
			r.Header.Set("X-Auth-Token", s.key.Access)
		}, "decrypt token fail"},
		{"the handle of a key for a token", func(s *signing, r *http.Request) {
			r.Header.Del("Authorization")
			r.Header.Set("X-Auth-Token", "key:"+s.key.Access)
		}, "decrypt token fail"},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newSigning(t, testConfig, tasks.Token{})
			r := s.signed(t, http.MethodPost, batchReset, twoPhones)
			r.Header.Set("User-Agent", "sdk/3")
			r.Header.Set("Content-Type", "application/json")
			s.resign(t, r)
			if row.spoil(s, r); row.name != "another body" && r.Method == http.MethodPost {
				r.Body = readCloser{strings.NewReader(twoPhones)}
			}
			refused(t, row.name, s.send(t, r), row.why)
			if jobs, _, err := s.db.Jobs.Jobs(t.Context(), "acme", tasks.JobFilter{Limit: 1}); err != nil || len(jobs) != 0 {
				t.Errorf("there is a job: %v, %v", jobs, err)
			}
		})
	}
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

func (s *signing) resign(t *testing.T, r *http.Request) {
	t.Helper()
	if err := sdkhmac.Sign(r, []byte(twoPhones), s.key, s.at, "Host", "User-Agent", "Content-Type"); err != nil {
		t.Fatal(err)
	}
}

func TestWrongSignaturesLockAKey(t *testing.T) {
	s := newSigning(t, testConfig, tasks.Token{})
	right := s.key.Secret
	wrong := func() {
		t.Helper()
		s.key.Secret = "wrong"
		refused(t, "wrong", s.send(t, s.signed(t, http.MethodGet, "/v1/jobs", "")), "verify aksk signature fail")
		s.key.Secret = right
	}
	works := func() reply { t.Helper(); return s.send(t, s.signed(t, http.MethodGet, "/v1/jobs", "")) }
	for range 2 { // the count ends with a right one
		for range tasks.MaxWrongSignatures - 1 {
			wrong()
		}
		if got := works(); got.status != http.StatusOK {
			t.Fatalf("after four wrong ones: %+v", got)
		}
	}
	for range tasks.MaxWrongSignatures {
		wrong()
	}
	refused(t, "locked", works(), "AK access failed to reach the limit,forbidden")
	s.ip = "198.51.100.7"
	if got := works(); got.status != http.StatusOK {
		t.Errorf("from elsewhere: %+v", got)
	}
	s.ip = "192.0.2.1"
	keys, err := s.rdb.Keys(t.Context(), "reset:caller:wrong:*").Result()
	if err != nil || len(keys) != 1 {
		t.Fatalf("counts: %v, %v", keys, err)
	}
	if ttl := s.rdb.PTTL(t.Context(), keys[0]).Val(); ttl <= 0 || ttl > tasks.WrongSignaturesLock {
		t.Errorf("the lock lasts %s", ttl)
	}
	s.rdb.Del(t.Context(), keys[0]) // as after five minutes
	if got := works(); got.status != http.StatusOK {
		t.Errorf("after the lock: %+v", got)
	}
}

func TestASignedKeyEnds(t *testing.T) {
	s := newSigning(t, testConfig, tasks.Token{Scopes: []tasks.Scope{tasks.ScopeRead}})
	if got := s.send(t, s.signed(t, http.MethodPost, batchReset, twoPhones)); got.status != http.StatusForbidden || got.Code != tasks.Forbidden {
		t.Errorf("without the scope: %+v", got)
	}
	access, secret := tasks.NewAccessKey()
	if _, err := s.db.Tokens.RotateKey(t.Context(), s.key.Access, access, secret, time.Hour, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []sdkhmac.Key{s.key, {Access: access, Secret: secret}} {
		s.key = key
		if got := s.send(t, s.signed(t, http.MethodGet, "/v1/jobs", "")); got.status != http.StatusOK {
			t.Errorf("while both are good: %+v", got)
		}
	}
	if found, err := s.db.Tokens.Revoke(t.Context(), access, tasks.Actor{}); !found || err != nil {
		t.Fatal(found, err)
	}
	if got := s.send(t, s.signed(t, http.MethodGet, "/v1/jobs", "")); got.status != http.StatusUnauthorized || got.Code != tasks.TokenExpired {
		t.Errorf("revoked: %+v", got)
	}
}

func TestASignatureBehindAPathThatAProxyRemoves(t *testing.T) {
	cfg := testConfig
	cfg.BasePath = "/reset"
	s := newSigning(t, cfg, tasks.Token{})
	kept := s.signed(t, http.MethodGet, "/reset/v1/jobs?limit=1", "")
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, kept); w.Code != http.StatusOK {
		t.Errorf("left on: %s", w.Body)
	}
	removed := s.signed(t, http.MethodGet, "/reset/v1/jobs?limit=1", "")
	removed.RequestURI, removed.URL.Path = "/v1/jobs?limit=1", "/v1/jobs"
	if got := s.send(t, removed); got.status != http.StatusOK {
		t.Errorf("removed: %+v", got)
	}
}

// A run's list may be longer than what is read before it is known who sends it.
func TestALongListIsSigned(t *testing.T) {
	s := newSigning(t, testConfig, tasks.Token{})
	var body bytes.Buffer
	body.WriteString(`{"instance_ids":["phone-0"`)
	for n := range 20_000 {
		fmt.Fprintf(&body, `,"phone-%d"`, n+1)
	}
	body.WriteString(`]}`)
	run := s.signed(t, http.MethodPost, "/v1/runs", body.String())
	if got := s.send(t, again(run, body.String())); got.status != http.StatusOK {
		t.Fatalf("%+v", got)
	}
	refused(t, "sent again", s.send(t, again(run, body.String())), "verify aksk signature fail: this signature was used before")
	changed := s.signed(t, http.MethodPost, "/v1/runs", body.String())
	refused(t, "one phone is another", s.send(t, again(changed, strings.Replace(body.String(), "phone-19999", "phone-99999", 1))), "verify aksk signature fail")
}

// Who knows an access key, but not its secret, and sends half of a long list again and again, holds up neither short
// lists nor callers from elsewhere.
func TestHalfAListHoldsUpNobodyElse(t *testing.T) {
	s := newSigning(t, testConfig, tasks.Token{})
	var requests sync.WaitGroup
	defer requests.Wait()
	read := make(chan struct{}, 20)
	for range 20 {
		body, half := io.Pipe()
		r := s.signed(t, http.MethodPost, "/v1/runs", "")
		r.Body, r.ContentLength = body, 8<<20
		ctx, hangUp := context.WithCancel(t.Context())
		requests.Go(func() { s.ServeHTTP(httptest.NewRecorder(), r.WithContext(ctx)) })
		go func() {
			if _, err := half.Write([]byte("{")); err == nil {
				read <- struct{}{}
			}
		}()
		defer hangUp()
		defer func() { _ = half.CloseWithError(io.ErrUnexpectedEOF) }()
	}
	for waiting := true; waiting; { // until no further one is read
		select {
		case <-read:
		case <-time.After(300 * time.Millisecond):
			waiting = false
		}
	}
	goesOn := func(what string, r *http.Request) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if got := s.send(t, r.WithContext(ctx)); got.status != http.StatusOK {
			t.Errorf("%s: %+v", what, got)
		}
	}
	goesOn("a short list", s.signed(t, http.MethodPost, "/v1/runs", twoPhones))
	s.ip = "198.51.100.7"
	goesOn("a long list from elsewhere", s.signed(t, http.MethodPost, "/v1/runs", `{"instance_ids":["phone-3"]}`+strings.Repeat(" ", 100_000)))
}

// A token is good for the addresses and the instances that it was made for.
func TestATokenIsLimited(t *testing.T) {
	s := newService(t, testConfig)
	add := func(secret string, n tasks.Token) {
		t.Helper()
		n.Tenant, n.Scopes = "acme", tasks.Scopes
		if _, err := s.db.Tokens.Add(t.Context(), secret, n, 0, tasks.Actor{}); err != nil {
			t.Fatal(err)
		}
	}
	add("near", tasks.Token{Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	add("far", tasks.Token{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}})
	add("rack-7", tasks.Token{InstanceLabels: map[string]string{"rack": "7"}})
	if got := s.do(t, http.MethodGet, "/v1/jobs", "near", nil); got.status != http.StatusOK {
		t.Errorf("from its network: %+v", got)
	}
	if got := s.do(t, http.MethodGet, "/v1/jobs", "far", nil); got.status != http.StatusForbidden || got.Message != "the token may not be used from the address 192.0.2.1" {
		t.Errorf("from elsewhere: %+v", got)
	}
	err := s.db.Fleet.Register(t.Context(), []tasks.Instance{
		{ID: "in-7", Tenant: "acme", Labels: map[string]string{"rack": "7", "site": "lab"}}, {ID: "in-8", Tenant: "acme", Labels: map[string]string{"rack": "8"}}, {ID: "bare", Tenant: "acme"},
	}, tasks.Actor{})
	if err != nil {
		t.Fatal(err)
	}
	for body, want := range map[string]string{
		`{"instance_ids":["in-7"]}`:                 "ok",
		`{"instance_ids":["in-7","in-8"]}`:          "no permission on instances: in-8",
		`{"instance_ids":["bare","nobody-has-me"]}`: "no permission on instances: bare, nobody-has-me",
	} {
		if got := s.do(t, http.MethodPost, batchReset, "rack-7", strings.NewReader(body)); got.Message != want {
			t.Errorf("%s: %+v, want %q", body, got, want)
		}
	}
	if got := s.do(t, http.MethodPost, "/v1/runs", "rack-7", strings.NewReader(`{"instance_ids":["in-7","in-8"]}`)); got.Code != tasks.NotYourInstance {
		t.Errorf("a run: %+v", got)
	}
	if got := s.do(t, http.MethodPost, batchReset, "rack-7", strings.NewReader(`{"instance_ids":["in-7","in-8"],"dry_run":true}`)); !strings.Contains(string(got.Data), `{"instance_id":"in-8","verdict":"unknown"}`) {
		t.Errorf("dry run: %s", got.Data)
	}
	job := s.submit(t, "in-7", "in-8") // by somebody who may
	if got := s.do(t, http.MethodPost, "/v1/jobs/"+job+"/cancel", "rack-7", nil); got.status != http.StatusOK {
		t.Errorf("to stop is allowed: %+v", got)
	}
	if got := s.do(t, http.MethodPost, "/v1/jobs/"+job+"/retry", "rack-7", strings.NewReader(`{"states":["cancelled"]}`)); got.Code != tasks.Forbidden || got.Message != "the token is not for these instances: 1: in-8" {
		t.Errorf("a retry: %+v", got)
	}
}
