package registry

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// secondFactor is what a log-in asks for after the password, as Redis has it.
type secondFactor struct {
	ID       string     `json:"id"` // tells it from the next one
	Since    tasks.Time `json:"since"`
	Secret   string     `json:"secret"` // sealed, if there are keys
	Recovery []string   `json:"recovery"`
}

// usedKey has what was used of a second factor: the last step, and recovery codes. It is beside the sessions,
// because each log-in writes it, and who lets people log in need not be able to change operators.
func usedKey(name string) string { return peopleKey + ":used:" + name }

// factorPlace is what the secret of a second factor is sealed for.
func factorPlace(name string) string { return "operator:" + name }

// Enrol gives an operator a second factor, in place of any other, which ends the sessions: the secret of
// one-time codes, and recovery codes, which are kept as hashes. It reports whether there is such an operator.
func (r *Operators) Enrol(ctx context.Context, name, secret string, recovery []string, actor tasks.Actor) (found bool, err error) {
	f := secondFactor{ID: rand.Text(), Since: tasks.FromMillis(r.redis.Now().UnixMilli()), Secret: r.seals.Seal(secret, factorPlace(name))}
	for _, code := range recovery {
		f.Recovery = append(f.Recovery, hashToken(code))
	}
	return r.change(ctx, actor.Entry(tasks.ActionSecondFactor), name, func(o *storedOperator) error {
		o.Factor, o.SecondFactor = &f, f.Since
		return nil
	})
}

// Unenrol takes the second factor of an operator, which ends the sessions. It reports whether there is such
// an operator.
func (r *Operators) Unenrol(ctx context.Context, name string, actor tasks.Actor) (found bool, err error) {
	found, err = r.change(ctx, actor.Entry(tasks.ActionNoSecondFactor), name, func(o *storedOperator) error {
		o.Factor, o.SecondFactor = nil, tasks.Time{}
		return nil
	})
	if err == nil && found {
		err = r.redis.Del(ctx, usedKey(name)).Err()
	}
	return found, err
}

// FactorSecret is the secret of an operator's one-time codes. Errors: seal.ErrNotOpened.
func (r *Operators) FactorSecret(ctx context.Context, name string) (secret string, found bool, err error) {
	o, found, err := r.enrolled(ctx, name)
	if err != nil || !found {
		return "", false, err
	}
	secret, _, err = r.seals.Open(o.Factor.Secret, factorPlace(name))
	return secret, err == nil, err
}

func (r *Operators) enrolled(ctx context.Context, name string) (o storedOperator, found bool, err error) {
	raw, found, err := r.stored(ctx, name)
	if err != nil || !found {
		return o, false, err
	}
	o, err = decodeOperator(raw)
	return o, err == nil && o.Factor != nil, err
}

// UseStep reports whether an operator's code of this step of time may be used: not twice, and none from before
// the last one that was.
func (r *Operators) UseStep(ctx context.Context, name string, step int64) (first bool, err error) {
	o, found, err := r.enrolled(ctx, name)
	if err != nil || !found {
		return false, err
	}
	return r.use(ctx, o, "step", step)
}

// UseRecovery reports whether a text is a recovery code of an operator that was not used yet. Then it is now.
func (r *Operators) UseRecovery(ctx context.Context, name, code string) (first bool, err error) {
	o, found, err := r.enrolled(ctx, name)
	if err != nil || !found {
		return false, err
	}
	hash := hashToken(code)
	if !slices.Contains(o.Factor.Recovery, hash) {
		return false, nil
	}
	return r.use(ctx, o, "code", hash)
}

func (r *Operators) use(ctx context.Context, o storedOperator, kind string, what any) (first bool, err error) {
	done, err := useScript.Run(ctx, r.redis, []string{usedKey(o.Name)}, o.Factor.ID, kind, what, rand.Text()).Int()
	if err != nil {
		return false, fmt.Errorf("use a second factor: %w", err)
	}
	return done == 1, nil
}

// RecoveryLeft is how many recovery codes of an operator were not used yet.
func (r *Operators) RecoveryLeft(ctx context.Context, name string) (int, error) {
	o, found, err := r.enrolled(ctx, name)
	if err != nil || !found {
		return 0, err
	}
	used, err := r.redis.HGetAll(ctx, usedKey(name)).Result()
	if err != nil {
		return 0, fmt.Errorf("read a second factor: %w", err)
	}
	left := len(o.Factor.Recovery)
	for _, hash := range o.Factor.Recovery {
		if used["of"] == o.Factor.ID && used["code:"+hash] != "" {
			left--
		}
	}
	return left, nil
}

// SealAll seals the secrets of second factors that are not sealed with the newest key yet.
func (r *Operators) SealAll(ctx context.Context) (Sealing, error) {
	all, err := r.kept(ctx, 0)
	if err != nil {
		return Sealing{}, err
	}
	return sealAll(all, r.seals, func(k kept, sealed string) (bool, error) { return r.sealFactor(ctx, k, sealed) })
}

// kept are the secrets of second factors, so many of them; 0: all.
func (r *Operators) kept(ctx context.Context, most int) (all []kept, err error) {
	raw, err := r.redis.HGetAll(ctx, operatorsKey).Result()
	if err != nil {
		return nil, fmt.Errorf("list operators: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(raw)) {
		o, err := decodeOperator(raw[name])
		if err != nil {
			if err := r.leftOut.Note("operator "+name, &codec.Damage{Err: err}); err != nil {
				return nil, err
			}
			continue
		}
		if o.Factor == nil || o.Factor.Secret == "" {
			continue
		}
		if all = append(all, kept{kind: "second factor of operator", id: name, place: factorPlace(name), text: o.Factor.Secret}); len(all) == most {
			break
		}
	}
	return all, nil
}

// sealFactor writes no entry: nobody may do more or less than before.
func (r *Operators) sealFactor(ctx context.Context, k kept, sealed string) (done bool, err error) {
	seen, found, err := r.stored(ctx, k.id)
	if err != nil || !found {
		return false, err
	}
	o, err := decodeOperator(seen)
	if err != nil {
		return false, err
	}
	if o.Factor == nil || o.Factor.Secret != k.text {
		return false, errChanged
	}
	o.Factor.Secret = sealed
	raw, err := o.encode()
	if err != nil {
		return false, err
	}
	n, err := changeScript.Run(ctx, r.redis, []string{operatorsKey}, k.id, seen, raw, r.force()).Int()
	if err != nil {
		return false, fmt.Errorf("seal a secret: %w", mayNotWrite(err))
	}
	if n != 1 {
		return false, errChanged
	}
	return true, nil
}
