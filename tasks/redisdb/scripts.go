package redisdb

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

//go:embed lua/record.lua
var recordLua string

//go:embed lua/stop.lua
var stopLua string

//go:embed lua/remember.lua
var rememberLua string

//go:embed lua/create.lua
var createLua string

//go:embed lua/begin.lua
var beginLua string

//go:embed lua/checkpoint.lua
var checkpointLua string

//go:embed lua/finish.lua
var finishLua string

//go:embed lua/wait.lua
var waitLua string

//go:embed lua/abandon.lua
var abandonLua string

//go:embed lua/deliver.lua
var deliverLua string

//go:embed lua/cancel.lua
var cancelLua string

//go:embed lua/reopen.lua
var reopenLua string

//go:embed lua/upgrade.lua
var upgradeLua string

//go:embed lua/settle.lua
var settleLua string

//go:embed lua/lead.lua
var leadLua string

//go:embed lua/lock.lua
var lockLua string

//go:embed lua/unlock.lua
var unlockLua string

var (
	createScript     = redis.NewScript(createLua)
	beginScript      = redis.NewScript(recordLua + rememberLua + beginLua)
	checkpointScript = redis.NewScript(recordLua + checkpointLua)
	finishScript     = redis.NewScript(recordLua + rememberLua + stopLua + finishLua)
	waitScript       = redis.NewScript(recordLua + waitLua)
	abandonScript    = redis.NewScript(recordLua + rememberLua + stopLua + abandonLua)
	deliverScript    = redis.NewScript(recordLua + deliverLua)
	cancelScript     = redis.NewScript(recordLua + stopLua + cancelLua)
	reopenScript     = redis.NewScript(recordLua + stopLua + reopenLua)
	upgradeScript    = redis.NewScript(recordLua + upgradeLua)
	settleScript     = redis.NewScript(settleLua)
	leadScript       = redis.NewScript(leadLua)
	lockScript       = redis.NewScript(lockLua)
	unlockScript     = redis.NewScript(unlockLua)
)

// refusals turns what the scripts answer into named results.
var refusals = map[string]tasks.Refusal{
	"gone":     tasks.JobGone,
	"instance": tasks.WrongInstance,
	"final":    tasks.AlreadyFinal,
	"delivery": tasks.OldDelivery,
	"late":     tasks.TooLate,
	"stopped":  tasks.JobStopped,
}

// answered runs a script that answers {reason, …}, where an empty reason means
// that it was done, and returns what follows.
func (db *DB) answered(ctx context.Context, script *redis.Script, key string, args ...any) ([]any, error) {
	answer, err := db.commit(ctx, script, []string{key}, args...).Slice()
	if err != nil {
		return nil, err
	}
	if len(answer) == 0 {
		return nil, errors.New("a script gave an empty answer")
	}
	reason, ok := answer[0].(string)
	if !ok {
		return nil, fmt.Errorf("a script answered %v", answer)
	}
	switch reason {
	case "":
		return answer[1:], nil
	case "upgrade":
		if err := db.commit(ctx, upgradeScript, []string{key}).Err(); err != nil {
			return nil, err
		}
		return db.answered(ctx, script, key, args...)
	}
	refusal, ok := refusals[reason]
	if !ok {
		return nil, fmt.Errorf("a script refused with %q", reason)
	}
	return nil, refusal
}

// number reads an integer from a script's answer.
func number(v any) int64 {
	n, _ := v.(int64)
	return n
}

// text reads a string from a script's answer.
func text(v any) string {
	s, _ := v.(string)
	return s
}
