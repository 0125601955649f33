package tasks

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// TypeReset is the asynq type of a delivery. Workers of every version that may
// run side by side must know it: a renamed type is archived as unhandled.
const TypeReset = "instance:reset"

// Delivery is the payload of an asynq task: one handing-over of an item to the
// workers. It is readable on the dashboard. The tenant and the instance let the
// worker lock the instance before it opens the record; begin compares the
// instance with the record's, so a forged or damaged payload cannot reset the
// wrong phone.
type Delivery struct {
	ItemID     string `json:"item_id"`
	Number     int    `json:"delivery"`
	InstanceID string `json:"instance_id"`
	Tenant     string `json:"tenant"`
	// Driver is the name of the driver whose queue the task is in; empty: DefaultDriver.
	Driver string `json:"driver,omitempty"`
	// Run is the run of which the job is a part, or empty.
	Run string `json:"run,omitempty"`
	// Generation is the instance's that the job is for; 0: any.
	Generation int `json:"generation,omitempty"`
	// AllowUnregistered says that the job was accepted without asking that its instances are
	// registered, so the worker does not ask either.
	AllowUnregistered bool `json:"open,omitempty"`
	// Epoch is the record's. It is in the task's ID and not in its payload.
	Epoch string `json:"-"`
}

// TaskID is the asynq task ID of the delivery: <job>-<n>-<delivery>-<epoch>, without the
// last part if the record is of an older version. asynq refuses an ID that it still knows,
// which makes enqueuing safe to repeat.
func (d Delivery) TaskID() string {
	id := d.ItemID + "-" + strconv.Itoa(d.Number)
	if d.Epoch != "" {
		id += "-" + d.Epoch
	}
	return id
}

// EpochOf is the epoch in the ID of a task, or empty.
func EpochOf(taskID string) string {
	if parts := strings.Split(taskID, "-"); len(parts) == 4 {
		return parts[3]
	}
	return ""
}

// DriverName is the name of the driver.
func (d Delivery) DriverName() string { return cmp.Or(d.Driver, DefaultDriver) }

// Encode returns the task payload.
func (d Delivery) Encode() []byte {
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // strings and a number always encode
	}
	return b
}

// DecodeDelivery reads a task payload and checks that it is complete.
func DecodeDelivery(payload []byte) (Delivery, error) {
	var d Delivery
	if err := json.Unmarshal(payload, &d); err != nil {
		return Delivery{}, fmt.Errorf("task payload is not a delivery: %w", err)
	}
	if _, _, ok := ParseItemID(d.ItemID); !ok {
		return Delivery{}, fmt.Errorf("task payload: item_id %.80q is not an item ID", d.ItemID)
	}
	if err := CheckInstanceID(d.InstanceID); err != nil {
		return Delivery{}, fmt.Errorf("task payload: instance_id %w", err)
	}
	if d.Driver != "" {
		if err := CheckDriver(d.Driver); err != nil {
			return Delivery{}, fmt.Errorf("task payload: driver %w", err)
		}
	}
	if d.Run != "" && !ValidJobID(d.Run) {
		return Delivery{}, fmt.Errorf("task payload: run %.80q is not a run ID", d.Run)
	}
	if d.Number < 1 || d.Tenant == "" {
		return Delivery{}, fmt.Errorf("task payload: delivery or tenant is missing")
	}
	return d, nil
}
