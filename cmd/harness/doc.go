// Package harness starts real processes on this machine: redis-server alone, behind
// Sentinels or as a Cluster, the batchreset binary, and any other program. The benchmark,
// the fault injection and the tests use it; nothing else may.
//
// A process never outlives the program that started it. On Linux the kernel sees to that,
// even when the program is killed; elsewhere it takes a program that comes to its end.
package harness
