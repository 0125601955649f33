package redisdb

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/runs"
	"batchreset/tasks/redisdb/views"
	"batchreset/tasks/redisdb/wire"
)

// Role is what a process does with Redis, and so what its Redis user must be allowed to do.
// deploy/redis/users.acl has a user for each, who may do little more.
type Role string

// The roles. Commands have none: they fail with what Redis says.
const (
	RoleAPI    Role = "api"
	RoleWorker Role = "worker"
)

// sample is a key that every role writes: a job record.
const sample = "reset:{rights}"

// bothWrite, roleWrites and bothRead have one key for each pattern of keys.
var (
	bothWrite = []string{
		sample, "reset:open", "reset:jobs", "reset:jobs:{rights}", "reset:instances:1", "reset:audit", "reset:failures", "reset:failures:{rights}", "reset:activity:1", "reset:census", "reset:census:turn",
		"reset:accepted:{rights}", "reset:direct:{rights}", "reset:held:{rights}", "reset:begun:{rights}", "reset:policies", "reset:runs", "reset:run:{rights}", "reset:run:{rights}:list", "reset:session:{rights}",
		"asynq:queues", "asynq:servers", "asynq:{reset-0}:pending", "asynq:{webhooks}:pending",
	}
	roleWrites = map[Role][]string{
		RoleAPI: {"reset:runs:{rights}", "reset:pace:{rights}", "reset:ticket-key", "reset:caller:used", "reset:worker:{rights}:order"},
		RoleWorker: {
			"reset:sweeper", "reset:workers", "reset:worker:{rights}", "reset:worker:{rights}:order", "reset:lock:{rights}", "reset:lock:{rights}:token",
			"reset:fleet:{rights}", "reset:fleet:indexed", "reset:webhook:{rights}:ep_1",
		},
	}
	bothRead = []string{
		"reset:tokens", "reset:token:{rights}", "reset:keys", "reset:key:{rights}", "reset:fleet", "reset:fleet:{rights}", "reset:webhooks", "reset:webhook:{rights}",
		"reset:webhook:{rights}:ep_1", "reset:operators", "reset:workers", "reset:worker:{rights}", "reset:lock:{rights}", "reset:jobs", "reset:instances:1",
	}
	channels = []string{wire.EnqueuedChannel, views.FinishedChannel, runs.Channel, "asynq:cancel"}
)

// commands are those of ours, of our scripts, and of asynq with its dashboard, each in a form
// that could be sent, about a key in place of "@".
var commands = strings.Split(`PING|TIME|INFO|EVALSHA x 1 @|DEL @|EXISTS @|EXPIRE @ 1|EXPIREAT @ 1|PEXPIRE @ 1|PERSIST @|PTTL @|TTL @|`+
	`GET @|SET @ v|SETNX @ v|SETEX @ 1 v|MGET @|RENAME @ @|INCR @|`+
	`HGET @ f|HGETALL @|HMGET @ f|HVALS @|HLEN @|HEXISTS @ f|HSCAN @ 0|HSET @ f v|HSETNX @ f v|HDEL @ f|HINCRBY @ f 1|`+
	`SADD @ m|SREM @ m|SMEMBERS @|SISMEMBER @ m|SCARD @|LLEN @|LINDEX @ 0|LRANGE @ 0 1|LPUSH @ v|RPUSH @ v|LREM @ 1 v|LTRIM @ 0 1|RPOPLPUSH @ @|`+
	`ZADD @ 1 m|ZREM @ m|ZCARD @|ZSCORE @ m|ZMSCORE @ m|ZCOUNT @ 0 1|ZRANGE @ 0 1|ZREVRANGE @ 0 1|ZRANGEBYSCORE @ 0 1|ZREVRANGEBYSCORE @ 1 0|ZRANGEBYLEX @ - +|`+
	`ZREMRANGEBYSCORE @ 0 1|ZREMRANGEBYRANK @ 0 1|ZSCAN @ 0|XADD @ * f v|XRANGE @ - +|XREVRANGE @ + -|XDEL @ 1|MEMORY USAGE @`, "|")

// right is something that Redis must let a process do: a command that could be sent, and what
// it stands for.
type right struct{ command, name string }

// rightsOf are what processes with these roles need.
func rightsOf(roles []Role, replicas bool) []right {
	var writes []string
	for _, role := range roles {
		writes = append(writes, roleWrites[role]...)
	}
	var rights []right
	for _, key := range append(slices.Clone(bothWrite), writes...) {
		rights = append(rights, right{write(key), "write keys like " + key})
	}
	for _, key := range bothRead {
		if !slices.Contains(writes, key) {
			rights = append(rights, right{read(key), "read keys like " + key})
		}
	}
	for _, c := range channels {
		rights = append(rights, right{"PUBLISH " + c + " x", "publish to the channel " + c}, right{"SUBSCRIBE " + c, "subscribe to the channel " + c})
	}
	for _, c := range commands {
		name, _, _ := strings.Cut(c, " ")
		rights = append(rights, right{strings.ReplaceAll(c, "@", sample), "run " + name})
	}
	if replicas {
		rights = append(rights, right{"WAIT 0 1", "run WAIT"})
	}
	return rights
}

// CheckRights returns an error that names everything that a role has to do and that the user of the
// connection must not. A Redis before 7.0 does not tell.
func (db *DB) CheckRights(ctx context.Context, role Role) error {
	return sayable(db.Redis.ForEachPrimary(ctx, func(ctx context.Context, node redis.Cmdable, _ string) error {
		return db.checkRights(ctx, node, role)
	}))
}

// checkRights returns an error that names everything that the roles have to do and that the
// user of the connection must not.
func (db *DB) checkRights(ctx context.Context, rdb redis.Cmdable, roles ...Role) error {
	if len(roles) == 0 {
		return nil
	}
	rights := rightsOf(roles, db.opts.CommitReplicas > 0)
	asked := make([]any, len(rights))
	for i, r := range rights {
		asked[i] = r.command
	}
	barred, err := rightsScript.Eval(ctx, rdb, nil, asked...).StringSlice()
	if err != nil {
		return fmt.Errorf("look at the rights of the Redis user: %w", err)
	}
	if len(barred) == 0 {
		return nil
	}
	missing := missingOf(rights, barred)
	return tasks.Errorf(tasks.Internal, "the Redis user %q must not %s; deploy/redis/users.acl has the rights that it needs", db.Redis.User(), strings.Join(missing, ", nor "))
}

// missingOf names the barred ones, but those that only follow: no command may be run on a key
// that is barred, and no key be read by a command that is.
func missingOf(rights []right, barred []string) (names []string) {
	noSample := slices.Contains(barred, write(sample))
	noRead := slices.Contains(barred, read(sample))
	for _, r := range rights {
		follows := noSample && r.command != write(sample) && strings.Contains(r.command, " "+sample) ||
			noRead && r.command != read(sample) && strings.HasPrefix(r.command, read(""))
		if slices.Contains(barred, r.command) && !follows {
			names = append(names, r.name)
		}
	}
	return names
}

func write(key string) string { return "EVAL x 1 " + key } // Redis takes it for the worst
func read(key string) string  { return "GET " + key }
