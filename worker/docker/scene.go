package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"

	"batchreset/worker"
)

// scene is what there is of one phone at one moment. A name belongs to one container at a time,
// which the engine sees to; all that a reset does follows from who has which name.
type scene struct {
	phone   *container // has the phone's name, or nil
	helper  *listed    // has the phone's name while it empties the data, or nil
	twin    *container // ours, under its temporary name, or nil
	older   []listed   // twins that are not ours any more, or never were, the newest first
	madeOf  *container // what our twin was made of, if it is still there
	members []string   // the IDs of all of them
}

// errMoved says that somebody else did something meanwhile: look again.
var errMoved = errors.New("the containers of the phone are changed by somebody else at the same time")

// errReplaced says that the phone is not the one any more that this reset began with.
var errReplaced = &worker.DriverError{
	Verdict: worker.Unknown,
	Message: "the phone has another container than the one that this reset began with: somebody else has reset or replaced it",
}

var containerID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// nameOf finds out the name of the phone of an attempt: the address, or the name of the only
// phone with the label.
func (e engine) nameOf(ctx context.Context, a worker.Attempt) (string, error) {
	if a.Address != "" {
		if !containerName.MatchString(a.Address) {
			return "", refuse("the address %.80q is not the name of a container", a.Address)
		}
		return a.Address, nil
	}
	all, err := e.list(ctx, filters{"label": {labelInstance + "=" + a.InstanceID}})
	if err != nil {
		return "", err
	}
	var names []string
	for _, c := range all {
		if c.Labels[labelInstance] == a.InstanceID { // an engine, or a proxy, may not know filters
			names = append(names, phoneName(c.name()))
		}
	}
	slices.Sort(names)
	switch names = slices.Compact(names); len(names) {
	case 0:
		return "", refuse("no container has the label %s=%s", labelInstance, a.InstanceID)
	case 1:
		return names[0], nil
	}
	return "", refuse("the label %s=%s is not unique: the containers %.200q have it", labelInstance, a.InstanceID, names)
}

var containerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// survey looks at what there is of a phone.
func (e engine) survey(ctx context.Context, name, key string) (s scene, err error) {
	all, err := e.list(ctx, filters{"name": {"^/?" + regexp.QuoteMeta(name) + `(\.reset-[0-9a-f]{12})?$`}})
	if err != nil {
		return scene{}, err
	}
	for _, c := range all {
		if !containerID.MatchString(c.ID) {
			return scene{}, &engineError{call: "the list of containers", status: http.StatusOK, err: fmt.Errorf("%.80q is not the ID of a container", c.ID)}
		}
		if phoneName(c.name()) != name {
			continue // an engine that filters in another way
		}
		s.members = append(s.members, c.ID)
		_, helper := c.Labels[labelWipe]
		switch {
		case c.name() != name && c.Labels[labelReset] != key:
			s.older = append(s.older, c)
		case c.name() != name && s.twin == nil:
			s.twin, err = e.see(ctx, c)
		case c.name() != name && twinName(name, key, c.ID) == s.twin.Name:
			s.older = append(s.older, c) // somebody has started it, and ours was made of it
		case c.name() != name:
			err = errReplaced // two twins of one reset, made of different containers
		case helper:
			s.helper = &c
		default:
			s.phone, err = e.see(ctx, c)
		}
		if err != nil {
			return scene{}, err
		}
	}
	s.madeOf, err = e.origin(ctx, s, name, key)
	return s, err
}

// see looks at a container that was in a list a moment ago.
func (e engine) see(ctx context.Context, l listed) (*container, error) {
	c, err := e.inspect(ctx, l.ID)
	if err == nil && c.Name != l.name() {
		return nil, errMoved
	}
	return c, gone(err)
}

// origin is what our twin was made of, if it is still there.
func (e engine) origin(ctx context.Context, s scene, name, key string) (*container, error) {
	switch {
	case s.twin == nil:
		return nil, nil
	case s.phone != nil && twinName(name, key, s.phone.ID) == s.twin.Name:
		return s.phone, nil
	}
	for _, c := range s.older {
		if twinName(name, key, c.ID) == s.twin.Name {
			return e.see(ctx, c)
		}
	}
	return nil, nil
}

// missingNetworks are those in which our twin is not yet, although what it is made of is.
func (s scene) missingNetworks() (names []string) {
	if s.madeOf == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(s.madeOf.NetworkSettings.Networks)) {
		if _, ok := s.twin.NetworkSettings.Networks[name]; !ok {
			names = append(names, name)
		}
	}
	return names
}

// gone turns the answer that there is no such container, which there was a moment ago, into
// errMoved.
func gone(err error) error {
	if answered(err, http.StatusNotFound) {
		return errMoved
	}
	return err
}
