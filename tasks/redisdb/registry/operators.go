package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
	"batchreset/tasks/seal"
)

// operatorsKey is a hash of operators by name, each in JSON.
const operatorsKey = "reset:operators"

// firstKey are links that make the first operator: the hashes of their secrets, by when
// their time is over. The braces put it into the slot of operatorsKey.
const firstKey = "reset:first:{" + operatorsKey + "}"

// Operators are those who may log in to the site, and their sessions.
type Operators struct {
	redis   *wire.Client
	audit   *Audit
	leftOut *codec.LeftOut
	seals   *seal.Keys
	forced  bool
}

// NewOperators makes Operators. seals seal the secrets of second factors; nil: they are kept as they are.
func NewOperators(client *wire.Client, audit *Audit, leftOut *codec.LeftOut, seals *seal.Keys) *Operators {
	return &Operators{redis: client, audit: audit, leftOut: leftOut, seals: seals}
}

// Forced returns operators of whom even the last admin can be removed and have another role.
func (r *Operators) Forced() *Operators {
	forced := *r
	forced.forced = true
	return &forced
}

// force is the argument of the scripts that look after the last admin.
func (r *Operators) force() int {
	if r.forced {
		return 1
	}
	return 0
}

// storedOperator is an operator as Redis has it. lua/lib/admins.lua reads its role and its hash.
type storedOperator struct {
	tasks.Operator
	Hash string `json:"hash"`
	// Invite is the hash of a secret with which they choose a password, until InvitedUntil.
	Invite string        `json:"invite,omitempty"`
	Factor *secondFactor `json:"totp,omitempty"`
}

// encode puts together what Redis keeps.
func (o storedOperator) encode() ([]byte, error) {
	o.Hash = o.PasswordHash
	return json.Marshal(o)
}

// mayNotWrite says in our words that Redis does not let this process write operators.
func mayNotWrite(err error) error {
	if err != nil && strings.Contains(err.Error(), "NOPERM") {
		return tasks.ErrOperatorsReadOnly
	}
	return err
}

// Add adds an operator, unless there is one with this name.
func (r *Operators) Add(ctx context.Context, o tasks.Operator, actor tasks.Actor) (added bool, err error) {
	return r.add(ctx, storedOperator{Operator: o}, aboutOperator(actor, tasks.ActionAddOperator, o))
}

// AddInvited is Add for an operator who has no password yet, and chooses one with the secret of a link, for
// a while: see Welcome. The secret itself is not stored.
func (r *Operators) AddInvited(ctx context.Context, o tasks.Operator, secret string, lasts time.Duration, actor tasks.Actor) (added bool, err error) {
	o.PasswordHash = ""
	o.InvitedUntil = tasks.FromMillis(r.redis.Now().Add(lasts).UnixMilli())
	e := aboutOperator(actor, tasks.ActionAddOperator, o)
	e.Detail += ", with a link"
	return r.add(ctx, storedOperator{Operator: o, Invite: hashToken(secret)}, e)
}

func (r *Operators) add(ctx context.Context, o storedOperator, e tasks.AuditEntry) (added bool, err error) {
	if _, found, err := r.Operator(ctx, o.Name); err != nil || found {
		return false, err
	}
	err = r.decide(ctx, e, o, func(ctx context.Context, raw []byte) error {
		done, err := addScript.Run(ctx, r.redis, []string{operatorsKey, firstKey}, o.Name, raw).Int()
		if added = done == 1; err == nil && !added {
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
	err = r.decide(ctx, aboutOperator(actor, tasks.ActionAddOperator, o), storedOperator{Operator: o}, func(ctx context.Context, raw []byte) error {
		done, err := firstScript.Run(ctx, r.redis, []string{operatorsKey, firstKey}, hashToken(secret), r.redis.Now().UnixMilli(), o.Name, raw).Int()
		if added = done == 1; err == nil && !added {
			err = ErrUnchanged
		}
		return err
	})
	return added, err
}

// SetPassword gives the operator with this name another password, which ends the operator's sessions
// and any link with which they could choose one. It reports whether there is one.
func (r *Operators) SetPassword(ctx context.Context, name, hash string, actor tasks.Actor) (found bool, err error) {
	return r.change(ctx, actor.Entry(tasks.ActionOperatorPassword), name, func(o *storedOperator) error {
		o.setPassword(hash)
		return nil
	})
}

// setPassword uses up a link.
func (o *storedOperator) setPassword(hash string) {
	o.PasswordHash, o.Invite, o.InvitedUntil = hash, "", tasks.Time{}
}

// Invite takes the password of the operator with this name, which ends the sessions, and has them choose
// another one with the secret of a link, for a while: see Welcome. It reports whether there is one. Errors:
// tasks.ErrLastAdmin.
func (r *Operators) Invite(ctx context.Context, name, secret string, lasts time.Duration, actor tasks.Actor) (found bool, err error) {
	until := tasks.FromMillis(r.redis.Now().Add(lasts).UnixMilli())
	return r.change(ctx, actor.Entry(tasks.ActionInviteOperator), name, func(o *storedOperator) error {
		o.PasswordHash, o.Invite, o.InvitedUntil = "", hashToken(secret), until
		return nil
	})
}

// Welcomed reports whether secret lets the operator with this name choose a password.
func (r *Operators) Welcomed(ctx context.Context, name, secret string) (bool, error) {
	raw, found, err := r.stored(ctx, name)
	if err != nil || !found {
		return false, err
	}
	o, err := decodeOperator(raw)
	return err == nil && o.welcomes(secret, r.redis.Now()), err
}

func (o storedOperator) welcomes(secret string, now time.Time) bool {
	return o.Invite != "" && o.Invite == hashToken(secret) && now.Before(o.InvitedUntil.Time)
}

// Welcome gives the operator with this name a password, if secret is that of a link which lets them choose
// one. Then it reports so, and the secret is good for nothing any more.
func (r *Operators) Welcome(ctx context.Context, name, secret, hash string, actor tasks.Actor) (welcomed bool, err error) {
	found, err := r.change(ctx, actor.Entry(tasks.ActionOperatorPassword), name, func(o *storedOperator) error {
		if welcomed = o.welcomes(secret, r.redis.Now()); welcomed {
			o.setPassword(hash)
		}
		return nil
	})
	return found && welcomed, err
}

// SetRole gives the operator with this name another role, which ends the operator's sessions.
// It reports whether there is one. Errors: tasks.ErrLastAdmin.
func (r *Operators) SetRole(ctx context.Context, name string, role tasks.Role, actor tasks.Actor) (found bool, err error) {
	return r.change(ctx, actor.Entry(tasks.ActionOperatorRole), name, func(o *storedOperator) error {
		o.Role = role
		return nil
	})
}

// change changes an operator, again if somebody else was faster: what is written must not undo
// another change, and above all no removal. Sessions that this ends are gone for good, also if a later change makes the
// operator what they were. Errors: tasks.ErrLastAdmin, and those of change.
func (r *Operators) change(ctx context.Context, e tasks.AuditEntry, name string, change func(*storedOperator) error) (found bool, err error) {
	for done := false; !done; {
		seen, found, err := r.stored(ctx, name)
		if err != nil || !found {
			return found, err
		}
		o, err := decodeOperator(seen)
		if err != nil {
			return true, err
		}
		before, err := o.encode()
		if err != nil {
			return true, err
		}
		if err := change(&o); err != nil {
			return true, err
		}
		if after, err := o.encode(); err != nil || string(after) == string(before) {
			return true, err
		}
		about := aboutOperator(tasks.Actor{}, e.Action, o.Operator)
		e.Detail = about.Detail
		if err := r.decide(ctx, e, o, func(ctx context.Context, raw []byte) error {
			n, err := changeScript.Run(ctx, r.redis, []string{operatorsKey}, name, seen, raw, r.force()).Int()
			if done = n == 1; err == nil && !done {
				err = ErrUnchanged
			}
			if n < 0 {
				err = tasks.ErrLastAdmin
			}
			return err
		}); err != nil {
			return true, err
		}
	}
	return true, r.dropEnded(ctx, name)
}

func aboutOperator(actor tasks.Actor, action tasks.Action, o tasks.Operator) tasks.AuditEntry {
	e := actor.Entry(action)
	e.Detail = o.Name + " as " + string(o.Role)
	return e
}

func (r *Operators) decide(ctx context.Context, e tasks.AuditEntry, o storedOperator, act func(context.Context, []byte) error) error {
	raw, err := o.encode()
	if err != nil {
		return err
	}
	return r.audit.Decide(ctx, e, func(ctx context.Context) error { return mayNotWrite(act(ctx, raw)) })
}

// Remove removes an operator, and ends the sessions of everybody with this name. It reports whether there
// was one. Errors: tasks.ErrLastAdmin.
func (r *Operators) Remove(ctx context.Context, name string, actor tasks.Actor) (found bool, err error) {
	if found, err = r.redis.HExists(ctx, operatorsKey, name).Result(); err != nil || !found {
		return false, err
	}
	e := actor.Entry(tasks.ActionRemoveOperator)
	e.Detail = name
	err = r.audit.Decide(ctx, e, func(ctx context.Context) error {
		n, err := removeScript.Run(ctx, r.redis, []string{operatorsKey}, name, r.force()).Int()
		switch {
		case err != nil:
			return mayNotWrite(err)
		case n < 0:
			return tasks.ErrLastAdmin
		case n == 0:
			found = false
			return ErrUnchanged
		}
		_, err = r.endAll(ctx, name, "", "")
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
	stored, err := decodeOperator(raw)
	return stored.Operator, err == nil, err
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
			operators = append(operators, o.Operator)
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

func decodeOperator(raw string) (storedOperator, error) {
	var o storedOperator
	if err := json.Unmarshal([]byte(raw), &o); err != nil {
		return storedOperator{}, fmt.Errorf("read operator: %w", err)
	}
	o.PasswordHash = o.Hash
	o.SecondFactor, o.Enrolled = tasks.Time{}, ""
	if o.Factor != nil {
		o.SecondFactor, o.Enrolled = o.Factor.Since, o.Factor.ID
	}
	return o, nil
}
