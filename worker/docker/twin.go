package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The labels of our containers.
const (
	labelInstance = "batchreset.instance" // the instance's ID; people set it on their phones
	labelReset    = "batchreset.reset"    // on a twin: the driver key of its reset
	labelWipe     = "batchreset.wipe"     // on a helper: the driver key of its reset
)

// temporary is the end of a twin's name until it has the phone's.
var temporary = regexp.MustCompile(`\.reset-[0-9a-f]{12}$`)

// twinName is the temporary name of the twin that is made of a container under a driver key. So a
// twin's name says which container it may replace.
func twinName(phone, key, madeOf string) string {
	sum := sha256.Sum256([]byte(key + " " + madeOf))
	return phone + ".reset-" + hex.EncodeToString(sum[:6])
}

// phoneName is the name of the phone of a container, which may be its twin.
func phoneName(container string) string { return temporary.ReplaceAllString(container, "") }

// twinOf is what a twin is created with: all that the engine tells of the container, fields that we
// do not know included, but for
//   - the label with the driver key;
//   - the host name, if it is the old container's ID, or the host's;
//   - the image as an ID, if its name leads to another image by now.
func twinOf(c *container, key string, named image) object {
	body := maps.Clone(c.Config)
	labels := map[string]string{}
	body.get("Labels", &labels)
	labels[labelReset] = key
	body.set("Labels", labels)

	var hostname, uts string
	body.get("Hostname", &hostname)
	c.HostConfig.get("UTSMode", &uts)
	if hostname == short(c.ID) || uts == "host" {
		delete(body, "Hostname")
	}
	if named.ID != c.Image {
		body.set("Image", c.Image)
	}
	body.set("HostConfig", c.HostConfig)
	if name, endpoint := c.firstNetwork(); len(endpoint) > 0 {
		body.set("NetworkingConfig", map[string]any{"EndpointsConfig": map[string]object{name: endpoint}})
	}
	return body
}

// firstNetwork is the network that a container is created with, and what it wants there. Engines
// before API 1.44 take no more than one.
func (c *container) firstNetwork() (name string, wants object) {
	name = c.networkMode()
	if name == "default" {
		name = "bridge"
	}
	return name, c.wants(name)
}

// wants is what a container was told to have in a network, as opposed to what the network gave it.
func (c *container) wants(network string) object {
	wants := object{}
	for _, field := range []string{"IPAMConfig", "Links", "DriverOpts", "GwPriority"} {
		if value := string(c.NetworkSettings.Networks[network][field]); value != "" && value != "null" && value != "0" {
			wants[field] = c.NetworkSettings.Networks[network][field]
		}
	}
	var aliases []string
	c.NetworkSettings.Networks[network].get("Aliases", &aliases)
	// The engine adds the ID by itself.
	aliases = slices.DeleteFunc(aliases, func(alias string) bool { return alias == short(c.ID) })
	if len(aliases) > 0 {
		wants.set("Aliases", aliases)
	}
	return wants
}

// changeImage gives a twin another image. What the container has from its old image, and not from
// the people who made it, comes from the new one: the engine tells of both as one.
func changeImage(body object, name string, old object) {
	for field, value := range body {
		switch field {
		case "Env":
			var its, images []string
			body.get(field, &its)
			old.get(field, &images)
			body.set(field, slices.DeleteFunc(its, func(v string) bool { return slices.Contains(images, v) }))
		case "Labels":
			its, images := map[string]string{}, map[string]string{}
			body.get(field, &its)
			old.get(field, &images)
			maps.DeleteFunc(its, func(name, v string) bool { from, ok := images[name]; return ok && from == v })
			body.set(field, its)
		case "ExposedPorts", "Volumes":
			its, images := object{}, object{}
			body.get(field, &its)
			old.get(field, &images)
			maps.DeleteFunc(its, func(name string, _ json.RawMessage) bool { _, ok := images[name]; return ok })
			body.set(field, its)
		case "Cmd", "Entrypoint", "Healthcheck", "WorkingDir", "User", "StopSignal", "Shell", "OnBuild":
			if string(value) == string(old[field]) {
				delete(body, field)
			}
		}
	}
	body.set("Image", name)
}

// setProperties adds arguments name=value to a twin's command, or replaces those with the same name.
func setProperties(body object, properties map[string]string, imageCmd []string) {
	if len(properties) == 0 {
		return
	}
	var cmd []string
	body.get("Cmd", &cmd)
	if _, ok := body["Cmd"]; !ok {
		cmd = slices.Clone(imageCmd)
	}
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		cmd = slices.DeleteFunc(cmd, func(arg string) bool { return strings.HasPrefix(arg, name+"=") })
		cmd = append(cmd, name+"="+properties[name])
	}
	body.set("Cmd", cmd)
}
