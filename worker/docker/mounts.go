package docker

import (
	"cmp"
	"encoding/json"
	"path"
	"slices"
	"strings"
)

// id names the same thing in two containers that have it mounted.
func (m mount) id() string { return m.Type + " " + cmp.Or(m.Name, m.Source) }

// source is what people call it.
func (m mount) source() string { return cmp.Or(m.Name, m.Source) }

// lasting are the mounts that a container has in common with its twin. Others are memory, and
// volumes without a name, of which each container has its own.
func (c *container) lasting() (all []mount) {
	var binds []string
	c.HostConfig.get("Binds", &binds)
	var mounts []struct{ Source string }
	c.HostConfig.get("Mounts", &mounts)
	for _, m := range c.Mounts {
		named := slices.ContainsFunc(binds, func(bind string) bool { return strings.HasPrefix(bind, m.Name+":") }) ||
			slices.ContainsFunc(mounts, func(other struct{ Source string }) bool { return other.Source == m.Name })
		if m.Type != "tmpfs" && (m.Type != "volume" || named) {
			all = append(all, m)
		}
	}
	return all
}

// data are the mounts of a phone that a reset empties.
func (c *Config) data(phone *container) []mount {
	return slices.DeleteFunc(phone.lasting(), func(m mount) bool { return !withinAny(m.Destination, c.Data) })
}

// inData are all mounts of a phone that have data, volumes of its own included: others may use them
// (--volumes-from), and would keep what the last user wrote there.
func (c *Config) inData(phone *container) (all []mount) {
	for _, m := range phone.Mounts {
		if m.Type != "tmpfs" && withinAny(m.Destination, c.Data) {
			all = append(all, m)
		}
	}
	return all
}

// checkPhone refuses what cannot be copied, what cannot be emptied, and what nobody has named.
func (c *Config) checkPhone(phone *container) error {
	var links, volumesFrom []string
	phone.HostConfig.get("Links", &links)
	phone.HostConfig.get("VolumesFrom", &volumesFrom)
	switch {
	case strings.HasPrefix(phone.networkMode(), "container:"):
		return refuse("the phone uses the network of another container (%s)", phone.networkMode())
	case len(links) > 0:
		return refuse("the phone has links of the old kind (--link), which cannot be copied: use a network")
	case len(volumesFrom) > 0:
		return refuse("the phone has the volumes of another container (--volumes-from)")
	}
	if err := phone.checkTold(); err != nil {
		return err
	}
	for _, m := range phone.lasting() {
		if err := c.checkMount(m, phone); err != nil {
			return err
		}
	}
	return c.checkSubpaths(phone)
}

// checkTold refuses a phone of which the engine tells two stories: what it was created with must be
// among its mounts, or a reset would be called done with the data still there.
func (c *container) checkTold() error {
	var binds []string
	var mounts []struct{ Type, Target string }
	for field, into := range map[string]any{"Binds": &binds, "Mounts": &mounts} {
		if value, told := c.HostConfig[field]; told && json.Unmarshal(value, into) != nil {
			return refuse("what the engine tells of the phone's mounts is not understood: HostConfig.%s is %.80s", field, value)
		}
	}
	var folders []string
	for _, bind := range binds {
		if _, rest, named := strings.Cut(bind, ":"); named {
			bind = rest
		}
		folder, _, _ := strings.Cut(bind, ":")
		folders = append(folders, folder)
	}
	for _, m := range mounts {
		if m.Type == "bind" || m.Type == "volume" {
			folders = append(folders, m.Target)
		}
	}
	for _, folder := range folders {
		if !slices.ContainsFunc(c.Mounts, func(m mount) bool { return path.Clean(m.Destination) == path.Clean(folder) }) {
			return refuse("the phone was created with something mounted at %.80s, and the engine does not tell of it among the mounts", folder)
		}
	}
	return nil
}

// engines have these folders of the host in many containers; nobody's data is there.
var devices = []string{"/dev", "/proc", "/sys"}

func (c *Config) checkMount(m mount, phone *container) error {
	inside := func(other mount) bool {
		return other.Destination != m.Destination && within(m.Destination, other.Destination)
	}
	switch data := withinAny(m.Destination, c.Data); {
	case data && slices.ContainsFunc(phone.Mounts, inside):
		return refuse("the mount %s lies in another one of the phone's data, and cannot be emptied with it", m.Destination)
	case data && !m.RW:
		return refuse("the mount %s is read-only, and is in the setting data", m.Destination)
	case !data && m.RW && !withinAny(m.Destination, c.Keep) && !withinAny(m.Destination, devices):
		return refuse("the mount %s is writable, and is neither in the setting data nor in keep: what the last user wrote there would stay", m.Destination)
	}
	return nil
}

// checkSubpaths refuses a part of a volume: its other parts may be other phones'.
func (c *Config) checkSubpaths(phone *container) error {
	var mounts []struct {
		Target        string
		VolumeOptions struct{ Subpath string }
	}
	phone.HostConfig.get("Mounts", &mounts)
	for _, m := range mounts {
		if m.VolumeOptions.Subpath != "" && withinAny(m.Target, c.Data) {
			return refuse("the mount %s is a part of a volume that other phones may share: give the phone a volume of its own", m.Target)
		}
	}
	return nil
}

// checkNeighbours refuses a phone whose data or network other containers use, too.
func checkNeighbours(phone *container, data []mount, others []listed) error {
	for _, other := range others {
		if mode := other.HostConfig.NetworkMode; mode == "container:"+phone.ID || mode == "container:"+phoneName(phone.Name) {
			return refuse("the container %s uses the network of this phone, and would lose it", other.name())
		}
		for _, m := range data {
			if slices.ContainsFunc(other.Mounts, m.touches) {
				return refuse("the container %s mounts %s, too, where this phone has its data", other.name(), m.source())
			}
		}
	}
	return nil
}

// touches says whether emptying a mount could harm another container, or whether that one could
// write there meanwhile. What has all of the host mounted to read it is a monitor, and what has the
// engine's own folder, with the volumes in it, manages them.
func (m mount) touches(other mount) bool {
	switch {
	case other.Type == "tmpfs":
		return false
	case m.id() == other.id(), m.Source != "" && within(other.Source, m.Source):
		return true
	}
	return m.Type == "bind" && other.Type == "bind" && other.RW && within(m.Source, other.Source)
}
