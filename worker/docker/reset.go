package docker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"batchreset/worker"
)

// reset is one attempt at a phone.
type reset struct {
	engine

	cfg   Config
	a     worker.Attempt
	pause time.Duration
	name  string   // of the phone's container
	sent  bool     // MaySend has said yes
	made  string   // the ID of the twin that this attempt has made, or empty
	older []listed // the twins of other resets when MaySend said yes
}

// run goes on from what there is until the phone has been reset and has booted. It looks again
// after each step, so it makes no difference who did the last step, and when.
func (r *reset) run(ctx context.Context, d *Driver) (err error) {
	if r.a.Key == "" {
		return refuse("there is no driver key, and the containers of a reset are known by it")
	}
	if err := checkProperties(r.cfg.Properties); err != nil { // the fleet's labels are among them
		return refuse("%v (see the labels docker.property.NAME of the instance)", err)
	}
	if r.engine, err = d.connect(ctx); err != nil {
		return err
	}
	if r.name, err = r.nameOf(ctx, r.a); err != nil {
		return err
	}
	for moved := false; ; {
		s, err := r.survey(ctx, r.name, r.a.Key)
		over := false
		if err == nil {
			over, err = r.step(ctx, s)
		}
		switch {
		case errors.Is(err, errMoved):
			moved = true
			if err := r.rest(ctx); err != nil {
				return fmt.Errorf("%w: %w", errMoved, err)
			}
		case moved && cutOff(ctx, err): // which says nothing about the engine
			return fmt.Errorf("%w: %w", errMoved, ctx.Err())
		case err != nil || over:
			return err
		}
	}
}

// cutOff says whether a call had no answer because ctx has ended.
func cutOff(ctx context.Context, err error) bool {
	e, ok := errors.AsType[*engineError](err)
	return ok && e.status == 0 && ctx.Err() != nil
}

// step does what comes next, and says whether that was the last.
func (r *reset) step(ctx context.Context, s scene) (over bool, err error) {
	switch {
	case len(s.missingNetworks()) > 0:
		return false, r.connectNetworks(ctx, s)
	case s.phone != nil && s.phone.label(labelReset) == r.a.Key:
		return r.boot(ctx, s)
	case s.twin == nil:
		return false, r.prepare(ctx, s)
	case s.phone != nil && s.phone != s.madeOf:
		return false, r.replaced()
	}
	if !r.sent {
		if err := r.check(ctx, s, s.twin); err != nil {
			return false, err
		}
	}
	if err := r.permit(ctx, s); err != nil {
		return false, err
	}
	switch stray, found := r.stray(s); {
	case s.phone != nil:
		return false, r.takeAway(ctx, s.phone.ID)
	case found:
		return false, r.takeAway(ctx, stray.ID)
	case s.twin.started():
		return false, r.another(ctx, s.twin)
	}
	return false, r.wipe(ctx, s)
}

// stray is a twin that somebody has started and this reset has no more use for: of a reset that is over, or one of its own
// of which it has another. It may have the data open.
func (r *reset) stray(s scene) (stray listed, found bool) {
	for _, c := range s.older {
		over := slices.ContainsFunc(r.older, func(old listed) bool { return old.ID == c.ID })
		if c.started() && (over || c.Labels[labelReset] == r.a.Key) {
			return c, true
		}
	}
	return listed{}, false
}

// replaced is what a reset ends with that does not find its phone any more.
func (r *reset) replaced() error {
	if r.sent || r.a.Ambiguous {
		return errReplaced
	}
	return &worker.DriverError{Verdict: worker.Retryable, Message: "the phone got another container while its reset was prepared"}
}

// prepare makes the twin. From then on the engine has the phone's configuration twice.
func (r *reset) prepare(ctx context.Context, s scene) error {
	if r.sent || r.a.Ambiguous {
		return errReplaced
	}
	madeOf := s.phone
	if madeOf == nil && len(s.older) > 0 { // what a reset left that never ended
		var err error
		if madeOf, err = r.see(ctx, s.older[0]); err != nil {
			return err
		}
	}
	if madeOf == nil {
		return refuse("there is no container %s", r.name)
	}
	if err := r.check(ctx, s, madeOf); err != nil {
		return err
	}
	body, err := r.twinOf(ctx, madeOf)
	if err != nil {
		return err
	}
	r.made, err = r.create(ctx, twinName(r.name, r.a.Key, madeOf.ID), body)
	return taken(err)
}

// twinOf is what the twin is created with: see the function of this name.
func (r *reset) twinOf(ctx context.Context, madeOf *container) (object, error) {
	var name string
	madeOf.Config.get("Image", &name)
	named, err := r.inspectImage(ctx, name)
	if err != nil && !answered(err, http.StatusNotFound) {
		return nil, err
	}
	body := twinOf(madeOf, r.a.Key, named)
	var cmd []string
	if r.cfg.Image != "" {
		old, err := r.inspectImage(ctx, madeOf.Image)
		if err != nil {
			return nil, err
		}
		wanted, err := r.inspectImage(ctx, r.cfg.Image)
		if answered(err, http.StatusNotFound) {
			return nil, refuse("the engine has no image %s: pull it first", r.cfg.Image)
		}
		if err != nil {
			return nil, err
		}
		changeImage(body, r.cfg.Image, old.Config)
		wanted.Config.get("Cmd", &cmd)
	}
	setProperties(body, r.cfg.Properties, cmd)
	return body, nil
}

// another makes one more twin, of a container of this reset that cannot be the only one: of a phone that is removed when it
// stops, whose configuration would be lost if it did not come up, or of a twin that somebody has started.
func (r *reset) another(ctx context.Context, of *container) error {
	body, err := r.twinOf(ctx, of)
	if err != nil {
		return err
	}
	_, err = r.create(ctx, twinName(r.name, r.a.Key, of.ID), body)
	return taken(err)
}

// connectNetworks puts the twin into the networks that it was not created with.
func (r *reset) connectNetworks(ctx context.Context, s scene) error {
	for _, network := range s.missingNetworks() {
		if err := r.connectNetwork(ctx, network, s.twin.ID, s.madeOf.wants(network)); err != nil {
			return gone(err)
		}
	}
	return nil
}

// check refuses phones whose reset would harm others, or would not be one.
func (r *reset) check(ctx context.Context, s scene, phone *container) error {
	if instance := phone.label(labelInstance); instance != "" && instance != r.a.InstanceID {
		return refuse("the container %s has the label %s=%.80s, which is another instance", r.name, labelInstance, instance)
	}
	if err := r.cfg.checkPhone(phone); err != nil {
		return err
	}
	all, err := r.list(ctx, nil)
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(all, func(l listed) bool { return slices.Contains(s.members, l.ID) || phoneName(l.name()) == r.name })
	if s.madeOf != nil { // others know it, not its twin
		phone = s.madeOf
	}
	return checkNeighbours(phone, r.cfg.inData(phone), others)
}

// permit asks, once, whether the phone may be reset still.
func (r *reset) permit(ctx context.Context, s scene) error {
	if r.sent {
		return nil
	}
	err := r.a.MaySend()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return &worker.DriverError{Verdict: worker.NotSent, Message: "nothing was done to the phone: " + err.Error()}
	}
	// What was there before this answer belongs to resets that are over.
	r.sent, r.older = true, s.older
	return nil
}

// takeAway stops and removes a container. One that is started again meanwhile is stopped again.
func (r *reset) takeAway(ctx context.Context, id string) error {
	for {
		if err := r.stop(ctx, id); answered(err, http.StatusNotFound) {
			return nil
		} else if err != nil {
			return err
		}
		err := r.remove(ctx, id)
		switch {
		case answered(err, http.StatusNotFound):
			return nil
		case !answered(err, http.StatusConflict): // it runs again, or is being removed already
			return err
		}
		if err := r.rest(ctx); err != nil {
			return err
		}
	}
}

// tidy removes the twin of a failed attempt if it is of no use to a later one: nothing was done to
// the phone, so that the later one has another key and makes its own, or somebody else has put
// another container in the phone's place.
func (r *reset) tidy(ctx context.Context) {
	if r.name == "" || ctx.Err() != nil {
		return
	}
	s, err := r.survey(ctx, r.name, r.a.Key)
	if err != nil || s.twin == nil || s.phone == nil || s.phone.label(labelReset) == r.a.Key {
		return
	}
	unused := s.twin.ID == r.made && !r.sent && !r.a.Ambiguous
	if unused || s.phone != s.madeOf {
		_ = r.remove(ctx, s.twin.ID) // or else the next reset of this phone does
	}
}

// rest waits before the next look at the same thing.
func (r *reset) rest(ctx context.Context) error {
	timer := time.NewTimer(r.pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// taken turns the answer that another container has the name into errMoved.
func taken(err error) error {
	if answered(err, http.StatusConflict) {
		return errMoved
	}
	return err
}

// moved does so, too, with the answer that the container is not there any more.
func moved(err error) error { return gone(taken(err)) }
