package docker

import (
	"context"
	"net/http"
)

// wipe empties the data of the phone, whose containers are gone but for the twin. The helper has the
// name of the phone while it does so: whoever comes too late with a helper of his own finds the
// name taken, by another helper or by the phone, which runs again.
func (r *reset) wipe(ctx context.Context, twin *container) error {
	data := r.cfg.data(twin)
	if len(data) == 0 { // it went with the old container
		return nil
	}
	id, err := r.create(ctx, r.name, r.helper(twin, data))
	if err != nil {
		return taken(err)
	}
	if err := r.start(ctx, id); err != nil {
		return gone(err)
	}
	status, err := r.wait(ctx, id)
	if err != nil {
		return gone(err)
	}
	if status != 0 {
		return unknown("the wipe command ended with status %d: %s", status, r.output(ctx, id))
	}
	for _, m := range data {
		// The engine's own look: a command may say what it likes.
		left, err := r.inside(ctx, twin.ID, m.Destination)
		if err != nil {
			return gone(err)
		}
		if left != "" {
			return unknown("the wipe command ended well and left %.200q", left)
		}
	}
	if err := r.remove(ctx, id); err != nil && !answered(err, http.StatusNotFound) {
		return moved(err)
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

// outlast waits for the end of a helper that an earlier attempt, or another worker, has left, and
// removes it. What it has done is not known, so the data is emptied again.
func (r *reset) outlast(ctx context.Context, id string) error {
	if _, err := r.wait(ctx, id); err != nil { // one that never ran counts as ended
		return gone(err)
	}
	return moved(r.remove(ctx, id))
}
