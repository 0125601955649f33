package terminal

import (
	"os"
	"os/user"
	"strconv"

	"batchreset/tasks"
)

// Actor is the user who runs this command, as far as this machine knows, and the reason
// that was given.
func Actor(reason string) tasks.Actor {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	} else if uid := os.Getuid(); uid >= 0 { // a container has no list of users
		name = strconv.Itoa(uid)
	}
	if h, err := os.Hostname(); err == nil {
		host = h
	}
	return tasks.Actor{By: "user " + name + "@" + host, Reason: reason}
}
