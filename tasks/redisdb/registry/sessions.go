package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

const (
	// sessionIdle ends a session that nobody uses, sessionLife every one. That it is used is written at most every
	// sessionUsed.
	sessionIdle = time.Hour
	sessionLife = 12 * time.Hour
	sessionUsed = 10 * time.Second
	// halfLife is how long somebody who has given the password has for the code.
	halfLife = 5 * time.Minute
	// loginMemory is how long it is known when somebody has logged in.
	loginMemory = 400 * 24 * time.Hour
	// maxAgent is how much is kept of what a browser calls itself, in bytes.
	maxAgent = 160
)

// Who has logged in, all in one slot: their last log-ins as a hash, those names by when, and for each name
// the hashes of the secrets of the sessions, by their end. All begin as the sessions do, which api and worker
// may write: see deploy/redis/users.acl.
const (
	peopleKey = "reset:session:{people}"
	lastKey   = peopleKey + ":last"
)

func sessionKey(secret string) string { return sessionAt(hashToken(secret)) }

func sessionAt(hash string) string { return "reset:session:{" + hash + "}" }

func sessionsOf(name string) string { return peopleKey + ":of:" + name }

// sessionID is what people call the session with this hash of its secret.
func sessionID(hash string) string { return hash[:min(len(hash), 16)] }

// SessionID is the ID of the session with this secret.
func (r *Operators) SessionID(secret string) string { return sessionID(hashToken(secret)) }

// AddSession makes secret a session of an operator. It ends with the operator's password, role or second
// factor, an hour after its last use, or 12 hours from now. That of an issuer's operator keeps the role that
// it began with. The secret itself is not stored.
func (r *Operators) AddSession(ctx context.Context, secret string, o tasks.Operator, visit tasks.Visit) error {
	return r.audit.Decide(ctx, sessionEntry(tasks.ActionLogin, o, visit.From), func(ctx context.Context) error {
		now := r.redis.Now()
		// The index first: a session that is not in it could not be ended.
		if err := r.index(ctx, hashToken(secret), o, visit.From, now, now.Add(sessionLife)); err != nil {
			return err
		}
		fields := []any{
			sessionIdle.Milliseconds(), "name", o.Name, "until", now.Add(sessionLife).UnixMilli(),
			"since", now.UnixMilli(), "from", visit.From, "agent", cut(visit.Agent, maxAgent),
		}
		if o.Issuer == "" {
			fields = append(fields, "of", sessionOf(o))
		} else { // older versions, which know no issuers, find no operator with this hash
			fields = append(fields, "of", "issuer", "issuer", o.Issuer, "settings", o.IssuerSettings, "role", string(o.Role))
		}
		if err := sessionScript.Run(ctx, r.redis, []string{sessionKey(secret)}, fields...).Err(); err != nil {
			return fmt.Errorf("add session: %w", err)
		}
		return nil
	})
}

// cut is the beginning of a text, in whole characters.
func cut(text string, most int) string {
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// index has a session found by the name of its operator.
func (r *Operators) index(ctx context.Context, hash string, o tasks.Operator, from string, since, until time.Time) error {
	last, err := json.Marshal(tasks.LastLogin{At: tasks.FromMillis(since.UnixMilli()), Role: o.Role, Issuer: o.Issuer, From: from})
	if err != nil {
		return err
	}
	now := r.redis.Now()
	if err := loggedInScript.Run(ctx, r.redis, []string{peopleKey, lastKey, sessionsOf(o.Name)},
		o.Name, last, since.UnixMilli(), now.Add(-loginMemory).UnixMilli(), hash, until.UnixMilli(), now.UnixMilli(), sessionLife.Milliseconds()).Err(); err != nil {
		return fmt.Errorf("add session: %w", err)
	}
	return nil
}

func sessionEntry(action tasks.Action, o tasks.Operator, from string) tasks.AuditEntry {
	e := tasks.Actor{By: "operator " + o.Name, From: from}.Entry(action)
	e.Detail = "as " + string(o.Role)
	if o.Issuer != "" {
		e.Detail += ", known by " + o.Issuer
	}
	return e
}

// sessionOf changes with everything that ends an operator's sessions.
func sessionOf(o tasks.Operator) string {
	text := string(o.Role) + " " + o.PasswordHash
	if o.Enrolled != "" {
		text += " " + o.Enrolled
	}
	return hashToken(text)
}

// Session returns the operator of a session, if it goes on. Whether the settings of an issuer still let its
// operator in is for the caller to say: see tasks.Operator.
func (r *Operators) Session(ctx context.Context, secret string) (o tasks.Operator, found bool, err error) {
	key := sessionKey(secret)
	pipe := r.redis.Pipeline()
	stored, left := pipe.HGetAll(ctx, key), pipe.PTTL(ctx, key)
	if _, err := pipe.Exec(ctx); err != nil {
		return o, false, fmt.Errorf("read session: %w", err)
	}
	h := stored.Val()
	if o, found, err = r.owner(ctx, h); err != nil || !found {
		return tasks.Operator{}, false, err
	}
	if h["since"] == "" { // of an older version, which had no index
		until := codec.Millis(h["until"]).Time
		if err := r.index(ctx, hashToken(secret), o, "", until.Add(-sessionLife), until); err != nil {
			return tasks.Operator{}, false, err
		}
		if err := r.redis.HSet(ctx, key, "since", until.Add(-sessionLife).UnixMilli()).Err(); err != nil {
			return tasks.Operator{}, false, fmt.Errorf("keep session: %w", err)
		}
	}
	if left.Val() < sessionIdle-sessionUsed {
		if err := r.redis.PExpire(ctx, key, sessionIdle).Err(); err != nil {
			return tasks.Operator{}, false, fmt.Errorf("keep session: %w", err)
		}
	}
	return o, true, nil
}

// owner is whose session it is, if it goes on.
func (r *Operators) owner(ctx context.Context, h map[string]string) (o tasks.Operator, found bool, err error) {
	if h["name"] == "" || !r.redis.Now().Before(codec.Millis(h["until"]).Time) {
		return o, false, nil
	}
	if h["issuer"] != "" {
		return tasks.Operator{Name: h["name"], Role: tasks.Role(h["role"]), Issuer: h["issuer"], IssuerSettings: h["settings"]}, true, nil
	}
	if o, found, err = r.Operator(ctx, h["name"]); err != nil || !found || sessionOf(o) != h["of"] {
		return tasks.Operator{}, false, err
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
		n, err := r.endAll(ctx, o.Name, sessionID(hashToken(secret)), "")
		if err == nil && n == 0 {
			err = ErrUnchanged
		}
		return err
	})
}

// EndSessions ends the session of an operator that has an ID, or all of them if that is empty, but for the
// one with the secret but, which may be empty. It returns how many that were.
func (r *Operators) EndSessions(ctx context.Context, name, id, but string, actor tasks.Actor) (ended int, err error) {
	e := actor.Entry(tasks.ActionEndSession)
	switch {
	case id != "":
		e.Detail = "session " + id + " of " + name
	case but != "":
		e.Detail = "every other session of " + name
	default:
		e.Detail = "every session of " + name
	}
	err = r.audit.Decide(ctx, e, func(ctx context.Context) error {
		if ended, err = r.endAll(ctx, name, id, but); err == nil && ended == 0 {
			err = ErrUnchanged
		}
		return err
	})
	return ended, err
}

// endAll is EndSessions without an entry.
func (r *Operators) endAll(ctx context.Context, name, id, but string) (ended int, err error) {
	hashes, err := r.redis.ZRange(ctx, sessionsOf(name), 0, -1).Result()
	if err != nil {
		return 0, fmt.Errorf("end sessions: %w", err)
	}
	for _, hash := range hashes {
		if id != "" && sessionID(hash) != id || but != "" && hash == hashToken(but) {
			continue
		}
		n, err := r.drop(ctx, name, hash)
		if err != nil {
			return ended, err
		}
		ended += int(n)
	}
	return ended, nil
}

// dropEnded drops the sessions of a name that do not go on.
func (r *Operators) dropEnded(ctx context.Context, name string) error {
	hashes, err := r.redis.ZRange(ctx, sessionsOf(name), 0, -1).Result()
	if err != nil {
		return fmt.Errorf("end sessions: %w", err)
	}
	for _, hash := range hashes {
		if _, goesOn, err := r.session(ctx, hash); err != nil {
			return err
		} else if goesOn {
			continue
		}
		if _, err := r.drop(ctx, name, hash); err != nil {
			return err
		}
	}
	return nil
}

// drop drops a session, and then its place in the index. It returns how many there were.
func (r *Operators) drop(ctx context.Context, name, hash string) (n int64, err error) {
	if n, err = r.redis.Del(ctx, sessionAt(hash)).Result(); err == nil {
		err = r.redis.ZRem(ctx, sessionsOf(name), hash).Err()
	}
	if err != nil {
		return 0, fmt.Errorf("end session: %w", err)
	}
	return n, nil
}

// LastLogins are the last log-ins of everybody who has logged in lately, by name.
func (r *Operators) LastLogins(ctx context.Context) (map[string]tasks.LastLogin, error) {
	all, err := r.redis.HGetAll(ctx, peopleKey).Result()
	if err != nil {
		return nil, fmt.Errorf("read log-ins: %w", err)
	}
	last := make(map[string]tasks.LastLogin, len(all))
	for name, text := range all {
		var l tasks.LastLogin
		err := json.Unmarshal([]byte(text), &l)
		if err == nil {
			last[name] = l
		} else if err := r.leftOut.Note("last log-in of "+name, &codec.Damage{Err: err}); err != nil {
			return nil, err
		}
	}
	return last, nil
}

// Sessions are the sessions of operators that go on, the newest of each first.
func (r *Operators) Sessions(ctx context.Context, names ...string) ([]tasks.Session, error) {
	all := []tasks.Session{}
	for _, name := range names {
		hashes, err := r.redis.ZRevRange(ctx, sessionsOf(name), 0, -1).Result()
		if err != nil {
			return nil, fmt.Errorf("list sessions: %w", err)
		}
		for _, hash := range hashes {
			s, found, err := r.session(ctx, hash)
			if err != nil {
				return nil, err
			}
			if found && s.Operator == name {
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// session is the session with this hash of its secret, if it goes on.
func (r *Operators) session(ctx context.Context, hash string) (s tasks.Session, found bool, err error) {
	pipe := r.redis.Pipeline()
	fields, left := pipe.HGetAll(ctx, sessionAt(hash)), pipe.PTTL(ctx, sessionAt(hash))
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return s, false, fmt.Errorf("read session: %w", err)
	}
	h := fields.Val()
	o, found, err := r.owner(ctx, h)
	if err != nil || !found {
		return s, false, err
	}
	now := r.redis.Now()
	s = tasks.Session{
		ID: sessionID(hash), Operator: o.Name, Role: o.Role, Issuer: o.Issuer, Visit: tasks.Visit{From: h["from"], Agent: h["agent"]},
		Since: codec.Millis(h["since"]), Until: codec.Millis(h["until"]), LastUsed: tasks.FromMillis(now.UnixMilli()),
	}
	if left.Val() > 0 { // each use gives it an hour: see sessionUsed
		s.LastUsed = tasks.FromMillis(now.Add(left.Val() - sessionIdle).UnixMilli())
	}
	return s, true, nil
}

// AddHalf makes secret good for the second step of an operator's log-in, for five minutes, and as long as the
// password is the same. The secret itself is not stored.
func (r *Operators) AddHalf(ctx context.Context, secret string, o tasks.Operator) error {
	// No session of any version has such fields.
	if err := sessionScript.Run(ctx, r.redis, []string{sessionKey(secret)}, halfLife.Milliseconds(),
		"half", o.Name, "half_of", sessionOf(o), "half_until", r.redis.Now().Add(halfLife).UnixMilli()).Err(); err != nil {
		return fmt.Errorf("begin the second step: %w", err)
	}
	return nil
}

// Half returns the operator who has given the right password, if secret is good for the second step.
func (r *Operators) Half(ctx context.Context, secret string) (o tasks.Operator, found bool, err error) {
	h, err := r.redis.HGetAll(ctx, sessionKey(secret)).Result()
	if err != nil {
		return o, false, fmt.Errorf("read the second step: %w", err)
	}
	until, _ := strconv.ParseInt(h["half_until"], 10, 64)
	if h["half"] == "" || r.redis.Now().UnixMilli() >= until {
		return o, false, nil
	}
	if o, found, err = r.Operator(ctx, h["half"]); err != nil || !found || sessionOf(o) != h["half_of"] {
		return tasks.Operator{}, false, err
	}
	return o, true, nil
}

// EndHalf ends the second step of a log-in.
func (r *Operators) EndHalf(ctx context.Context, secret string) error {
	return r.redis.Del(ctx, sessionKey(secret)).Err()
}
