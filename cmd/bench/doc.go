// Command bench measures the service against its targets, and against plain asynq on the
// same redis-server in the same run, because machines drift. It builds the service, starts
// its own redis-server, prints a table, and fails when a target is missed by more than the
// noise that it measured. deploy/BENCHMARKS.md says what each row is.
//
// The rows are here. They start what they measure with package stack, put it under load with
// package load, and say what came of it with package report.
package main
