package auth

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"batchreset/tasks"
)

// issuerKey is a key of an issuer.
type issuerKey struct {
	id      string
	private *ecdsa.PrivateKey
}

func newIssuerKey(t *testing.T, id string) issuerKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return issuerKey{id, private}
}

// public is what the issuer answers when it has this key alone.
func (k issuerKey) public(t *testing.T) []byte {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: k.private.Public(), KeyID: k.id, Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (k issuerKey) sign(t *testing.T) string {
	t.Helper()
	return k.signs(t, []byte("{}"))
}

func (k issuerKey) signs(t *testing.T, text []byte) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.private, KeyID: k.id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func newKeySet(t *testing.T, issuer http.HandlerFunc) *keySet {
	t.Helper()
	server := httptest.NewServer(issuer)
	t.Cleanup(server.Close)
	return &keySet{address: server.URL, client: server.Client(), algorithms: []string{"ES256"}, clock: wall{}, log: slog.New(slog.DiscardHandler)}
}

// An issuer that has one key need not give it an ID, and may give the next one the same.
func TestAnotherKeyWithTheSameID(t *testing.T) {
	for _, id := range []string{"", "1"} {
		var keys atomic.Value
		var asked atomic.Int32
		k := newKeySet(t, func(w http.ResponseWriter, _ *http.Request) {
			asked.Add(1)
			_, _ = w.Write(keys.Load().([]byte))
		})
		before, after := newIssuerKey(t, id), newIssuerKey(t, id)
		keys.Store(before.public(t))
		if _, err := k.VerifySignature(t.Context(), before.sign(t)); err != nil {
			t.Fatalf("ID %q: %v", id, err)
		}
		keys.Store(after.public(t))
		for range 20 { // the issuer was asked a moment ago
			if _, err := k.VerifySignature(t.Context(), after.sign(t)); err == nil || err.Error() != "its signature does not fit" {
				t.Errorf("ID %q, a moment later: %v", id, err)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("ID %q: asked %d times", id, n)
		}
		k.asked = time.Time{}
		if _, err := k.VerifySignature(t.Context(), after.sign(t)); err != nil {
			t.Errorf("ID %q, the new key: %v", id, err)
		}
		if _, err := k.VerifySignature(t.Context(), before.sign(t)); err == nil {
			t.Errorf("ID %q: the old key is still good", id)
		}
	}
}

// Strangers with keys that nobody has can have the issuer asked. Nobody whose key is known waits for its answer.
func TestASlowIssuerHoldsUpNobodyWhoseKeyIsKnown(t *testing.T) {
	known, arrived, answer := newIssuerKey(t, "known"), make(chan struct{}, 2), make(chan struct{}, 2)
	k := newKeySet(t, func(w http.ResponseWriter, _ *http.Request) {
		arrived <- struct{}{}
		<-answer
		_, _ = w.Write(known.public(t))
	})
	answer <- struct{}{}
	if _, err := k.VerifySignature(t.Context(), known.sign(t)); err != nil {
		t.Fatal(err)
	}
	<-arrived
	k.asked = time.Time{}
	stranger := make(chan error, 1)
	forged := newIssuerKey(t, "nobody").sign(t)
	go func() {
		_, err := k.VerifySignature(t.Context(), forged)
		stranger <- err
	}()
	<-arrived // and there is no answer yet
	good, verified := known.sign(t), make(chan error, 1)
	go func() {
		_, err := k.VerifySignature(t.Context(), good)
		verified <- err
	}()
	select {
	case err := <-verified:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it waits for the issuer")
	}
	answer <- struct{}{}
	if err := <-stranger; !errors.Is(err, errNoKey) {
		t.Errorf("the stranger: %v", err)
	}
}

// An issuer that never ends its answer does not fill this process's memory.
func TestALongAnswerOfAnIssuerIsCutOff(t *testing.T) {
	var written atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for piece := []byte(strings.Repeat(" ", 1<<20)); written.Load() < 256<<20; {
			n, err := w.Write(piece)
			if written.Add(int64(n)); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	j := NewJWT(server.URL, "us", nil, wall{}, slog.New(slog.DiscardHandler))
	defer j.client.CloseIdleConnections()
	if _, err := j.Token(t.Context(), newIssuerKey(t, "1").sign(t)); tasks.CodeOf(err) != tasks.IAMAway {
		t.Errorf("got %v", err)
	}
	if n := written.Load(); n > 64<<20 {
		t.Errorf("%d MiB of it were read", n>>20)
	}
}

// setClock is a clock that tests set.
type setClock struct{ at atomic.Int64 }

func (c *setClock) Now() time.Time           { return time.Unix(0, c.at.Load()) }
func (c *setClock) advance(by time.Duration) { c.at.Add(int64(by)) }

// renewed waits until no keys are being read again.
func renewed(k *keySet) {
	for {
		k.mu.Lock()
		renewing := k.renewing
		k.mu.Unlock()
		if !renewing {
			return
		}
		runtime.Gosched()
	}
}

// An issuer withdraws a key, and everybody's token fits a key that is known: it is asked all the same.
func TestAWithdrawnKeyIsNotTrustedForLong(t *testing.T) {
	for _, away := range []bool{false, true} {
		withdrawn, stays := newIssuerKey(t, "withdrawn"), newIssuerKey(t, "stays")
		both, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
			{Key: withdrawn.private.Public(), KeyID: withdrawn.id}, {Key: stays.private.Public(), KeyID: stays.id},
		}})
		if err != nil {
			t.Fatal(err)
		}
		var answer atomic.Value
		answer.Store(both)
		var asked atomic.Int32
		var log strings.Builder
		clock := &setClock{}
		clock.at.Store(time.Now().UnixNano())
		k := newKeySet(t, func(w http.ResponseWriter, _ *http.Request) {
			if asked.Add(1) > 1 && away {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			_, _ = w.Write(answer.Load().([]byte))
		})
		k.clock, k.log = clock, slog.New(slog.NewTextHandler(&log, nil))
		verify := func(what string, key issuerKey, good bool) {
			t.Helper()
			if _, err := k.VerifySignature(t.Context(), key.sign(t)); (err == nil) != good {
				t.Errorf("away %t, %s: %v", away, what, err)
			}
			renewed(k)
		}
		verify("at first", withdrawn, true)
		answer.Store(stays.public(t))
		clock.advance(59 * time.Minute)
		verify("before an hour", withdrawn, true)
		if n := asked.Load(); n != 1 {
			t.Errorf("away %t: asked %d times within an hour", away, n)
		}
		clock.advance(2 * time.Minute)
		verify("nobody waits", stays, true)
		verify("after an hour", withdrawn, away)
		if n := asked.Load(); n != 2 {
			t.Errorf("away %t: asked %d times", away, n)
		}
		if away {
			clock.advance(22 * time.Hour)
			verify("within a day", withdrawn, true)
			if !strings.Contains(log.String(), "kept for up to 24 h") {
				t.Errorf("the log says %q", log.String())
			}
			clock.advance(time.Hour)
			verify("after a day", withdrawn, false)
			verify("after a day", stays, false)
		} else {
			verify("the one that stays", stays, true)
		}
	}
}

func TestTimesThatCannotBeWritten(t *testing.T) {
	for seconds, good := range map[int64]bool{0: true, 1_700_000_000: true, 253402300799: true, 253402300800: false, 1 << 55: false, -62135596801: false} {
		if got := sayable(time.Unix(seconds, 0)); got != good {
			t.Errorf("%d: %t", seconds, got)
		}
	}
	if !sayable(time.Time{}) {
		t.Error("a time that is not there")
	}
}

// The times of a token are shown to callers, as RFC 3339 has them.
func TestATokenOfAnotherAge(t *testing.T) {
	key := newIssuerKey(t, "1")
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	defer server.Close()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": server.URL, "jwks_uri": server.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(key.public(t)) })
	rules := []JWTRule{{Claims: map[string]string{"sub": "ci"}, Tenant: "acme", Scopes: tasks.DefaultScopes}}
	j := NewJWT(server.URL, "us", rules, wall{}, slog.New(slog.DiscardHandler))
	defer j.client.CloseIdleConnections()
	now := time.Now().Unix()
	for _, row := range []struct {
		iat, exp int64
		good     bool
	}{{now, now + 60, true}, {now, 1 << 50, false}, {-1 << 50, now + 60, false}} {
		claims, err := json.Marshal(map[string]any{"iss": server.URL, "aud": "us", "sub": "ci", "iat": row.iat, "exp": row.exp})
		if err != nil {
			t.Fatal(err)
		}
		_, err = j.Token(t.Context(), key.signs(t, claims))
		if row.good != (err == nil) || !row.good && tasks.CodeOf(err) != tasks.BadToken {
			t.Errorf("iat %d, exp %d: %v", row.iat, row.exp, err)
		}
	}
}
