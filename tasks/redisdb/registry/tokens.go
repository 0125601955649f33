package registry

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
	"batchreset/tasks/seal"
)

// The indexes have every token and access key by the time of its creation: the hash of a token, and the
// access key itself.
const (
	tokensIndex = "reset:tokens"
	keysIndex   = "reset:keys"
)

// tokenMemory is how long an expired or revoked token is remembered, so that its
// holder is told to get a new one rather than that it never existed.
const tokenMemory = 30 * 24 * time.Hour

// tokenIDLength is how much of a token's hash serves as its ID.
const tokenIDLength = 16

// keyHandle marks the handle (tasks.Token.Hash) of an access key. No hash of a token begins with it.
const keyHandle = "key:"

func hashToken(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Tokens are the callers' tokens and access keys, and the tickets that are made with them.
type Tokens struct {
	redis   *wire.Client
	audit   *Audit
	leftOut *codec.LeftOut
	seals   *seal.Keys
}

// NewTokens makes Tokens. The secrets of access keys are sealed with seals, if there are any.
func NewTokens(client *wire.Client, audit *Audit, leftOut *codec.LeftOut, seals *seal.Keys) *Tokens {
	return &Tokens{client, audit, leftOut, seals}
}

// Sealed reports whether the secrets of access keys are sealed.
func (t *Tokens) Sealed() bool { return t.seals != nil }

// TokenID is the ID of the token with this secret.
func TokenID(secret string) string { return hashToken(secret)[:tokenIDLength] }

// entryKey is where the token or access key with this handle is kept.
func entryKey(handle string) string {
	if access, is := strings.CutPrefix(handle, keyHandle); is {
		return "reset:key:{" + access + "}"
	}
	return "reset:token:{" + handle + "}"
}

// entryID is the ID of the token or access key with this handle.
func entryID(handle string) string {
	if access, is := strings.CutPrefix(handle, keyHandle); is {
		return access
	}
	return handle[:min(tokenIDLength, len(handle))]
}

// Add makes secret a token with the tenant, owner, scopes and limits of n. ttl 0 means that it does not
// expire. The secret itself is not stored.
func (t *Tokens) Add(ctx context.Context, secret string, n tasks.Token, ttl time.Duration, actor tasks.Actor) (token tasks.Token, err error) {
	n.Hash = hashToken(secret)
	err = t.audit.Decide(ctx, aboutToken(actor, tasks.ActionAddToken, n), func(ctx context.Context) error {
		token, err = t.add(ctx, tasks.AccessKey{Token: n}, ttl)
		return err
	})
	return token, err
}

func aboutToken(actor tasks.Actor, action tasks.Action, n tasks.Token) tasks.AuditEntry {
	e := actor.Entry(action)
	what := "token "
	if strings.HasPrefix(n.Hash, keyHandle) {
		what = "access key "
	}
	e.Tenant, e.Detail = n.Tenant, fmt.Sprintf("%s%s for %s", what, entryID(n.Hash), joinScopes(n.Scopes, ","))
	if n.Owner != "" {
		e.Detail += ", of " + n.Owner
	}
	if n.Name != "" {
		e.Detail += ", named " + n.Name
	}
	return e
}

func joinScopes(scopes []tasks.Scope, separator string) string {
	names := make([]string, len(scopes))
	for i, s := range scopes {
		names[i] = string(s)
	}
	return strings.Join(names, separator)
}

// add adds a token, or an access key: that has a secret.
func (t *Tokens) add(ctx context.Context, n tasks.AccessKey, ttl time.Duration) (tasks.Token, error) {
	now, err := t.redis.Time(ctx).Result()
	if err != nil {
		return tasks.Token{}, fmt.Errorf("add token: %w", err)
	}
	fields, err := t.encode(n)
	if err != nil {
		return tasks.Token{}, err
	}
	fields["created"] = now.UnixMilli()
	key, index, member := entryKey(n.Hash), tokensIndex, n.Hash
	if access, is := strings.CutPrefix(n.Hash, keyHandle); is {
		index, member = keysIndex, access
	}
	pipe := t.redis.Pipeline()
	pipe.ZAdd(ctx, index, redis.Z{Score: float64(now.UnixMilli()), Member: member})
	pipe.Del(ctx, key)
	if ttl > 0 {
		fields["expires"] = now.Add(ttl).UnixMilli()
		pipe.HSet(ctx, key, fields)
		pipe.ExpireAt(ctx, key, now.Add(ttl+tokenMemory))
	} else {
		pipe.HSet(ctx, key, fields)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return tasks.Token{}, fmt.Errorf("add token: %w", err)
	}
	token, _, err := t.token(ctx, n.Hash)
	return token, err
}

// encode is a token as Redis has it; what it does not have has no field.
func (t *Tokens) encode(n tasks.AccessKey) (map[string]any, error) {
	labels, err := codec.EncodeLabels(n.InstanceLabels)
	if err != nil {
		return nil, fmt.Errorf("instance labels: %w", err)
	}
	networks := make([]string, len(n.Addresses))
	for i, network := range n.Addresses {
		networks[i] = network.String()
	}
	fields := map[string]any{"tenant": n.Tenant, "scopes": joinScopes(n.Scopes, " ")}
	for field, value := range map[string]string{
		"owner": n.Owner, "name": n.Name, "addresses": strings.Join(networks, " "), "labels": labels,
		"secret": t.seals.Seal(n.Secret, n.Hash),
	} {
		if value != "" {
			fields[field] = value
		}
	}
	return fields, nil
}

// Token looks up the token whose secret a caller presented. Errors:
// tasks.BadToken, tasks.TokenExpired.
func (t *Tokens) Token(ctx context.Context, secret string) (tasks.Token, error) {
	token, found, err := t.token(ctx, hashToken(secret))
	switch {
	case err != nil:
		return tasks.Token{}, err
	case !found:
		return tasks.Token{}, tasks.NotAuthenticated("decrypt token fail")
	}
	return token, token.Check(t.redis.Now())
}

// TokensByHash returns those of the tokens and access keys that there are, ended ones too. One that
// cannot be read is none.
func (t *Tokens) TokensByHash(ctx context.Context, handles []string) (map[string]tasks.Token, error) {
	pipe := t.redis.Pipeline()
	read := make([]*redis.MapStringStringCmd, len(handles))
	for i, handle := range handles {
		read[i] = pipe.HGetAll(ctx, entryKey(handle))
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	tokens := make(map[string]tasks.Token, len(handles))
	for i, handle := range handles {
		h, err := read[i].Result()
		var token tasks.Token
		if err == nil && len(h) > 0 {
			token, err = decodeToken(handle, h)
		}
		_, damaged := errors.AsType[*codec.Damage](err)
		switch {
		case damaged, redis.HasErrorPrefix(err, "WRONGTYPE"):
			_ = t.leftOut.Note("token "+entryID(handle), err) // only logs
		case err != nil: // not the token's fault: it may be good
			return nil, fmt.Errorf("read tokens: %w", err)
		case len(h) > 0:
			tokens[handle] = token
		}
	}
	return tokens, nil
}

func (t *Tokens) token(ctx context.Context, handle string) (tasks.Token, bool, error) {
	cmd := redis.NewMapStringStringCmd(ctx, "hgetall", entryKey(handle))
	if err := t.redis.Grouped(ctx, cmd); err != nil {
		return tasks.Token{}, false, fmt.Errorf("read token: %w", err)
	}
	if len(cmd.Val()) == 0 {
		return tasks.Token{}, false, nil
	}
	token, err := decodeToken(handle, cmd.Val())
	return token, err == nil, err
}

// decodeToken reads a token. What limits it must be understood in full: a part that is not would let it do
// more than it may.
func decodeToken(handle string, h map[string]string) (tasks.Token, error) {
	token := tasks.Token{
		ID: entryID(handle), Kind: tasks.KindToken, Hash: handle, Tenant: h["tenant"], Name: h["name"], Owner: h["owner"],
		CreatedAt: codec.Millis(h["created"]), ExpiresAt: codec.Millis(h["expires"]), RevokedAt: codec.Millis(h["revoked"]),
	}
	if strings.HasPrefix(handle, keyHandle) {
		token.Kind = tasks.KindKey
	}
	planned, shortened := h["planned"]
	if !shortened {
		planned = h["expires"]
	}
	if ends := codec.Millis(planned); !ends.IsZero() {
		token.Life = ends.Sub(token.CreatedAt.Time)
	}
	for name := range strings.FieldsSeq(h["scopes"]) {
		token.Scopes = append(token.Scopes, tasks.Scope(name))
	}
	for text := range strings.FieldsSeq(h["addresses"]) {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return tasks.Token{}, &codec.Damage{Err: fmt.Errorf("token %s: addresses: %w", token.ID, err)}
		}
		token.Addresses = append(token.Addresses, network)
	}
	var err error
	if token.InstanceLabels, err = codec.Labels(h["labels"]); err != nil {
		return tasks.Token{}, &codec.Damage{Err: fmt.Errorf("token %s: labels: %w", token.ID, err)}
	}
	return token, nil
}

// handles are those of all tokens and access keys that are remembered, oldest first.
func (t *Tokens) handles(ctx context.Context) ([]string, error) {
	pipe := t.redis.Pipeline()
	tokens, keys := pipe.ZRangeWithScores(ctx, tokensIndex, 0, -1), pipe.ZRangeWithScores(ctx, keysIndex, 0, -1)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, err
	}
	all := tokens.Val()
	for _, z := range keys.Val() {
		all = append(all, redis.Z{Score: z.Score, Member: keyHandle + z.Member.(string)})
	}
	slices.SortStableFunc(all, func(a, b redis.Z) int { return cmp.Compare(a.Score, b.Score) })
	handles := make([]string, len(all))
	for i, z := range all {
		handles[i] = z.Member.(string)
	}
	return handles, nil
}

// forget takes what is gone out of the indexes.
func (t *Tokens) forget(ctx context.Context, handle string) error {
	index, member := tokensIndex, handle
	if access, is := strings.CutPrefix(handle, keyHandle); is {
		index, member = keysIndex, access
	}
	pipe := t.redis.Pipeline()
	pipe.HDel(ctx, lastUsed, handle)
	pipe.ZRem(ctx, index, member) // last: until then it is met again
	_, err := pipe.Exec(ctx)
	return err
}

// List returns every token and access key that is remembered, oldest first.
func (t *Tokens) List(ctx context.Context) ([]tasks.Token, error) {
	handles, err := t.handles(ctx)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	used, err := t.redis.HGetAll(ctx, lastUsed).Result()
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	tokens := make([]tasks.Token, 0, len(handles))
	for _, handle := range handles {
		switch token, found, err := t.token(ctx, handle); {
		case err != nil:
			if err := t.leftOut.Note("token "+entryID(handle), err); err != nil {
				return nil, err
			}
		case found:
			token.LastUsedAt = codec.Millis(used[handle])
			tokens = append(tokens, token)
		default:
			if err := t.forget(ctx, handle); err != nil {
				return nil, fmt.Errorf("list tokens: %w", err)
			}
		}
	}
	return tokens, nil
}

// Tenants returns the names of those that have a token or access key, in order.
func (t *Tokens) Tenants(ctx context.Context) ([]string, error) {
	handles, err := t.handles(ctx)
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	pipe := t.redis.Pipeline()
	owners := make([]*redis.StringCmd, len(handles))
	for i, handle := range handles {
		owners[i] = pipe.HGet(ctx, entryKey(handle), "tenant")
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	names := []string{}
	for i, owner := range owners {
		switch name, err := owner.Result(); {
		case errors.Is(err, redis.Nil): // the token has expired
		case err != nil:
			if err := t.leftOut.Note("token "+entryID(handles[i]), err); err != nil {
				return nil, fmt.Errorf("list tenants: %w", err)
			}
		case name != "":
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// find returns the handle of the token or access key with this ID.
func (t *Tokens) find(ctx context.Context, id string) (handle string, found bool, err error) {
	handles, err := t.handles(ctx)
	if err != nil {
		return "", false, err
	}
	n := slices.IndexFunc(handles, func(handle string) bool { return entryID(handle) == id })
	if n < 0 {
		return "", false, nil
	}
	return handles[n], true, nil
}

// Kind says whether an ID is that of a token or of an access key.
func (t *Tokens) Kind(ctx context.Context, id string) (kind tasks.CredentialKind, found bool, err error) {
	handle, found, err := t.find(ctx, id)
	kind = tasks.KindToken
	if strings.HasPrefix(handle, keyHandle) {
		kind = tasks.KindKey
	}
	return kind, found, wrapped("find token", err)
}

// Revoke ends the token or access key with this ID, at once and for good, and reports
// whether there is one.
func (t *Tokens) Revoke(ctx context.Context, id string, actor tasks.Actor) (found bool, err error) {
	handle, found, err := t.find(ctx, id)
	if err != nil || !found {
		return false, wrapped("revoke token", err)
	}
	token, found, err := t.token(ctx, handle)
	if _, damaged := errors.AsType[*codec.Damage](err); damaged { // all the more
		token, found, err = tasks.Token{Hash: handle}, true, nil
	}
	if err != nil || !found || !token.RevokedAt.IsZero() {
		return found, err
	}
	e := aboutToken(actor, tasks.ActionRevokeToken, tasks.Token{Hash: handle, Tenant: token.Tenant, Scopes: token.Scopes})
	err = t.audit.Decide(ctx, e, func(ctx context.Context) error {
		done, err := revokeScript.Run(ctx, t.redis, []string{entryKey(handle)}, tokenMemory.Milliseconds()).Int()
		if err != nil {
			return fmt.Errorf("revoke token: %w", err)
		}
		if found = done >= 0; done != 1 {
			return ErrUnchanged
		}
		return nil
	})
	return found, err
}

// wrapped says what failed, if something has.
func wrapped(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Rotate makes secret a token like that with this ID, which lives as long as that was to live from its
// creation on. The old one ends after the overlap, or when it was to end if that is sooner. Errors:
// tasks.ErrNoToken; tasks.TokenExpired if the old one has ended.
func (t *Tokens) Rotate(ctx context.Context, id, secret string, overlap time.Duration, actor tasks.Actor) (token tasks.Token, err error) {
	return t.rotate(ctx, id, overlap, actor, func(n tasks.Token) (tasks.AccessKey, error) {
		if n.Kind != tasks.KindToken {
			return tasks.AccessKey{}, tasks.ErrNoToken
		}
		n.Hash = hashToken(secret)
		return tasks.AccessKey{Token: n}, nil
	})
}

// RotateKey does so with an access key.
func (t *Tokens) RotateKey(ctx context.Context, id, access, secret string, overlap time.Duration, actor tasks.Actor) (token tasks.Token, err error) {
	return t.rotate(ctx, id, overlap, actor, func(n tasks.Token) (tasks.AccessKey, error) {
		if n.Kind != tasks.KindKey {
			return tasks.AccessKey{}, tasks.ErrNoToken
		}
		n.Hash = keyHandle + access
		return tasks.AccessKey{Token: n, Secret: secret}, nil
	})
}

func (t *Tokens) rotate(ctx context.Context, id string, overlap time.Duration, actor tasks.Actor, renew func(tasks.Token) (tasks.AccessKey, error)) (token tasks.Token, err error) {
	handle, found, err := t.find(ctx, id)
	if err != nil {
		return tasks.Token{}, fmt.Errorf("rotate token: %w", err)
	}
	old := tasks.Token{}
	if found {
		old, found, err = t.token(ctx, handle)
	}
	if err != nil || !found {
		return tasks.Token{}, cmp.Or(wrapped("rotate token", err), tasks.ErrNoToken)
	}
	renewed, err := renew(old)
	if err != nil {
		return tasks.Token{}, err
	}
	if err := old.Check(t.redis.Now()); err != nil {
		return tasks.Token{}, err
	}
	e := aboutToken(actor, tasks.ActionRotateToken, renewed.Token)
	e.Detail += ", in place of " + id
	err = t.audit.Decide(ctx, e, func(ctx context.Context) error {
		if token, err = t.add(ctx, renewed, old.Life); err != nil { // first: nobody is without one
			return err
		}
		ended, err := shortenScript.Run(ctx, t.redis, []string{entryKey(handle)}, overlap.Milliseconds(), tokenMemory.Milliseconds()).Int()
		if err == nil && ended < 0 {
			err = tasks.ErrNoToken
		}
		return wrapped("shorten the old token", err)
	})
	return token, err
}
