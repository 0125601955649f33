package serve

import (
	"batchreset/api"
	"batchreset/api/ops"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/runs"
	"batchreset/worker"
)

// What the parts of a process need of the store meets what the store has here.

func apiStore(db *redisdb.DB) api.Store {
	return api.Store{
		Tokens: db.Tokens, Fleet: db.Fleet, Records: db.Records, Reader: db.HeldJobs, Quotas: db.Quotas,
		Policies: db.Policies, Server: db, Storage: db.Storage, Clock: db.Redis,
	}
}

func opsStore(db *redisdb.DB) ops.Store {
	return ops.Store{
		Operators: db.Operators, Accounts: db.Operators, Forms: db.Operators, AuditTrail: db.Audit, Jobs: db.Jobs, Records: db.Records, Runs: runStore{db.Runs, db.RunDecisions},
		FailureIndex: db.Failures, Fleet: db.Fleet, Workers: db.Workers,
		Credentials: db.Tokens, Policies: db.Policies, Quotas: db.Quotas, Endpoints: db.Endpoints, Notices: db.Notices, Summary: db.Overview, Server: db, Clock: db.Redis,
	}
}

func workerStore(db *redisdb.DB) worker.Store {
	return worker.Store{Attempts: db.Attempts, Policies: db.Policies, Quotas: db.Quotas, Notices: db.Notices, Routes: db.Sweep, Reports: db.Workers}
}

func runnerStore(db *redisdb.DB) worker.RunnerStore {
	return worker.RunnerStore{Runs: db.Runs, RunProgress: db.RunProgress, RunNotices: db.Notices, RunHalts: db.Policies, RunJobs: db.Records, RunFleet: db.Fleet}
}

func sweepStore(db *redisdb.DB) worker.SweepStore {
	return worker.SweepStore{OpenJobs: db.Sweep, Jobs: db.Jobs, Events: db.Notices, Failures: db.Failures, AllHalted: db.Policies}
}

// runStore is what the API and the site need of runs.
type runStore struct {
	*runs.Runs
	*runs.Decisions
}
