package redisflags

import (
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/registry"
)

// DefineReplicas is for the processes that change jobs.
func DefineReplicas(flags *pflag.FlagSet, n *int) {
	flags.IntVar(n, "commit-replicas", 0, "how many Redis replicas must have a change of a job before it counts; give api and worker the same")
	terminal.Settings(flags, "commit-replicas")
}

// DefineQueues is for api and worker.
func DefineQueues(flags *pflag.FlagSet, n *int) {
	flags.IntVar(n, "queues", 16, "how many asynq queues jobs are spread over, tenant by tenant; give api and worker the same")
	terminal.Settings(flags, "queues")
}

// DefineFullAt is for everything that accepts new work.
func DefineFullAt(flags *pflag.FlagSet, percent *int) {
	flags.IntVar(percent, "full-at", registry.DefaultFullAt, "`percent` of Redis's maxmemory from which no new work is accepted: submits, retries, imports; give api and worker the same")
	terminal.Settings(flags, "full-at")
}

// CheckFullAt returns an error that names the flag unless percent is from 1 to 100.
func CheckFullAt(percent int) error {
	if percent < 1 || percent > 100 {
		return fmt.Errorf("--full-at must be from 1 to 100, not %d", percent)
	}
	return nil
}

// CheckShared checks what api and worker have in common.
func CheckShared(db redisdb.Options) error {
	switch {
	case db.CommitReplicas < 0:
		return errors.New("--commit-replicas must not be negative")
	case db.Queues < 1 || db.Queues > 1024:
		return fmt.Errorf("--queues must be from 1 to 1024, not %d", db.Queues)
	}
	return CheckFullAt(db.FullAt)
}

// DefineWebhookPrivate is for what sends webhooks and for what checks their URLs.
func DefineWebhookPrivate(flags *pflag.FlagSet, allowed *bool, value bool) {
	flags.BoolVar(allowed, "webhook-allow-private", value, "allow webhooks over http, and to addresses that are not public: loopback, private, link-local, metadata")
	terminal.Settings(flags, "webhook-allow-private")
}
