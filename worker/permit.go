package worker

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"batchreset/tasks"
	"batchreset/worker/requeue"
)

// permitted says whether the tenant's attempts may begin, and counts this one against the
// tenant's limit per hour. unspend takes that back.
func (a *attempt) permitted(ctx context.Context) (unspend func(), err error) {
	err = a.patiently(ctx, func() (err error) {
		a.policy, err = a.store.PolicyOf(ctx, a.d.Tenant, a.d.Run)
		return err
	})
	if err != nil {
		return nil, a.redisTrouble(err)
	}
	if halt := a.policy.Halt(); halt != nil {
		// The delay grows with the age of the halt: a short halt ends without delay, and a long
		// queue does not circle through Redis all the time.
		delay := waitDelay(time.Since(halt.Since.Time))
		return nil, &requeue.Later{Delay: delay/2 + requeue.Jitter(delay/2), Reason: errHalted(a.policy).Error()}
	}
	if *a.policy.InstancesPerHour == 0 {
		return func() {}, nil
	}
	var receipt int64
	var wait time.Duration
	err = a.patiently(ctx, func() (err error) { // counted twice if an answer is lost
		receipt, wait, err = a.store.Spend(ctx, a.d.Tenant, *a.policy.InstancesPerHour)
		return err
	})
	if err != nil {
		return nil, a.redisTrouble(err)
	}
	if wait > 0 {
		delay := waitDelay(wait)
		return nil, &requeue.Later{Delay: delay/2 + requeue.Jitter(delay/2), Reason: "the tenant's quota of resets per hour is used up"}
	}
	return func() {
		if err := a.store.Unspend(ctx, a.d.Tenant, receipt); err != nil {
			a.say(slog.LevelWarn, "quota not given back", slog.Any("error", err))
		}
	}, nil
}

// errHalted says why nothing is sent for a tenant.
func errHalted(policy tasks.Policy) error {
	text := "resets are halted"
	if policy.Halt().Reason != "" {
		text += ": " + policy.Halt().Reason
	}
	return errors.New(text)
}
