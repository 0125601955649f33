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
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.private, KeyID: k.id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign([]byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func newKeySet(t *testing.T, issuer http.HandlerFunc) *keySet {
	t.Helper()
	server := httptest.NewServer(issuer)
	t.Cleanup(server.Close)
	return &keySet{address: server.URL, client: server.Client(), algorithms: []string{"ES256"}}
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
