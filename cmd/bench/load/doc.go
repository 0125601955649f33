// Package load makes the requests of the benchmark: batches that share no instance, callers
// that cost little themselves, crowds of them, calls that wait for each other (a closed
// loop) or arrive by chance (an open one), and what they say about latencies.
package load
