package redisdb

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/registry"
)

// nobody is a name that no tenant, instance or member of a list has.
const nobody = "{-}"

// MayManage reports whether the Redis user of this process may write what is managed. It takes out of each kind
// of key what is in none: Redis looks at the user's rights before it looks for that, in every version.
func (db *DB) MayManage(ctx context.Context, what tasks.Managed) (bool, error) {
	pipe := db.Redis.Pipeline()
	switch what {
	case tasks.ManagedLimits:
		pipe.HDel(ctx, registry.PoliciesKey, nobody)
	case tasks.ManagedCallers:
		for _, index := range []string{"reset:tokens", "reset:keys"} {
			pipe.ZRem(ctx, index, nobody)
		}
		for _, entry := range []string{"reset:token:" + nobody, "reset:key:" + nobody} {
			pipe.HDel(ctx, entry, nobody)
		}
		pipe.Del(ctx, registry.FormKey(nobody))
	case tasks.ManagedFleet:
		for _, index := range []string{"reset:fleet", "reset:fleet:tenant:" + nobody, codec.DeviceKey(tasks.Device{Driver: nobody, Address: nobody})} {
			pipe.ZRem(ctx, index, nobody)
		}
		pipe.HDel(ctx, codec.FleetKey("-"), nobody)
	case tasks.ManagedProtection:
		pipe.HDel(ctx, codec.FleetKey("-"), nobody)
	case tasks.ManagedWebhooks:
		for _, hash := range []string{"reset:webhooks", "reset:webhook:" + nobody + ":ep_-"} {
			pipe.HDel(ctx, hash, nobody)
		}
		pipe.SRem(ctx, "reset:webhook:"+nobody, nobody)
		pipe.Del(ctx, registry.FormKey(nobody))
	default:
		return false, fmt.Errorf("nobody manages %q", what)
	}
	answers, err := pipe.Exec(ctx)
	if err == nil {
		return true, nil
	}
	for _, a := range answers {
		switch err := a.Err(); {
		case redis.HasErrorPrefix(err, "NOPERM"):
			return false, nil
		case err != nil && !redis.HasErrorPrefix(err, "WRONGTYPE"): // which says that it was allowed
			return false, fmt.Errorf("look at the rights of the Redis user: %w", err)
		}
	}
	return true, nil
}
