package redisdb

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

//go:embed lua
var files embed.FS

// What the scripts must call as the program does.
var scripts = wire.NewScripts(files, map[string]string{
	"VERSION":           codec.Version,
	"CANCELLED":         string(tasks.Cancelled),
	"WORKER_LOST":       string(tasks.WorkerLost),
	"TOO_MANY_FAILURES": string(tasks.Stopped),
})

var (
	createScript     = scripts.Script("create")
	beginScript      = scripts.Many("begin")
	sendScript       = scripts.Many("send")
	lookScript       = scripts.Script("look")
	checkpointScript = scripts.Script("checkpoint")
	finishScript     = scripts.Many("finish")
	waitScript       = scripts.Script("wait")
	abandonScript    = scripts.Script("abandon")
	holdScript       = scripts.Script("hold")
	deliverScript    = scripts.Script("deliver")
	cancelScript     = scripts.Script("cancel")
	reopenScript     = scripts.Script("reopen")
	claimScript      = scripts.Script("claim")
	beatScript       = scripts.Script("beat")
	rescheduleScript = scripts.Script("reschedule")
	leadScript       = scripts.Script("lead")
	lockScript       = scripts.Script("lock")
	unlockScript     = scripts.Script("unlock")
	dropScript       = scripts.Script("drop")
	toldScript       = scripts.Script("told")
	rightsScript     = scripts.Script("rights")
	reportScript     = scripts.Script("report")
	orderScript      = scripts.Script("order")
	watchScript      = scripts.Script("watch")
)

// refusals turns what the scripts answer into named results.
var refusals = map[string]tasks.Refusal{
	"busy":        tasks.InstanceBusy,
	"not allowed": tasks.NotAllowed,
	"moved":       tasks.Moved,
	"rerouted":    tasks.Rerouted,
	"reassigned":  tasks.Reassigned,
	"gone":        tasks.JobGone,
	"instance":    tasks.WrongInstance,
	"final":       tasks.AlreadyFinal,
	"delivery":    tasks.OldDelivery,
	"late":        tasks.TooLate,
	"stopped":     tasks.JobStopped,
	"token":       tasks.WrongToken,
	"given up":    tasks.WrongToken,
}

// answered runs a script that answers {reason, …}, where an empty reason means
// that it was done, and returns what follows.
func (t *Attempts) answered(ctx context.Context, script *redis.Script, key string, args ...any) ([]any, error) {
	return reasoned(t.redis.Commit(ctx, script, []string{key}, args...).Slice())
}

// each runs a script on one item. All keys must be on one node.
func (t *Attempts) each(ctx context.Context, script wire.Many, keys []string, args ...any) ([]any, error) {
	answer, err := t.redis.Each(ctx, script, keys, args...)
	if err != nil {
		return nil, brokenBy(err)
	}
	list, ok := answer.([]any)
	if !ok {
		return nil, fmt.Errorf("a script answered %v", answer)
	}
	return list, nil
}

// luaSays are what Lua, its JSON decoder and Redis say of a value that is not what a script
// takes it for. What Redis says of itself (OOM, READONLY, …) comes through scripts, too.
var luaSays = []string{"attempt to ", "bad argument #", "Expected value but found", "Expected object key", "WRONGTYPE ", "job record of version "}

// brokenBy tells the error of a script that stumbled over what a record has in it from one that
// another try may be spared.
func brokenBy(err error) error {
	if err == nil || !wire.Answered(err) {
		return err
	}
	for _, text := range luaSays {
		if strings.Contains(err.Error(), text) {
			return fmt.Errorf("%w: %w", tasks.ErrBrokenRecord, err)
		}
	}
	return err
}

// orOddAnswer is err, or, without one, an error that shows what a script has answered.
func orOddAnswer(err error, answer []any) error {
	if err == nil {
		err = fmt.Errorf("the script answered %v", answer)
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
	case "early":
		if len(answer) == 2 {
			return nil, &tasks.EarlyError{Wait: time.Duration(codec.Number(answer[1])) * time.Millisecond}
		}
	case "running":
		if len(answer) == 3 {
			return nil, &runningError{token: codec.Text(answer[1]), lost: int(codec.Number(answer[2]))}
		}
	}
	refusal, ok := refusals[reason]
	if !ok {
		return nil, fmt.Errorf("a script refused with %q", reason)
	}
	return nil, refusal
}
