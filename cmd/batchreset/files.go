package main

import (
	"log/slog"
	"syscall"
)

// otherFiles is about what a process has open beside what its settings say: connections to
// Redis, to operators, and to callers who ask nothing just now.
const otherFiles = 500

// sayFiles tells the log when a process may need more files (connections are files) than it
// may open: new connections would not be answered then.
func sayFiles(log *slog.Logger, sockets int) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		log.Debug("limit of open files not read", "error", err)
		return
	}
	if need := sockets + otherFiles; limit.Cur < uint64(need) {
		log.Warn("this process may need more open files than its limit allows; then it does not answer. Raise the limit (ulimit -n, LimitNOFILE), or lower --max-waiters of an api, --concurrency of a worker",
			"limit", limit.Cur, "may_need", need)
	}
}
