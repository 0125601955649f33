package registry

import (
	"context"
	"time"
)

// FormKey is there once the form with this ID was sent.
func FormKey(id string) string { return "reset:form:{" + id + "}" }

// formMemory is how long a form that was sent is remembered: longer than a browser offers to send it again.
const formMemory = 7 * 24 * time.Hour

// UseForm reports whether the form with this ID is sent for the first time, and remembers that.
func (r *Operators) UseForm(ctx context.Context, id string) (first bool, err error) {
	first, err = r.redis.SetNX(ctx, FormKey(id), 1, formMemory).Result()
	return first, OrFull(wrapped("remember a form", err))
}
