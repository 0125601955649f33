package docker

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"batchreset/worker"
)

// refuse is a reset that is not done, and would not be if it were tried again.
func refuse(format string, values ...any) error {
	return &worker.DriverError{Verdict: worker.Permanent, Message: printable(format, values...)}
}

// unknown is a reset that came to a stop half-way; it goes on there when it is repeated.
func unknown(format string, values ...any) error {
	return &worker.DriverError{Verdict: worker.Unknown, Message: printable(format, values...), Repeatable: true}
}

func printable(format string, values ...any) string {
	return worker.Printable(fmt.Sprintf(format, values...), maxMessage)
}

// judge says what an error means for the item. Before the phone is touched an error is what the
// engine says; after that it always leaves doubt.
func judge(ctx context.Context, err error, sent bool) error {
	e, ok := errors.AsType[*worker.DriverError](err)
	switch {
	case ok && sent && e.Verdict != worker.Unknown: // what would be a refusal before
		return unknown("the reset came to a stop half-way: %s", e.Message)
	case ok:
		return e
	case sent:
		return unknown("the reset came to a stop half-way: %v", err)
	}
	return &worker.DriverError{Verdict: untouched(ctx, err), Message: printable("nothing was done to the phone: %v", err)}
}

// untouched is the verdict on an error before the phone was touched.
func untouched(ctx context.Context, err error) worker.Verdict {
	e, ok := errors.AsType[*engineError](err)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return worker.NotSent
	case !ok: // somebody else is at work there
		return worker.Busy
	case e.status == 0, e.status == http.StatusUnauthorized, e.status == http.StatusForbidden:
		return worker.Unreachable
	case e.status == http.StatusBadRequest:
		return worker.Permanent
	}
	return worker.Retryable
}
