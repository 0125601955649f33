package registry

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks/redisdb/wire"
	"batchreset/tasks/seal"
)

// reseal puts a secret, sealed anew, in place of what was read, unless somebody has changed it since.
func reseal(ctx context.Context, client *wire.Client, key, field, was, now string) (done bool, err error) {
	n, err := resealScript.Run(ctx, client, []string{key}, field, was, now).Int()
	if err != nil {
		return false, fmt.Errorf("seal a secret: %w", err)
	}
	return n == 1, nil
}

// sealFields seals those fields of an entry that are not sealed with the newest key yet. place is what a
// secret is sealed for. It returns how many secrets there are, and how many it has sealed.
func sealFields(ctx context.Context, client *wire.Client, seals *seal.Keys, key, place string, fields ...string) (all, sealed int, err error) {
	for _, field := range fields {
		kept, err := client.HGet(ctx, key, field).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return all, sealed, fmt.Errorf("seal a secret: %w", err)
		}
		all++
		secret, stale, err := seals.Open(kept, place)
		if err != nil {
			return all, sealed, err
		}
		if !stale {
			continue
		}
		done, err := reseal(ctx, client, key, field, kept, seals.Seal(secret, place))
		if err != nil {
			return all, sealed, err
		}
		if done {
			sealed++
		}
	}
	return all, sealed, nil
}
