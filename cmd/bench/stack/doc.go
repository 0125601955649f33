// Package stack is what the benchmark measures: a redis-server, the processes of the service
// that use it, and what these cost: processor time, memory, Redis commands.
package stack
