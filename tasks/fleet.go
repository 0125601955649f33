package tasks

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"strings"
)

// Instance is an entry of the fleet: a device, and whose it is.
type Instance struct {
	ID     string `json:"instance_id"`
	Tenant string `json:"tenant"`
	// Protected says that nobody may reset the device now. Protection says more about it.
	Protected  bool `json:"protected,omitempty"`
	Protection `json:",inline"`
	// Driver is the name of the driver that resets the device; empty: DefaultDriver.
	Driver string `json:"driver,omitempty"`
	// Address is where that driver finds it; empty: by its ID.
	Address string            `json:"address,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	// Generation counts the assignments of the device, from 1: it grows when the device gets
	// another tenant or, as somebody says, another user.
	Generation int `json:"generation,omitempty"`
}

// MaxGeneration is where the counter of assignments ends.
const MaxGeneration = 1 << 31

// Protection says who protected an instance, since when, why, and until when.
type Protection struct {
	By     string `json:"protected_by,omitempty"`
	Reason string `json:"protected_reason,omitempty"` // at most MaxReason characters
	Since  Time   `json:"protected_since,omitzero"`
	Until  Time   `json:"protected_until,omitzero"` // zero: until somebody ends it
}

// Outlasts reports whether a protection ends later than another one.
func (p Protection) Outlasts(other Protection) bool {
	return !other.Until.IsZero() && (p.Until.IsZero() || p.Until.After(other.Until.Time))
}

// Equal reports whether two protections say the same.
func (p Protection) Equal(other Protection) bool {
	return p.By == other.By && p.Reason == other.Reason && p.Since.Equal(other.Since.Time) && p.Until.Equal(other.Until.Time)
}

// Device is what the driver finds: two instances that have the same one are one device.
type Device struct{ Driver, Address string }

// Device is where the instance's driver finds it.
func (in Instance) Device() Device {
	return Device{cmp.Or(in.Driver, DefaultDriver), cmp.Or(in.Address, in.ID)}
}

// DefaultDriver is the name of the driver of instances that name none.
const DefaultDriver = "default"

var driverName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

// CheckDriver returns a sentence that says what is wrong with a driver's name, or nil.
func CheckDriver(name string) error {
	if !driverName.MatchString(name) {
		return fmt.Errorf("%.80q is not a driver's name: 1 to 32 characters of a-z 0-9 -, a letter first", name)
	}
	return nil
}

// MaxAddress is the size limit of an address in bytes.
const MaxAddress = 256

// CheckAddress returns a sentence that says what is wrong with an address, or nil. Each driver
// has its own form of it.
func CheckAddress(address string) error {
	switch {
	case len(address) > MaxAddress:
		return fmt.Errorf("is %d bytes long, the limit is %d", len(address), MaxAddress)
	case strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("%.80q has characters that are not visible ASCII", address)
	}
	return nil
}

// FleetChange is what an import says of an instance. What it does not say stays as it is.
type FleetChange struct {
	ID string
	// Tenant is the new owner; empty: the owner stays. A new instance must have one.
	Tenant string
	// Protected is nil if protection stays as it is. A new instance is not protected.
	Protected *bool
	// ProtectedBy, ProtectedReason and ProtectedUntil go with Protected, and are nil if they stay;
	// whose decision a new protection is, is that of who imports, if not said otherwise.
	ProtectedBy, ProtectedReason *string
	ProtectedUntil               *Time
	// Driver is nil if the driver stays; empty: DefaultDriver.
	Driver *string
	// Address is nil if the address stays; empty: the instance has none any more.
	Address *string
	// Labels is nil if the labels stay; empty: the instance has none any more.
	Labels map[string]string
	// Generation is 0 if the counter of assignments stays, but for a move to another tenant.
	// It never goes back.
	Generation int
	// Reassigned says that the device has another user: the counter grows by one.
	Reassigned bool
}

// Of is the entry that a change makes of one, which is zero for a new instance, if actor makes it now.
func (c FleetChange) Of(in Instance, actor Actor, now Time) Instance {
	moved := c.Tenant != "" && c.Tenant != in.Tenant
	in.ID, in.Tenant = c.ID, cmp.Or(c.Tenant, in.Tenant)
	if c.Protected != nil {
		in.protect(c, actor, now)
	}
	if c.Driver != nil {
		in.Driver = *c.Driver
	}
	if c.Address != nil {
		in.Address = *c.Address
	}
	if c.Labels != nil {
		in.Labels = maps.Clone(c.Labels)
	}
	switch {
	case c.Generation > 0:
		in.Generation = c.Generation
	case moved, c.Reassigned, in.Generation == 0:
		in.Generation++
	}
	return in
}

func (in *Instance) protect(c FleetChange, actor Actor, now Time) {
	was, began := in.Protection, in.Protected
	if !*c.Protected {
		in.Protected, in.Protection = false, Protection{}
		return
	}
	if !in.Protected {
		in.Protection = Protection{Since: now}
	}
	in.Protected = true
	if c.ProtectedReason != nil {
		in.Reason = *c.ProtectedReason
	}
	if c.ProtectedUntil != nil {
		in.Until = *c.ProtectedUntil
	}
	switch {
	case c.ProtectedBy != nil:
		in.By = *c.ProtectedBy
	case !began || in.Reason != was.Reason || !in.Until.Equal(was.Until.Time):
		in.By = actor.By
	}
}

// FleetReport is what an import has done.
type FleetReport struct {
	New, Moved, Protected int // instances
	Unprotected           int // instances whose protection ended, or ends earlier
	Readdressed           int // instances that had another driver or address, or none
	Reassigned            int // instances of the same tenant whose counter of assignments grew
}

// Add adds what another part of the import has done.
func (r *FleetReport) Add(other FleetReport) {
	r.New += other.New
	r.Moved += other.Moved
	r.Protected += other.Protected
	r.Unprotected += other.Unprotected
	r.Readdressed += other.Readdressed
	r.Reassigned += other.Reassigned
}

var tenantName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// CheckTenant returns a sentence that says what is wrong with a tenant's name,
// or nil.
func CheckTenant(name string) error {
	if !tenantName.MatchString(name) {
		return fmt.Errorf("%.80q is not a tenant: 1 to 64 characters of A-Z a-z 0-9 . _ -", name)
	}
	return nil
}
