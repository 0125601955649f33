package registry

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// claimLife is how long an instance may take from claiming a device to being registered with it.
const claimLife = time.Minute

// devices are what instances have.
type devices map[string]tasks.Device

// claim has it known that instances will have other devices, and refuses that if one of these is
// another instance's: what is locked and protected under one ID would be reset under the other.
// Claims are not taken back: one that nothing came of, or of an instance that has another device
// since, means nothing after a while. planned are what others will have by the same import.
func (f *Fleet) claim(ctx context.Context, steps []step, planned devices, shared bool) error {
	pipe := f.redis.Pipeline()
	now := f.redis.Now().UnixMilli()
	for _, s := range steps {
		// Without an address the instance is found by its ID, which the fleet has anyway.
		if s.readdressed() && s.after.Address != "" {
			pipe.ZAdd(ctx, codec.DeviceKey(s.after.Device()), redis.Z{Score: float64(now), Member: s.after.ID})
		}
	}
	if pipe.Len() > 0 {
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("claim addresses: %w", err)
		}
	}
	if shared {
		return nil
	}
	return f.claimed(ctx, steps, planned)
}

// rival is an instance that may have the device that another one is to have.
type rival struct {
	id    string
	step  step
	since time.Time // of its claim; zero: it made none
}

// claimed refuses steps that give an instance the device of another one.
func (f *Fleet) claimed(ctx context.Context, steps []step, planned devices) error {
	rivals, err := f.rivals(ctx, steps)
	if err != nil || rivals == nil {
		return err
	}
	ids := make([]string, len(rivals))
	for i, r := range rivals {
		ids[i] = r.id
	}
	fleet, err := f.read(ctx, ids, func(_ string, err error) error { return err })
	if err != nil {
		return err
	}
	locks := make([]*redis.IntCmd, len(rivals))
	pipe := f.redis.Pipeline()
	for i, id := range ids {
		locks[i] = pipe.Exists(ctx, codec.LockKey(id))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("look at locks: %w", err)
	}
	for i, r := range rivals {
		device := r.step.after.Device()
		now, registered := fleet[r.id]
		will, moves := planned[r.id]
		switch {
		case moves && will == device, !moves && registered && now.Device() == device:
			return oneDevice(r.step.after.ID, device, r.id)
		case locks[i].Val() > 0:
			return refuse(r.step.after.ID, "cannot have the address %s of the driver %s yet: instance %s may be in the middle of a reset there", device.Address, device.Driver, r.id)
		case !moves && f.redis.Now().Sub(r.since) < claimLife:
			return refuse(r.step.after.ID, "cannot have the address %s of the driver %s yet: instance %s is just getting it; try again in a minute", device.Address, device.Driver, r.id)
		}
	}
	return nil
}

// rivals are the instances that have, had, or are getting the devices of steps.
func (f *Fleet) rivals(ctx context.Context, steps []step) (rivals []rival, err error) {
	pipe := f.redis.Pipeline()
	claims := make([]*redis.ZSliceCmd, len(steps))
	for i, s := range steps {
		if s.readdressed() {
			claims[i] = pipe.ZRangeWithScores(ctx, codec.DeviceKey(s.after.Device()), 0, -1)
		}
	}
	if pipe.Len() == 0 {
		return nil, nil
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("look for who has the addresses: %w", err)
	}
	for i, s := range steps {
		if claims[i] == nil {
			continue
		}
		for _, z := range claims[i].Val() {
			if id, _ := z.Member.(string); id != s.after.ID {
				rivals = append(rivals, rival{id, s, time.UnixMilli(int64(z.Score))})
			}
		}
		// The instance that has this address for its ID, and none of its own.
		if address := s.after.Device().Address; address != s.after.ID && tasks.CheckInstanceID(address) == nil {
			rivals = append(rivals, rival{id: address, step: s})
		}
	}
	return rivals, nil
}

func oneDevice(id string, device tasks.Device, other string) error {
	return refuse(id, "would be the same device as instance %s: address %s of the driver %s; what is protected under one ID is reset under the other", other, device.Address, device.Driver)
}
