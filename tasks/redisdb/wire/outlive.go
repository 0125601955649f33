package wire

import "context"

// Outlive is ctx as long as its deadline allows, whatever else ends it: for what must not be
// left half done because a caller hangs up.
func Outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(context.WithoutCancel(ctx), deadline)
	}
	return context.WithoutCancel(ctx), func() {}
}
