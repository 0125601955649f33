package docker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"batchreset/worker"
)

// wipe empties the data of the phone, whose containers are gone but for the twin, and gives the twin
// the phone's name. A helper has the name while it empties the data: whoever comes too late with a
// helper of his own finds the name taken, by another helper or by the phone, which runs again.
func (r *reset) wipe(ctx context.Context, s scene) error {
	if data := r.cfg.data(s.twin); len(data) > 0 { // else it went with the old container
		id, found, err := r.findHelper(ctx, s, data)
		if err != nil {
			return err
		}
		err = r.empty(ctx, s.twin.ID, id, data)
		if left, failed := errors.AsType[*worker.DriverError](err); failed && found { // an earlier attempt's
			err = fmt.Errorf("%w: %w", errMoved, left)
			_ = r.remove(ctx, id) // or else it is found again
		}
		if err == nil {
			err = r.unused(ctx)
		}
		if err != nil {
			return err
		}
		if err := r.remove(ctx, id); err != nil && !answered(err, http.StatusNotFound) {
			return moved(err)
		}
	}
	// Nothing but the name may lie between the end of the helper and this.
	err := r.rename(ctx, s.twin.ID, r.name)
	if answered(err, http.StatusBadRequest) { // it has the name already
		return errMoved
	}
	return moved(err)
}

// findHelper returns the helper that has the name, or a new one, and sees to it that it was started.
// One that is found may be another worker's. What counts is what it leaves, and that it has the
// name until somebody has looked.
func (r *reset) findHelper(ctx context.Context, s scene, data []mount) (id string, found bool, err error) {
	if s.helper != nil {
		id, found = s.helper.ID, true
	} else if id, err = r.create(ctx, r.name, r.helper(s.twin, data)); err != nil {
		return "", false, taken(err)
	}
	if !found || s.helper.State == "created" {
		err = gone(r.start(ctx, id))
	}
	if found && refused(err) { // it would have the name for good; the next one is made with today's settings
		err = fmt.Errorf("%w: %w", errMoved, err)
		_ = r.remove(ctx, id) // or else it is found again
	}
	return id, found, err
}

// empty waits for the end of a helper, and looks whether the data is empty.
func (r *reset) empty(ctx context.Context, twin, helper string, data []mount) error {
	status, err := r.wait(ctx, helper)
	if err != nil {
		return gone(err)
	}
	if status != 0 {
		return unknown("the wipe command ended with status %d: %s", status, r.output(ctx, helper))
	}
	for _, m := range data {
		// The engine's own look: a command may say what it likes.
		left, err := r.inside(ctx, twin, m.Destination)
		if err != nil {
			return gone(err)
		}
		if left != "" {
			return unknown("the wipe command ended well and left %.200q", left)
		}
	}
	return nil
}

// unused makes sure that no twin was started before the data was empty: it would have run with the data of the last user, and
// may write it back. The next look finds it.
func (r *reset) unused(ctx context.Context) error {
	s, err := r.survey(ctx, r.name, r.a.Key)
	if err != nil {
		return err
	}
	if s.twin == nil || s.twin.started() || slices.ContainsFunc(s.older, listed.started) {
		return errMoved
	}
	return nil
}

// helper is what a helper is created with: the twin's image and its data, and nothing else.
func (r *reset) helper(twin *container, data []mount) object {
	type bindOptions struct{ CreateMountpoint bool }
	type mounted struct {
		Type, Source, Target string
		BindOptions          *bindOptions `json:",omitempty"`
	}
	command := r.cfg.WipeCommand
	var mounts []mounted
	var find []string
	for _, m := range data {
		next := mounted{Type: m.Type, Source: m.source(), Target: m.Destination}
		if m.Type == "bind" {
			next.BindOptions = &bindOptions{CreateMountpoint: true}
		}
		mounts = append(mounts, next)
		find = append(find, m.Destination)
	}
	if command == nil {
		command = append([]string{"/system/bin/find"}, append(find, "-mindepth", "1", "-delete")...)
	}
	host := object{"UsernsMode": twin.HostConfig["UsernsMode"], "SecurityOpt": twin.HostConfig["SecurityOpt"]}
	host.set("NetworkMode", "none")
	host.set("Mounts", mounts)
	body := object{}
	body.set("Image", twin.Image)
	body.set("Entrypoint", command[:1])
	body.set("Cmd", command[1:])
	body.set("User", "0:0")
	body.set("Labels", map[string]string{labelWipe: r.a.Key})
	body.set("Healthcheck", map[string][]string{"Test": {"NONE"}})
	body.set("HostConfig", host)
	return body
}
