package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// keySet are an issuer's keys. go-oidc has one, too, which asks the issuer for each token whose signature does
// not fit: anybody could have it asked as often as they like.
type keySet struct {
	address    string
	client     *http.Client
	algorithms []string

	reading sync.Mutex // held while keys are read, by those whom none of the known ones helps
	asked   time.Time  // when the last try was over

	clock Clock        // by which keys grow old
	log   *slog.Logger // of reading them again

	mu       sync.Mutex
	keys     []jose.JSONWebKey // replaced as a whole
	read     time.Time         // by clock; when keys were asked for
	renewing bool
	tried    time.Time // by clock; when the last try to renew them began
}

const (
	// keysFresh is how old known keys may be before the issuer is asked for them again: one that it has withdrawn is
	// not trusted for much longer.
	keysFresh = time.Hour
	// keysKept is how old they may be at most, while the issuer does not answer.
	keysKept = 24 * time.Hour
	// renewEvery is how often an issuer that does not answer is asked to renew them.
	renewEvery = time.Minute
)

// maxIssuerAnswer bounds what is read of an issuer.
const maxIssuerAnswer = 1 << 20

// bounded cuts answers off at maxIssuerAnswer: go-oidc reads the issuer's settings to their end.
type bounded struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxIssuerAnswer), resp.Body}
	return resp, nil
}

var errNoKey = errors.New("its key is not one of the issuer's")

// unreadKey is where a keySet notes that keys could not be read: its error does not get through the verifier.
type unreadKey struct{}

func noting(ctx context.Context, unread *error) context.Context {
	return context.WithValue(ctx, unreadKey{}, unread)
}

// VerifySignature implements oidc.KeySet.
func (k *keySet) VerifySignature(ctx context.Context, jwt string) ([]byte, error) {
	algorithms := make([]jose.SignatureAlgorithm, len(k.algorithms))
	for i, a := range k.algorithms {
		algorithms[i] = jose.SignatureAlgorithm(a)
	}
	signed, err := jose.ParseSigned(jwt, algorithms)
	if err != nil {
		return nil, err
	}
	id := signed.Signatures[0].Header.KeyID
	known := k.known()
	payload, err := verified(signed, withID(known, id))
	if err == nil {
		return payload, nil
	}
	// The key may be a new one, also if it has no ID, or that of one before.
	keys, unread := k.again(ctx, known)
	switch {
	case unread == nil:
		return verified(signed, withID(keys, id))
	case !errors.Is(err, errNoKey): // there is a key, and the signature is not made with it
		return nil, err
	}
	if noted, ok := ctx.Value(unreadKey{}).(*error); ok {
		*noted = unread
	}
	return nil, unread
}

// verified is what a token says if one of the keys has signed it.
func verified(signed *jose.JSONWebSignature, keys []jose.JSONWebKey) ([]byte, error) {
	err := errNoKey
	for _, key := range keys {
		payload, failed := signed.Verify(key)
		if failed == nil {
			return payload, nil
		}
		err = errors.New("its signature does not fit")
	}
	return nil, err
}

// withID are the keys with an ID, which may be empty: all.
func withID(keys []jose.JSONWebKey, id string) []jose.JSONWebKey {
	if id == "" {
		return keys
	}
	return (&jose.JSONWebKeySet{Keys: keys}).Key(id)
}

// known are the keys that are trusted now. Old ones are read again, and nobody waits for that; keys that are too old are
// none.
func (k *keySet) known() []jose.JSONWebKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.clock.Now()
	age := now.Sub(k.read)
	if len(k.keys) == 0 || age < keysFresh && age > -keysFresh { // a clock that was set back does not keep them
		return k.keys
	}
	if !k.renewing && now.Sub(k.tried).Abs() >= renewEvery {
		k.renewing, k.tried = true, now
		go k.renew(now)
	}
	if age > keysKept {
		return nil
	}
	return k.keys
}

// renew reads the keys again. Those that are known stay if the issuer does not answer.
func (k *keySet) renew(asked time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), jwtTimeout)
	defer cancel()
	keys, err := k.fetch(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.renewing = false
	if err != nil {
		k.log.Warn("the keys of the issuer of bearer tokens cannot be read again; the known ones are kept for up to 24 h", "address", k.address, "read", k.read.UTC(), "error", err)
		return
	}
	k.keys, k.read = keys.Keys, asked
}

// again are the issuer's keys after those that somebody knows. The issuer is asked, but not again within keysEvery.
// Those who come meanwhile wait for the answer to the first.
func (k *keySet) again(ctx context.Context, known []jose.JSONWebKey) ([]jose.JSONWebKey, error) {
	k.reading.Lock()
	defer k.reading.Unlock()
	if keys := k.known(); len(keys) > 0 && (len(known) == 0 || &keys[0] != &known[0]) {
		return keys, nil
	}
	if time.Since(k.asked) < keysEvery {
		return nil, errors.New("its key is not known, and the issuer was asked a moment ago")
	}
	asked := k.clock.Now()
	keys, err := k.fetch(ctx)
	k.asked = time.Now() // once it is over: those who came meanwhile do not ask, too
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys, k.read = keys.Keys, asked
	return k.keys, nil
}

func (k *keySet) fetch(ctx context.Context) (keys jose.JSONWebKeySet, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, k.address, http.NoBody)
	if err != nil {
		return keys, err
	}
	resp, err := k.client.Do(r)
	if err != nil {
		return keys, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return keys, err
	}
	if resp.StatusCode != http.StatusOK {
		return keys, fmt.Errorf("asked for its keys, it answers %d", resp.StatusCode)
	}
	var all struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return keys, errors.New("asked for its keys, it answers something else")
	}
	for _, raw := range all.Keys {
		var key jose.JSONWebKey
		if json.Unmarshal(raw, &key) == nil && (key.Use == "" || key.Use == "sig") { // others are of kinds that are not for us
			keys.Keys = append(keys.Keys, key)
		}
	}
	if len(keys.Keys) == 0 {
		return keys, errors.New("asked for its keys, it answers none that can be used")
	}
	return keys, nil
}
