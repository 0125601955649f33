package execdriver

import (
	"time"

	"github.com/go-json-experiment/json"

	"batchreset/worker"
)

// version is that of the protocol. Fields may be added to a request under the same version.
const version = 1

// The modes in which a program is run.
const (
	modeReset = "reset"
	modeLook  = "look"
)

// request is what a program reads, in one line.
type request struct {
	Version    int               `json:"version"`
	Mode       string            `json:"mode"`
	InstanceID string            `json:"instance_id"`
	Address    string            `json:"address"`
	ItemID     string            `json:"item_id"`
	Attempt    int               `json:"attempt"`
	DriverKey  string            `json:"driver_key"`
	Deadline   string            `json:"deadline"` // when it is told to stop; empty: nobody knows yet
	Ambiguous  bool              `json:"ambiguous"`
	Checkpoint string            `json:"checkpoint"`
	Labels     map[string]string `json:"labels"`
}

// encode makes the line that a program reads.
func encode(a worker.Attempt, mode string, deadline time.Time) ([]byte, error) {
	r := request{
		Version: version, Mode: mode, InstanceID: a.InstanceID, Address: a.Address,
		ItemID: a.ItemID, Attempt: a.Number, DriverKey: a.Key,
		Ambiguous: a.Ambiguous, Checkpoint: a.Checkpoint, Labels: a.Labels,
	}
	if !deadline.IsZero() {
		r.Deadline = deadline.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	line, err := json.Marshal(r, json.Deterministic(true))
	return append(line, '\n'), err
}
