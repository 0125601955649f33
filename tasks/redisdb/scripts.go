package redisdb

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

//go:embed lua/confirm.lua
var confirmLua string

//go:embed lua/brake.lua
var brakeLua string

//go:embed lua/record.lua
var recordLua string

//go:embed lua/stop.lua
var stopLua string

//go:embed lua/remember.lua
var rememberLua string

//go:embed lua/busy.lua
var busyLua string

//go:embed lua/lost.lua
var lostLua string

//go:embed lua/send.lua
var sendLua string

//go:embed lua/look.lua
var lookLua string

//go:embed lua/drop.lua
var dropLua string

//go:embed lua/beat.lua
var beatLua string

//go:embed lua/create.lua
var createLua string

//go:embed lua/instance.lua
var instanceLua string

//go:embed lua/many.lua
var manyLua string

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

//go:embed lua/claim.lua
var claimLua string

//go:embed lua/reschedule.lua
var rescheduleLua string

//go:embed lua/lead.lua
var leadLua string

//go:embed lua/lock.lua
var lockLua string

//go:embed lua/quota.lua
var quotaLua string

//go:embed lua/accept.lua
var acceptLua string

//go:embed lua/release.lua
var releaseLua string

//go:embed lua/ended.lua
var endedLua string

//go:embed lua/spend.lua
var spendLua string

//go:embed lua/used.lua
var usedLua string

//go:embed lua/pace.lua
var paceLua string

//go:embed lua/policy.lua
var policyLua string

//go:embed lua/halt.lua
var haltLua string

//go:embed lua/revoke.lua
var revokeLua string

//go:embed lua/session.lua
var sessionLua string

//go:embed lua/invite.lua
var inviteLua string

//go:embed lua/first.lua
var firstLua string

//go:embed lua/register.lua
var registerLua string

//go:embed lua/protect.lua
var protectLua string

//go:embed lua/unlock.lua
var unlockLua string

//go:embed lua/told.lua
var toldLua string

//go:embed lua/endpoint.lua
var endpointLua string

//go:embed lua/rotate.lua
var rotateLua string

//go:embed lua/report.lua
var reportLua string

var (
	createScript     = redis.NewScript(createLua)
	beginScript      = many(beginLua, recordLua, rememberLua, lostLua, instanceLua)
	sendScript       = many(sendLua, recordLua, instanceLua)
	lookScript       = redis.NewScript(instanceLua + lookLua)
	checkpointScript = redis.NewScript(brakeLua + recordLua + checkpointLua)
	finishScript     = many(brakeLua+finishLua, recordLua, rememberLua, busyLua, stopLua)
	waitScript       = redis.NewScript(recordLua + busyLua + waitLua)
	abandonScript    = redis.NewScript(recordLua + rememberLua + lostLua + stopLua + abandonLua)
	deliverScript    = redis.NewScript(recordLua + rememberLua + lostLua + deliverLua)
	cancelScript     = redis.NewScript(brakeLua + recordLua + stopLua + cancelLua)
	reopenScript     = redis.NewScript(recordLua + stopLua + reopenLua)
	confirmScript    = redis.NewScript(brakeLua + confirmLua)
	upgradeScript    = redis.NewScript(brakeLua + recordLua + upgradeLua)
	claimScript      = redis.NewScript(claimLua)
	beatScript       = redis.NewScript(beatLua)
	rescheduleScript = redis.NewScript(rescheduleLua)
	leadScript       = redis.NewScript(leadLua)
	lockScript       = redis.NewScript(instanceLua + lockLua)
	unlockScript     = redis.NewScript(unlockLua)
	registerScript   = redis.NewScript(registerLua)
	dropScript       = redis.NewScript(dropLua)
	protectScript    = redis.NewScript(brakeLua + protectLua)
	acceptScript     = redis.NewScript(quotaLua + acceptLua)
	endedScript      = redis.NewScript(endedLua)
	releaseScript    = redis.NewScript(releaseLua)
	spendScript      = redis.NewScript(quotaLua + spendLua)
	usedScript       = redis.NewScript(quotaLua + usedLua)
	policyScript     = redis.NewScript(policyLua)
	haltScript       = redis.NewScript(brakeLua + haltLua)
	revokeScript     = redis.NewScript(brakeLua + revokeLua)
	sessionScript    = redis.NewScript(brakeLua + sessionLua)
	inviteScript     = redis.NewScript(inviteLua)
	firstScript      = redis.NewScript(firstLua)
	paceScript       = redis.NewScript(paceLua)
	toldScript       = redis.NewScript(toldLua)
	endpointScript   = redis.NewScript(endpointLua)
	rotateScript     = redis.NewScript(rotateLua)
	reportScript     = redis.NewScript(reportLua)
)

// many makes a script that runs another one, after its preludes, for many items at once:
// they share the call, its answer, and the functions of the preludes, which are made anew
// for each run.
func many(script string, preludes ...string) *redis.Script {
	return redis.NewScript("local all_keys, all_args = KEYS, ARGV\nlocal KEYS, ARGV\n" +
		strings.Join(preludes, "") + "local function one()\n" + script + "end\n" + manyLua)
}

// refusals turns what the scripts answer into named results.
var refusals = map[string]tasks.Refusal{
	"busy":        tasks.InstanceBusy,
	"not allowed": tasks.NotAllowed,
	"gone":        tasks.JobGone,
	"instance":    tasks.WrongInstance,
	"final":       tasks.AlreadyFinal,
	"delivery":    tasks.OldDelivery,
	"late":        tasks.TooLate,
	"stopped":     tasks.JobStopped,
	"token":       tasks.WrongToken,
	"given up":    tasks.WrongToken,
}

// errOldVersion says that upgrade.lua must rewrite the record first.
var errOldVersion = errors.New("the record is of an older version")

// answered runs a script that answers {reason, …}, where an empty reason means
// that it was done, and returns what follows.
func (db *DB) answered(ctx context.Context, script *redis.Script, key string, args ...any) ([]any, error) {
	return db.current(ctx, key, func() ([]any, error) {
		return reasoned(db.commit(ctx, script, []string{key}, args...).Slice())
	})
}

// current runs a script again if the record has to be brought to the current version
// first.
func (db *DB) current(ctx context.Context, key string, run func() ([]any, error)) ([]any, error) {
	answer, err := run()
	if errors.Is(err, errOldVersion) {
		if err := db.commit(ctx, upgradeScript, []string{key}).Err(); err != nil {
			return nil, err
		}
		return run()
	}
	return answer, err
}

// each runs a script that many made on one item. All keys must be on one node.
func (db *DB) each(ctx context.Context, script *redis.Script, keys []string, args ...any) ([]any, error) {
	var answer any
	var err error
	if !db.separateLock {
		answer, err = db.group.run(ctx, script, keys, args)
	} else {
		var answers []any
		answers, err = db.commit(ctx, script, keys, append([]any{len(keys), len(args)}, args...)...).Slice()
		if len(answers) == 1 {
			answer = answers[0]
		}
	}
	if err != nil {
		return nil, brokenBy(err)
	}
	a, ok := answer.([]any)
	if !ok {
		return nil, fmt.Errorf("a script answered %v", answer)
	}
	return a, nil
}

// luaSays are what Lua, its JSON decoder and Redis say of a value that is not what a script
// takes it for. What Redis says of itself (OOM, READONLY, …) comes through scripts, too.
var luaSays = []string{"attempt to ", "bad argument #", "Expected value but found", "Expected object key", "WRONGTYPE "}

// brokenBy tells the error of a script that stumbled over what a record has in it from one that
// another try may be spared.
func brokenBy(err error) error {
	if err == nil || !answered(err) {
		return err
	}
	for _, text := range luaSays {
		if strings.Contains(err.Error(), text) {
			return fmt.Errorf("%w: %w", tasks.ErrBrokenRecord, err)
		}
	}
	return err
}

// reasoned reads the answer {reason, …} of a script.
func reasoned(answer []any, err error) ([]any, error) {
	if err != nil {
		return nil, brokenBy(err)
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
		return nil, errOldVersion
	case "early":
		if len(answer) == 2 {
			return nil, &tasks.EarlyError{Wait: time.Duration(number(answer[1])) * time.Millisecond}
		}
	case "running":
		if len(answer) == 3 {
			return nil, &runningError{token: text(answer[1]), lost: int(number(answer[2]))}
		}
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
