package docker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// probeTimeout bounds one call of getprop, which a phone that starts may not answer.
const probeTimeout = 10 * time.Second

// boot starts the phone, which is a fresh container with empty data, and waits until it has booted.
func (r *reset) boot(ctx context.Context, s scene) (over bool, err error) {
	if !s.phone.State.Running {
		if err := r.permit(ctx, s); err != nil {
			return false, err
		}
		if s.phone.autoRemove() && s.twin == nil {
			return false, r.another(ctx, s.phone)
		}
		if err := r.start(ctx, s.phone.ID); err != nil {
			return false, gone(err)
		}
	}
	if err := r.await(ctx, s.phone.ID); err != nil {
		return false, err
	}
	return true, r.clear(ctx, s)
}

// clear removes what is not needed any more once the phone has booted: its spare twin, and, if that
// is still this attempt's to do, the twins of resets that never ended.
func (r *reset) clear(ctx context.Context, s scene) error {
	if s.twin != nil {
		if s.twin.State.Running { // a worker that is late must not end it: it may be the phone by then
			return unknown("the phone has booted, and %s runs beside it with the same data: somebody has started it. Stop it", s.twin.Name)
		}
		if err := gone(r.remove(ctx, s.twin.ID)); err != nil && !errors.Is(err, errMoved) {
			return taken(err)
		}
	}
	if len(s.older) == 0 || r.permit(ctx, s) != nil {
		return nil //nolint:nilerr // the phone is reset all the same
	}
	// Only a reset whose own twin has the phone's name does this, so that there is always one
	// container that has the phone's configuration.
	for _, old := range r.older {
		if err := r.drop(ctx, old.ID); err != nil {
			return err
		}
	}
	return nil
}

// drop removes a twin, which never ran: one that runs is none any more, and is left alone.
func (r *reset) drop(ctx context.Context, id string) error {
	if err := moved(r.remove(ctx, id)); err != nil && !errors.Is(err, errMoved) {
		return err
	}
	return nil
}

// await waits until a phone has booted.
func (r *reset) await(ctx context.Context, id string) error {
	for says := "nothing was seen of it"; ; {
		booted, now, err := r.watch(ctx, id)
		switch {
		case booted:
			return nil
		case ctx.Err() != nil:
			return unknown("the data is empty, and the phone has not booted in time: %s", says)
		case err != nil:
			return err
		}
		says = now
		_ = r.rest(ctx) // the end of ctx is seen above
	}
}

// watch looks once at a phone that boots.
func (r *reset) watch(ctx context.Context, id string) (booted bool, says string, err error) {
	phone, err := r.inspect(ctx, id)
	switch {
	case answered(err, http.StatusNotFound):
		return false, "", unknown("the data is empty, and the phone's container ended while it booted")
	case err != nil:
		return false, "", err
	case !phone.State.Running && !phone.State.Restarting:
		return false, "", unknown("the data is empty, and the phone's container ended while it booted: %s, status %d", phone.State.Status, phone.State.ExitCode)
	}
	booted, says = r.booted(ctx, phone)
	return booted, says, nil
}

// booted says whether a phone has booted, and how that is known: by the health check of its image
// if it has one, else by Android's own word.
func (e engine) booted(ctx context.Context, phone *container) (booted bool, says string) {
	if health := phone.State.Health; health != nil {
		return health.Status == "healthy", "health " + health.Status
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	value, err := e.exec(ctx, phone.ID, "/system/bin/getprop", "sys.boot_completed")
	if err != nil {
		return false, err.Error()
	}
	return value == "1", fmt.Sprintf("sys.boot_completed=%.40s", value)
}
