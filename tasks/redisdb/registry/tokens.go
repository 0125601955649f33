package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

const tokensIndex = "reset:tokens"

// tokenMemory is how long an expired or revoked token is remembered, so that its
// holder is told to get a new one rather than that it never existed.
const tokenMemory = 30 * 24 * time.Hour

// tokenIDLength is how much of a token's hash serves as its ID.
const tokenIDLength = 16

func hashToken(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// Tokens are the callers' tokens, and the tickets that are made with them.
type Tokens struct {
	redis   *wire.Client
	audit   *Audit
	leftOut *codec.LeftOut
}

// NewTokens makes Tokens.
func NewTokens(client *wire.Client, audit *Audit, leftOut *codec.LeftOut) *Tokens {
	return &Tokens{client, audit, leftOut}
}

// TokenID is the ID of the token with this secret.
func TokenID(secret string) string { return hashToken(secret)[:tokenIDLength] }

func tokenKey(hash string) string { return "reset:token:{" + hash + "}" }

// Add makes secret a token with the tenant, owner and scopes of n. ttl 0 means that it does not expire. The
// secret itself is not stored.
func (t *Tokens) Add(ctx context.Context, secret string, n tasks.Token, ttl time.Duration, actor tasks.Actor) (token tasks.Token, err error) {
	e := actor.Entry(tasks.ActionAddToken)
	e.Tenant, e.Detail = n.Tenant, fmt.Sprintf("token %s for %s", TokenID(secret), joinScopes(n.Scopes, ","))
	if n.Owner != "" {
		e.Detail += ", of " + n.Owner
	}
	err = t.audit.Decide(ctx, e, func(ctx context.Context) error {
		token, err = t.add(ctx, secret, n, ttl)
		return err
	})
	return token, err
}

func joinScopes(scopes []tasks.Scope, separator string) string {
	names := make([]string, len(scopes))
	for i, s := range scopes {
		names[i] = string(s)
	}
	return strings.Join(names, separator)
}

func (t *Tokens) add(ctx context.Context, secret string, n tasks.Token, ttl time.Duration) (tasks.Token, error) {
	now, err := t.redis.Time(ctx).Result()
	if err != nil {
		return tasks.Token{}, fmt.Errorf("add token: %w", err)
	}
	hash := hashToken(secret)
	fields := map[string]any{
		"tenant": n.Tenant, "scopes": joinScopes(n.Scopes, " "), "created": now.UnixMilli(),
	}
	if n.Owner != "" {
		fields["owner"] = n.Owner
	}
	pipe := t.redis.Pipeline()
	pipe.ZAdd(ctx, tokensIndex, redis.Z{Score: float64(now.UnixMilli()), Member: hash})
	pipe.Del(ctx, tokenKey(hash))
	if ttl > 0 {
		fields["expires"] = now.Add(ttl).UnixMilli()
		pipe.HSet(ctx, tokenKey(hash), fields)
		pipe.ExpireAt(ctx, tokenKey(hash), now.Add(ttl+tokenMemory))
	} else {
		pipe.HSet(ctx, tokenKey(hash), fields)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return tasks.Token{}, fmt.Errorf("add token: %w", err)
	}
	token, _, err := t.token(ctx, hash)
	return token, err
}

// Token looks up the token whose secret a caller presented. Errors:
// tasks.BadToken, tasks.TokenExpired.
func (t *Tokens) Token(ctx context.Context, secret string) (tasks.Token, error) {
	token, found, err := t.token(ctx, hashToken(secret))
	switch {
	case err != nil:
		return tasks.Token{}, err
	case !found:
		return tasks.Token{}, tasks.Errorf(tasks.BadToken, "X-Auth-Token is not valid")
	}
	return token, token.Check(t.redis.Now())
}

// TokensByHash returns those of the tokens that there are, ended ones too. One that cannot be
// read is none.
func (t *Tokens) TokensByHash(ctx context.Context, hashes []string) (map[string]tasks.Token, error) {
	pipe := t.redis.Pipeline()
	read := make([]*redis.MapStringStringCmd, len(hashes))
	for i, hash := range hashes {
		read[i] = pipe.HGetAll(ctx, tokenKey(hash))
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	tokens := make(map[string]tasks.Token, len(hashes))
	for i, hash := range hashes {
		switch h, err := read[i].Result(); {
		case redis.HasErrorPrefix(err, "WRONGTYPE"):
			_ = t.leftOut.Note("token "+hash[:tokenIDLength], err) // only logs
		case err != nil: // not the token's fault: it may be good
			return nil, fmt.Errorf("read tokens: %w", err)
		case len(h) > 0:
			tokens[hash] = decodeToken(hash, h)
		}
	}
	return tokens, nil
}

func (t *Tokens) token(ctx context.Context, hash string) (tasks.Token, bool, error) {
	cmd := redis.NewMapStringStringCmd(ctx, "hgetall", tokenKey(hash))
	if err := t.redis.Grouped(ctx, cmd); err != nil {
		return tasks.Token{}, false, fmt.Errorf("read token: %w", err)
	}
	if len(cmd.Val()) == 0 {
		return tasks.Token{}, false, nil
	}
	return decodeToken(hash, cmd.Val()), true, nil
}

func decodeToken(hash string, h map[string]string) tasks.Token {
	token := tasks.Token{
		ID: hash[:tokenIDLength], Hash: hash, Tenant: h["tenant"], Owner: h["owner"],
		CreatedAt: codec.Millis(h["created"]), ExpiresAt: codec.Millis(h["expires"]), RevokedAt: codec.Millis(h["revoked"]),
	}
	for name := range strings.FieldsSeq(h["scopes"]) {
		token.Scopes = append(token.Scopes, tasks.Scope(name))
	}
	return token
}

// List returns every token that is remembered, oldest first.
func (t *Tokens) List(ctx context.Context) ([]tasks.Token, error) {
	hashes, err := t.redis.ZRange(ctx, tokensIndex, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	tokens := make([]tasks.Token, 0, len(hashes))
	for _, hash := range hashes {
		switch token, found, err := t.token(ctx, hash); {
		case err != nil:
			if err := t.leftOut.Note("token "+hash[:tokenIDLength], err); err != nil {
				return nil, err
			}
		case found:
			tokens = append(tokens, token)
		default:
			if err := t.redis.ZRem(ctx, tokensIndex, hash).Err(); err != nil {
				return nil, fmt.Errorf("list tokens: %w", err)
			}
		}
	}
	return tokens, nil
}

// Tenants returns the names of those that have a token, in order.
func (t *Tokens) Tenants(ctx context.Context) ([]string, error) {
	hashes, err := t.redis.ZRange(ctx, tokensIndex, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	pipe := t.redis.Pipeline()
	owners := make([]*redis.StringCmd, len(hashes))
	for i, hash := range hashes {
		owners[i] = pipe.HGet(ctx, tokenKey(hash), "tenant")
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	names := []string{}
	for i, owner := range owners {
		switch name, err := owner.Result(); {
		case errors.Is(err, redis.Nil): // the token has expired
		case err != nil:
			if err := t.leftOut.Note("token "+hashes[i][:tokenIDLength], err); err != nil {
				return nil, fmt.Errorf("list tenants: %w", err)
			}
		case name != "":
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Revoke ends the token with this ID, at once and for good, and reports
// whether there is one.
func (t *Tokens) Revoke(ctx context.Context, id string, actor tasks.Actor) (found bool, err error) {
	hashes, err := t.redis.ZRange(ctx, tokensIndex, 0, -1).Result()
	if err != nil {
		return false, fmt.Errorf("revoke token: %w", err)
	}
	n := slices.IndexFunc(hashes, func(hash string) bool { return hash[:tokenIDLength] == id })
	if n < 0 {
		return false, nil
	}
	token, found, err := t.token(ctx, hashes[n])
	if err != nil || !found || !token.RevokedAt.IsZero() {
		return found, err
	}
	e := actor.Entry(tasks.ActionRevokeToken)
	e.Tenant, e.Detail = token.Tenant, "token "+id
	err = t.audit.Decide(ctx, e, func(ctx context.Context) error {
		done, err := revokeScript.Run(ctx, t.redis, []string{tokenKey(hashes[n])}, tokenMemory.Milliseconds()).Int()
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
