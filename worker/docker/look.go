package docker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"batchreset/worker"
)

// Look says whether the phone's container is the one that a reset under this driver key has put
// there, with data that is younger than it, and whether it has booted.
func (d *Driver) Look(ctx context.Context, a worker.Attempt) (worker.Sight, error) {
	if a.Key == "" {
		return worker.Sight{}, errors.New("there is no driver key, and the containers of a reset are known by it")
	}
	e, err := d.connect(ctx)
	if err != nil {
		return worker.Sight{}, err
	}
	name, err := e.nameOf(ctx, a)
	if err != nil {
		return worker.Sight{}, err
	}
	s, err := e.survey(ctx, name, a.Key)
	if err != nil {
		return worker.Sight{}, err
	}
	return d.sight(ctx, e, s, a.Key)
}

// sight judges what there is.
func (d *Driver) sight(ctx context.Context, e engine, s scene, key string) (worker.Sight, error) {
	switch {
	case s.phone == nil:
		return worker.Sight{State: worker.Unclear, Evidence: "the phone has no container of its name: a reset is under way"}, nil
	case s.phone.label(labelReset) == key:
		return d.fresh(ctx, e, s)
	case s.phone == s.madeOf:
		// Its data is emptied only when it is gone.
		return worker.Sight{State: worker.NotInitial, Evidence: "container " + short(s.phone.ID) + " is still there, started " + s.phone.State.StartedAt + " (inspect)"}, nil
	}
	return worker.Sight{State: worker.Unclear, Evidence: "container " + short(s.phone.ID) + " is not from this reset (inspect)"}, nil
}

// fresh looks at a phone that a reset has put there.
func (d *Driver) fresh(ctx context.Context, e engine, s scene) (worker.Sight, error) {
	booted, says := e.booted(ctx, s.phone)
	born, err := e.born(ctx, s.phone, d.cfg.data(s.phone))
	if err != nil {
		return worker.Sight{}, err
	}
	sight := worker.Sight{
		State:    worker.Initial,
		Evidence: fmt.Sprintf("container %s started %s, %s (inspect, archive, exec: %s)", short(s.phone.ID), s.phone.State.StartedAt, born.text(), says),
	}
	// A spare that is left is to be removed, by another call of Reset.
	if !booted || !s.phone.State.Running || s.twin != nil || born.before(s.phone.Created) {
		sight.State = worker.Unclear
	}
	sight.Evidence = worker.Printable(sight.Evidence, worker.MaxEvidence)
	return sight, nil
}

// birth is when something was last added to the top of the phone's data, or taken out of it: with
// Android, in its first boot. Zero: the data is in the container itself.
type birth time.Time

func (b birth) text() string {
	if time.Time(b).IsZero() {
		return "data in the container itself"
	}
	return "data of " + time.Time(b).UTC().Format(time.RFC3339Nano)
}

// before says whether the data is older than the container. File systems know the time a little
// worse than the engine.
func (b birth) before(created time.Time) bool {
	return !time.Time(b).IsZero() && time.Time(b).Before(created.Add(-time.Second))
}

// born is the birth of the oldest data of a phone.
func (e engine) born(ctx context.Context, phone *container, data []mount) (oldest birth, err error) {
	for _, m := range data {
		changed, err := e.changed(ctx, phone.ID, m.Destination)
		if err != nil {
			return birth{}, err
		}
		if time.Time(oldest).IsZero() || changed.Before(time.Time(oldest)) {
			oldest = birth(changed)
		}
	}
	return oldest, nil
}
