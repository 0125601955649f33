// Package views is what people look things up by: job records by ID, tenant, time, instance
// and failure; what operators see at a glance; how the servers of Redis are. The indexes are
// written here, too, in the pipelines of those who change something.
//
// Keys:
//
//	reset:jobs:{<tenant>}     a tenant's jobs by creation time
//	reset:jobs                the jobs of all tenants by creation time
//	reset:instances:<day>     jobs by instance, see instances.go
//	reset:failures            kinds of failures by the time of the last one
//	reset:failures:{<driver> <code>}  items that failed so, by time
//	reset:activity:<minute>   numbers of items, for charts; fields with a tenant are what ended of it
//	reset:census, :turn       the last count of open work, and who counts next, see census.go
package views
