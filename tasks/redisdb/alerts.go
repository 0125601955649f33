package redisdb

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// alertsKey has what operators were told, alertsLeadKey who tells them. A script touches both: they share a slot.
const (
	alertsKey     = "reset:{alerts}"
	alertsLeadKey = "reset:{alerts}:lead"
)

// Alerts keep what operators were told, for all processes: one at a time tells.
type Alerts struct{ redis *wire.Client }

// Now is the time by Redis's clock.
func (a *Alerts) Now() time.Time { return a.redis.Now() }

// Lead makes the process with this token the only one that tells operators until ttl has passed, and reports whether it is,
// and what they were told. What cannot be read counts as nothing: they are told once more.
func (a *Alerts) Lead(ctx context.Context, token string, ttl time.Duration) (tasks.AlertStates, bool, error) {
	return a.watch(ctx, token, ttl, "")
}

// Keep is Lead for a process that has told them something, or has seen something.
func (a *Alerts) Keep(ctx context.Context, token string, ttl time.Duration, states tasks.AlertStates) (leads bool, err error) {
	text, err := json.Marshal(states)
	if err != nil {
		return false, err
	}
	_, leads, err = a.watch(ctx, token, ttl, string(text))
	return leads, err
}

func (a *Alerts) watch(ctx context.Context, token string, ttl time.Duration, told string) (tasks.AlertStates, bool, error) {
	answer, err := watchScript.Run(ctx, a.redis, []string{alertsLeadKey, alertsKey}, token, ttl.Milliseconds(), told).Slice()
	if err != nil || len(answer) == 0 {
		return nil, false, fmt.Errorf("lead those who tell operators: %w", orOddAnswer(err, answer))
	}
	if codec.Number(answer[0]) != 1 || len(answer) != 2 {
		return nil, false, nil
	}
	states := tasks.AlertStates{}
	if text, _ := answer[1].(string); text != "" && json.Unmarshal([]byte(text), &states) != nil {
		states = tasks.AlertStates{}
	}
	return states, true, nil
}
