package registry

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// wrongKey counts the wrong signatures of an access key that came from a network.
func wrongKey(access, network string) string { return "reset:caller:wrong:{" + access + "}:" + network }

// signatureKey is there as long as a signature that was taken must not be taken again.
func signatureKey(mac []byte) string {
	return "reset:caller:signature:{" + hex.EncodeToString(mac) + "}"
}

// lastUsed has when each token and access key was used last, by its handle.
const lastUsed = "reset:caller:used"

// AddKey makes an access key and its secret a credential with the tenant, owner, scopes and limits of n.
// ttl 0 means that it does not expire. The secret is stored, because signatures are checked with it.
func (t *Tokens) AddKey(ctx context.Context, access, secret string, n tasks.Token, ttl time.Duration, actor tasks.Actor) (token tasks.Token, err error) {
	n.Hash = keyHandle + access
	err = t.audit.Decide(ctx, aboutToken(actor, tasks.ActionAddToken, n), func(ctx context.Context) error {
		token, err = t.add(ctx, tasks.AccessKey{Token: n, Secret: secret}, ttl)
		return err
	})
	return token, err
}

// AccessKey looks up an access key for somebody who comes from a network, ended ones too. Errors:
// tasks.BadToken if there is none.
func (t *Tokens) AccessKey(ctx context.Context, access, network string) (tasks.AccessKey, error) {
	handle := keyHandle + access
	pipe := t.redis.Pipeline() // no script: who may only read the key may not run one on it
	fields, wrong := pipe.HGetAll(ctx, entryKey(handle)), pipe.Get(ctx, wrongKey(access, network))
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return tasks.AccessKey{}, fmt.Errorf("read access key: %w", err)
	}
	h := fields.Val()
	if len(h) == 0 {
		return tasks.AccessKey{}, tasks.NotAuthenticated(fmt.Sprintf("Get secretKey failed,ak:%.40s,err:ak not exist", access))
	}
	token, err := decodeToken(handle, h)
	if err != nil {
		return tasks.AccessKey{}, err
	}
	secret, stale, err := t.seals.Open(h["secret"], handle)
	if err != nil {
		return tasks.AccessKey{}, fmt.Errorf("access key %s: %w", access, err)
	}
	if stale {
		_, _ = reseal(ctx, t.redis, entryKey(handle), "secret", h["secret"], t.seals.Seal(secret, handle)) // SealAll says if this cannot be
	}
	n, _ := wrong.Int() // 0 if there is no count
	return tasks.AccessKey{Token: token, Secret: secret, Wrong: n}, nil
}

// WrongSignature counts one that was made with an access key and came from a network.
func (t *Tokens) WrongSignature(ctx context.Context, access, network string) error {
	err := t.redis.Run(ctx, wrongScript, []string{wrongKey(access, network)}, tasks.WrongSignaturesLock.Milliseconds()).Err()
	return wrapped("count a wrong signature", err)
}

// RightSignature ends the count.
func (t *Tokens) RightSignature(ctx context.Context, access, network string) error {
	return wrapped("forget wrong signatures", t.redis.Run(ctx, wrongScript, []string{wrongKey(access, network)}, "").Err())
}

// TakeSignature reports whether a signature comes for the first time, and remembers it for so long.
func (t *Tokens) TakeSignature(ctx context.Context, mac []byte, lasts time.Duration) (first bool, err error) {
	cmd := redis.NewStringCmd(ctx, "set", signatureKey(mac), 1, "px", max(1, lasts.Milliseconds()), "nx")
	switch err := t.redis.Grouped(ctx, cmd); {
	case errors.Is(err, redis.Nil):
		return false, nil
	case err != nil:
		return false, OrFull(fmt.Errorf("remember a signature: %w", err))
	}
	return true, nil
}

// NoteUse notes when tokens and access keys were used last, by their handles.
func (t *Tokens) NoteUse(ctx context.Context, used map[string]tasks.Time) error {
	fields := make(map[string]any, len(used))
	for handle, at := range used {
		fields[handle] = at.UnixMilli()
	}
	return wrapped("note the use of tokens", t.redis.HSet(ctx, lastUsed, fields).Err())
}

// SealAll seals the secrets of access keys that are not sealed with the newest key yet.
func (t *Tokens) SealAll(ctx context.Context) (Sealing, error) {
	all, err := t.kept(ctx, 0)
	if err != nil {
		return Sealing{}, err
	}
	return sealAll(all, t.seals, func(k kept, sealed string) (bool, error) {
		return reseal(ctx, t.redis, k.key, k.field, k.text, sealed)
	})
}

// keptPage is how many access keys are read at once.
const keptPage = 500

// kept are the secrets of access keys, of the newest ones; 0: of all.
func (t *Tokens) kept(ctx context.Context, newest int) (all []kept, err error) {
	from := int64(0)
	if newest > 0 {
		from = -int64(newest)
	}
	names, err := t.redis.ZRange(ctx, keysIndex, from, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("read access keys: %w", err)
	}
	now := t.redis.Now()
	for page := range slices.Chunk(names, keptPage) {
		pipe := t.redis.Pipeline()
		read := make([]*redis.SliceCmd, len(page))
		for i, access := range page {
			read[i] = pipe.HMGet(ctx, entryKey(keyHandle+access), "secret", "expires", "revoked")
		}
		_, _ = pipe.Exec(ctx) // each carries its own error
		for i, access := range page {
			h, err := read[i].Result()
			if err != nil {
				if err := t.leftOut.Note("access key "+access, err); err != nil {
					return nil, fmt.Errorf("read access keys: %w", err)
				}
				continue
			}
			text, there := h[0].(string)
			if !there {
				continue
			}
			expires, _ := h[1].(string)
			ends := codec.Millis(expires)
			all = append(all, kept{
				kind: "access key", id: access, key: entryKey(keyHandle + access), field: "secret", place: keyHandle + access, text: text,
				ended: h[2] != nil || !ends.IsZero() && !now.Before(ends.Time),
			})
		}
	}
	return all, nil
}
