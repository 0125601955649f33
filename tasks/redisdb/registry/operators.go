package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// operatorsKey is a hash of operators by name, each in JSON.
const operatorsKey = "reset:operators"

// firstKey are links that make the first operator: the hashes of their secrets, by when
// their time is over. The braces put it into the slot of operatorsKey.
const firstKey = "reset:first:{" + operatorsKey + "}"

func sessionKey(secret string) string { return "reset:session:{" + hashToken(secret) + "}" }

const (
	// sessionIdle ends a session that nobody uses, sessionLife every one.
	sessionIdle = time.Hour
	sessionLife = 12 * time.Hour
)

// Operators are those who may log in to the site, and their sessions.
type Operators struct {
	redis   *wire.Client
	audit   *Audit
	leftOut *codec.LeftOut
}

// NewOperators makes Operators.
func NewOperators(client *wire.Client, audit *Audit, leftOut *codec.LeftOut) *Operators {
	return &Operators{client, audit, leftOut}
}

// storedOperator is an operator as Redis has it.
type storedOperator struct {
	tasks.Operator
	Hash string `json:"hash"`
}

// Add adds an operator, unless there is one with this name.
func (r *Operators) Add(ctx context.Context, o tasks.Operator, actor tasks.Actor) (added bool, err error) {
	if _, found, err := r.Operator(ctx, o.Name); err != nil || found {
		return false, err
	}
	err = r.decide(ctx, actor.Entry(tasks.ActionAddOperator), o, func(ctx context.Context, raw []byte) error {
		pipe := r.redis.TxPipeline()
		pipe.HSetNX(ctx, operatorsKey, o.Name, raw)
		stored := pipe.HGet(ctx, operatorsKey, o.Name)
		pipe.Del(ctx, firstKey) // or a link would be good again once all operators are removed
		_, err := pipe.Exec(ctx)
		if added = stored.Val() == string(raw); err == nil && !added {
			err = ErrUnchanged
		}
		return err
	})
	return added, err
}

// InviteFirst makes secret good for making the first operator, for a while. It reports
// whether it did: not if there is an operator. The secret itself is not stored.
func (r *Operators) InviteFirst(ctx context.Context, secret string, lasts time.Duration) (invited bool, err error) {
	// Looked at first, by who must not write operators, too: see deploy/redis/users.acl.
	if has, err := r.HasOperators(ctx); err != nil || has {
		return false, err
	}
	now := r.redis.Now()
	done, err := inviteScript.Run(ctx, r.redis, []string{operatorsKey, firstKey}, hashToken(secret), now.UnixMilli(), now.Add(lasts).UnixMilli()).Int()
	if err != nil {
		return false, fmt.Errorf("add a link for the first operator: %w", err)
	}
	return done == 1, nil
}

// Invited reports whether there is no operator, and secret is good for making the first one.
func (r *Operators) Invited(ctx context.Context, secret string) (bool, error) {
	has, err := r.HasOperators(ctx)
	if err != nil || has {
		return false, err
	}
	ends, err := r.redis.ZScore(ctx, firstKey, hashToken(secret)).Result()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read a link for the first operator: %w", err)
	}
	return float64(r.redis.Now().UnixMilli()) < ends, nil
}

// AddFirstOperator adds an operator if there is none, and secret is good for that. Then it
// reports so, and no secret is any longer.
func (r *Operators) AddFirstOperator(ctx context.Context, secret string, o tasks.Operator, actor tasks.Actor) (added bool, err error) {
	err = r.decide(ctx, actor.Entry(tasks.ActionAddOperator), o, func(ctx context.Context, raw []byte) error {
		done, err := firstScript.Run(ctx, r.redis, []string{operatorsKey, firstKey}, hashToken(secret), r.redis.Now().UnixMilli(), o.Name, raw).Int()
		if added = done == 1; err == nil && !added {
			err = ErrUnchanged
		}
		return err
	})
	return added, err
}

// SetPassword gives the operator with this name another password, which ends the operator's sessions.
// It reports whether there is one.
func (r *Operators) SetPassword(ctx context.Context, name, hash string, actor tasks.Actor) (found bool, err error) {
	return r.change(ctx, actor.Entry(tasks.ActionOperatorPassword), name, func(o *tasks.Operator) { o.PasswordHash = hash })
}

// SetRole gives the operator with this name another role, which ends the operator's sessions.
// It reports whether there is one.
func (r *Operators) SetRole(ctx context.Context, name string, role tasks.Role, actor tasks.Actor) (found bool, err error) {
	return r.change(ctx, actor.Entry(tasks.ActionOperatorRole), name, func(o *tasks.Operator) { o.Role = role })
}

// change changes an operator, again if somebody else was faster: what is written must not undo
// another change, and above all no removal.
func (r *Operators) change(ctx context.Context, e tasks.AuditEntry, name string, change func(*tasks.Operator)) (found bool, err error) {
	for done := false; !done; {
		seen, found, err := r.stored(ctx, name)
		if err != nil || !found {
			return found, err
		}
		o, err := decodeOperator(seen)
		if err != nil {
			return true, err
		}
		before := o
		if change(&o); o == before {
			return true, nil
		}
		if err := r.decide(ctx, e, o, func(ctx context.Context, raw []byte) error {
			n, err := changeScript.Run(ctx, r.redis, []string{operatorsKey}, name, seen, raw).Int()
			if done = n == 1; err == nil && !done {
				err = ErrUnchanged
			}
			return err
		}); err != nil {
			return true, err
		}
	}
	return true, nil
}

func (r *Operators) decide(ctx context.Context, e tasks.AuditEntry, o tasks.Operator, act func(context.Context, []byte) error) error {
	raw, err := json.Marshal(storedOperator{o, o.PasswordHash})
	if err != nil {
		return err
	}
	e.Detail = o.Name + " as " + string(o.Role)
	return r.audit.Decide(ctx, e, func(ctx context.Context) error { return act(ctx, raw) })
}

// Remove removes an operator, which ends the operator's sessions. It reports whether there was
// one.
func (r *Operators) Remove(ctx context.Context, name string, actor tasks.Actor) (found bool, err error) {
	if found, err = r.redis.HExists(ctx, operatorsKey, name).Result(); err != nil || !found {
		return false, err
	}
	e := actor.Entry(tasks.ActionRemoveOperator)
	e.Detail = name
	err = r.audit.Decide(ctx, e, func(ctx context.Context) error {
		n, err := r.redis.HDel(ctx, operatorsKey, name).Result()
		if err == nil && n == 0 {
			found, err = false, ErrUnchanged
		}
		return err
	})
	return found, err
}

// Operator returns the operator with a name, if there is one.
func (r *Operators) Operator(ctx context.Context, name string) (o tasks.Operator, found bool, err error) {
	raw, found, err := r.stored(ctx, name)
	if err != nil || !found {
		return o, false, err
	}
	o, err = decodeOperator(raw)
	return o, err == nil, err
}

// stored returns an operator as Redis has it, if there is one with this name.
func (r *Operators) stored(ctx context.Context, name string) (raw string, found bool, err error) {
	raw, err = r.redis.HGet(ctx, operatorsKey, name).Result()
	switch {
	case errors.Is(err, redis.Nil):
		return "", false, nil
	case err != nil:
		return "", false, fmt.Errorf("read operator: %w", err)
	}
	return raw, true, nil
}

// List returns every operator, by name.
func (r *Operators) List(ctx context.Context) ([]tasks.Operator, error) {
	all, err := r.redis.HGetAll(ctx, operatorsKey).Result()
	if err != nil {
		return nil, fmt.Errorf("list operators: %w", err)
	}
	operators := []tasks.Operator{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		o, err := decodeOperator(all[name])
		if err == nil {
			operators = append(operators, o)
		} else if err := r.leftOut.Note("operator "+name, &codec.Damage{Err: err}); err != nil {
			return nil, err
		}
	}
	return operators, nil
}

// HasOperators reports whether there is an operator.
func (r *Operators) HasOperators(ctx context.Context) (bool, error) {
	n, err := r.redis.HLen(ctx, operatorsKey).Result()
	if err != nil {
		return false, fmt.Errorf("count operators: %w", err)
	}
	return n > 0, nil
}

func decodeOperator(raw string) (tasks.Operator, error) {
	var o storedOperator
	if err := json.Unmarshal([]byte(raw), &o); err != nil {
		return tasks.Operator{}, fmt.Errorf("read operator: %w", err)
	}
	o.PasswordHash = o.Hash
	return o.Operator, nil
}

// AddSession makes secret a session of an operator who comes from an address. It ends with
// the operator's password or role, an hour after its last use, or 12 hours from now. The
// secret itself is not stored.
func (r *Operators) AddSession(ctx context.Context, secret string, o tasks.Operator, from string) error {
	return r.audit.Decide(ctx, sessionEntry(tasks.ActionLogin, o, from), func(ctx context.Context) error {
		if err := sessionScript.Run(ctx, r.redis, []string{sessionKey(secret)}, sessionIdle.Milliseconds(),
			"name", o.Name, "of", sessionOf(o), "until", r.redis.Now().Add(sessionLife).UnixMilli()).Err(); err != nil {
			return fmt.Errorf("add session: %w", err)
		}
		return nil
	})
}

func sessionEntry(action tasks.Action, o tasks.Operator, from string) tasks.AuditEntry {
	e := tasks.Actor{By: "operator " + o.Name, From: from}.Entry(action)
	e.Detail = "as " + string(o.Role)
	return e
}

// sessionOf changes with everything that ends an operator's sessions.
func sessionOf(o tasks.Operator) string { return hashToken(string(o.Role) + " " + o.PasswordHash) }

// Session returns the operator of a session, if it goes on.
func (r *Operators) Session(ctx context.Context, secret string) (o tasks.Operator, found bool, err error) {
	key := sessionKey(secret)
	h, err := r.redis.HGetAll(ctx, key).Result()
	if err != nil {
		return o, false, fmt.Errorf("read session: %w", err)
	}
	if len(h) == 0 || !r.redis.Now().Before(codec.Millis(h["until"]).Time) {
		return o, false, nil
	}
	if o, found, err = r.Operator(ctx, h["name"]); err != nil || !found || sessionOf(o) != h["of"] {
		return tasks.Operator{}, false, err
	}
	if err := r.redis.PExpire(ctx, key, sessionIdle).Err(); err != nil {
		return tasks.Operator{}, false, fmt.Errorf("keep session: %w", err)
	}
	return o, true, nil
}

// EndSession ends a session, if it goes on, for somebody at an address.
func (r *Operators) EndSession(ctx context.Context, secret, from string) error {
	o, found, err := r.Session(ctx, secret)
	if err != nil || !found {
		return err
	}
	return r.audit.Decide(ctx, sessionEntry(tasks.ActionLogout, o, from), func(ctx context.Context) error {
		n, err := r.redis.Del(ctx, sessionKey(secret)).Result()
		if err != nil {
			return fmt.Errorf("end session: %w", err)
		}
		if n == 0 {
			return ErrUnchanged
		}
		return nil
	})
}
