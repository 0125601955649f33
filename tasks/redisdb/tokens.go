package redisdb

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
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

// TokenID is the ID of the token with this secret.
func TokenID(secret string) string { return hashToken(secret)[:tokenIDLength] }

func tokenKey(hash string) string { return "reset:token:{" + hash + "}" }

// AddToken makes secret a token of the tenant. ttl 0 means that it does not
// expire. The secret itself is not stored.
func (db *DB) AddToken(ctx context.Context, secret, tenant string, scopes []tasks.Scope, ttl time.Duration, actor tasks.Actor) (token tasks.Token, err error) {
	e := actor.Entry(tasks.ActionAddToken)
	e.Tenant, e.Detail = tenant, fmt.Sprintf("token %s for %s", TokenID(secret), joinScopes(scopes, ","))
	err = db.Decide(ctx, e, func(ctx context.Context) error {
		token, err = db.addToken(ctx, secret, tenant, scopes, ttl)
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

func (db *DB) addToken(ctx context.Context, secret, tenant string, scopes []tasks.Scope, ttl time.Duration) (tasks.Token, error) {
	now, err := db.rdb.Time(ctx).Result()
	if err != nil {
		return tasks.Token{}, fmt.Errorf("add token: %w", err)
	}
	hash := hashToken(secret)
	fields := map[string]any{
		"tenant": tenant, "scopes": joinScopes(scopes, " "), "created": now.UnixMilli(),
	}
	pipe := db.rdb.Pipeline()
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
	token, _, err := db.token(ctx, hash)
	return token, err
}

// Token looks up the token whose secret a caller presented. Errors:
// tasks.BadToken, tasks.TokenExpired.
func (db *DB) Token(ctx context.Context, secret string) (tasks.Token, error) {
	token, found, err := db.token(ctx, hashToken(secret))
	switch {
	case err != nil:
		return tasks.Token{}, err
	case !found:
		return tasks.Token{}, tasks.Errorf(tasks.BadToken, "X-Auth-Token is not valid")
	}
	return token, token.Check(db.Now())
}

// TokensByHash returns those of the tokens that there are, ended ones too. One that cannot be
// read is none.
func (db *DB) TokensByHash(ctx context.Context, hashes []string) (map[string]tasks.Token, error) {
	pipe := db.rdb.Pipeline()
	read := make([]*redis.MapStringStringCmd, len(hashes))
	for i, hash := range hashes {
		read[i] = pipe.HGetAll(ctx, tokenKey(hash))
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	tokens := make(map[string]tasks.Token, len(hashes))
	for i, hash := range hashes {
		switch h, err := read[i].Result(); {
		case redis.HasErrorPrefix(err, "WRONGTYPE"):
			_ = db.leaveOut("token "+hash[:tokenIDLength], err) // only logs
		case err != nil: // not the token's fault: it may be good
			return nil, fmt.Errorf("read tokens: %w", err)
		case len(h) > 0:
			tokens[hash] = decodeToken(hash, h)
		}
	}
	return tokens, nil
}

func (db *DB) token(ctx context.Context, hash string) (tasks.Token, bool, error) {
	cmd := redis.NewMapStringStringCmd(ctx, "hgetall", tokenKey(hash))
	if err := db.group.do(ctx, cmd); err != nil {
		return tasks.Token{}, false, fmt.Errorf("read token: %w", err)
	}
	if len(cmd.Val()) == 0 {
		return tasks.Token{}, false, nil
	}
	return decodeToken(hash, cmd.Val()), true, nil
}

func decodeToken(hash string, h map[string]string) tasks.Token {
	t := tasks.Token{
		ID: hash[:tokenIDLength], Hash: hash, Tenant: h["tenant"],
		CreatedAt: millis(h["created"]), ExpiresAt: millis(h["expires"]), RevokedAt: millis(h["revoked"]),
	}
	for name := range strings.FieldsSeq(h["scopes"]) {
		t.Scopes = append(t.Scopes, tasks.Scope(name))
	}
	return t
}

func millis(s string) tasks.Time {
	ms, _ := strconv.ParseInt(s, 10, 64) // absent: zero
	return tasks.FromMillis(ms)
}

// Tokens returns every token that is remembered, oldest first.
func (db *DB) Tokens(ctx context.Context) ([]tasks.Token, error) {
	hashes, err := db.rdb.ZRange(ctx, tokensIndex, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	tokens := make([]tasks.Token, 0, len(hashes))
	for _, hash := range hashes {
		switch token, found, err := db.token(ctx, hash); {
		case err != nil:
			if err := db.leaveOut("token "+hash[:tokenIDLength], err); err != nil {
				return nil, err
			}
		case found:
			tokens = append(tokens, token)
		default:
			if err := db.rdb.ZRem(ctx, tokensIndex, hash).Err(); err != nil {
				return nil, fmt.Errorf("list tokens: %w", err)
			}
		}
	}
	return tokens, nil
}

// Tenants returns the names of those that have a token, in order.
func (db *DB) Tenants(ctx context.Context) ([]string, error) {
	hashes, err := db.rdb.ZRange(ctx, tokensIndex, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	pipe := db.rdb.Pipeline()
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
			if err := db.leaveOut("token "+hashes[i][:tokenIDLength], err); err != nil {
				return nil, fmt.Errorf("list tenants: %w", err)
			}
		case name != "":
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// RevokeToken ends the token with this ID, at once and for good, and reports
// whether there is one.
func (db *DB) RevokeToken(ctx context.Context, id string, actor tasks.Actor) (found bool, err error) {
	hashes, err := db.rdb.ZRange(ctx, tokensIndex, 0, -1).Result()
	if err != nil {
		return false, fmt.Errorf("revoke token: %w", err)
	}
	n := slices.IndexFunc(hashes, func(hash string) bool { return hash[:tokenIDLength] == id })
	if n < 0 {
		return false, nil
	}
	token, found, err := db.token(ctx, hashes[n])
	if err != nil || !found || !token.RevokedAt.IsZero() {
		return found, err
	}
	e := actor.Entry(tasks.ActionRevokeToken)
	e.Tenant, e.Detail = token.Tenant, "token "+id
	err = db.Decide(ctx, e, func(ctx context.Context) error {
		done, err := revokeScript.Run(ctx, db.rdb, []string{tokenKey(hashes[n])}, tokenMemory.Milliseconds()).Int()
		if err != nil {
			return fmt.Errorf("revoke token: %w", err)
		}
		if found = done >= 0; done != 1 {
			return errUnchanged
		}
		return nil
	})
	return found, err
}
