package codec

import (
	"strconv"
	"time"

	"batchreset/tasks"
)

const (
	// OpenKey has the open jobs by the time of their next sweep.
	OpenKey = "reset:open"
	// AllJobsKey has the jobs of all tenants by creation time.
	AllJobsKey = "reset:jobs"
)

// JobsKey has a tenant's jobs by creation time.
func JobsKey(tenant string) string { return AllJobsKey + ":{" + tenant + "}" }

// JobKey is a job record.
func JobKey(job string) string { return "reset:{" + job + "}" }

// LockKey has the item and the attempt that reset the instance, see LockValue.
func LockKey(instance string) string { return "reset:lock:{" + instance + "}" }

// FleetKey is an instance's entry in the fleet.
func FleetKey(instance string) string { return "reset:fleet:{" + instance + "}" }

// DeviceKey has the instances that claimed a device, by when.
func DeviceKey(d tasks.Device) string { return "reset:address:" + d.Driver + ":" + d.Address }

// OpenRunsKey has the runs that have not ended, by when a runner looks at them next.
const OpenRunsKey = "reset:runs"

// AllRunsKey has the runs of all tenants by creation time.
const AllRunsKey = OpenRunsKey + ":all"

// RunsKey has a tenant's runs by creation time.
func RunsKey(tenant string) string { return OpenRunsKey + ":{" + tenant + "}" }

// RunKey is the record of a run.
func RunKey(run string) string { return "reset:run:{" + run + "}" }

// RunListKey is the list of a run, in parts.
func RunListKey(run string) string { return RunKey(run) + ":list" }

// RunFailedKey has the numbers of the parts of a run whose jobs have ended with failed or unknown instances.
func RunFailedKey(run string) string { return RunKey(run) + ":failed" }

// LockValue is what the lock of an instance holds while an attempt has it.
func LockValue(d tasks.Delivery, token string) string { return d.ItemID + " " + token }

// RecordOf returns the record's key and the item's number. The item ID of a
// decoded delivery is always well formed.
func RecordOf(d tasks.Delivery) (key string, n int) {
	job, n, _ := tasks.ParseItemID(d.ItemID)
	return JobKey(job), n
}

// Fields of a job record.
const (
	// RevField is one that every change of the record writes.
	RevField = "rev"
	// ToldField has the number of the last ending that the tenant was told, see told.lua.
	ToldField = "told"
	// AgainField has when somebody last had the job tried again (ms), see reopen.lua.
	AgainField = "again"
	// ByField has who asked for the job, see By.
	ByField = "by"
)

// By is ByField for somebody who asks from an address; either may be empty.
func By(by, from string) string {
	if by == "" && from == "" {
		return ""
	}
	return from + " " + by // no address has a space
}

// ItemToldField is ToldField for item n.
func ItemToldField(n int) string { return ToldField + ":" + strconv.Itoa(n) }

// ListingGrace is how long a job may be listed before its record exists. A
// listing without a record is dropped after this time, and a create refuses to
// run after half of it, so that no job can exist unlisted.
const ListingGrace = time.Minute
