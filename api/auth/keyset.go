package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	mu   sync.Mutex // held while keys are read: those who come meanwhile need the same ones
	keys jose.JSONWebKeySet
	read time.Time // the last try
}

// maxKeys bounds what is read of an issuer.
const maxKeys = 1 << 20

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
	keys, err := k.named(ctx, signed.Signatures[0].Header.KeyID)
	if err != nil {
		if unread, ok := ctx.Value(unreadKey{}).(*error); ok && !errors.Is(err, errNoKey) {
			*unread = err
		}
		return nil, err
	}
	err = errNoKey
	for _, key := range keys {
		payload, failed := signed.Verify(key)
		if failed == nil {
			return payload, nil
		}
		err = errors.New("its signature does not fit")
	}
	return nil, err
}

// named are the keys with an ID, which may be empty: all. One that is not known may be a new one: then the
// issuer is asked, but not again within keysEvery.
func (k *keySet) named(ctx context.Context, id string) ([]jose.JSONWebKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if keys := k.find(id); len(keys) > 0 {
		return keys, nil
	}
	if time.Since(k.read) < keysEvery {
		return nil, fmt.Errorf("the key %.40q is not known, and the issuer was asked a moment ago", id)
	}
	keys, err := k.fetch(ctx)
	k.read = time.Now() // once it is over: those who came meanwhile do not ask, too
	if err != nil {
		return nil, err
	}
	k.keys = keys
	if keys := k.find(id); len(keys) > 0 {
		return keys, nil
	}
	return nil, errNoKey
}

func (k *keySet) find(id string) []jose.JSONWebKey {
	if id == "" {
		return k.keys.Keys
	}
	return k.keys.Key(id)
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
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxKeys))
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
