// Command bench measures the service against its targets, and against plain asynq on the
// same redis-server in the same run, because machines drift. It builds the service, starts
// its own redis-server, prints a table, and fails when a target is missed by more than the
// noise that it measured. deploy/BENCHMARKS.md says what each row is.
package main
