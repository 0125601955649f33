package serve

import (
	"context"
	"io"
	"log/slog"
	"os"

	"golang.org/x/term"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// otherFiles is about what a process has open beside what its settings say: connections to
// Redis, to operators, and to callers who ask nothing just now.
const otherFiles = 500

// sayFiles tells the log when a process may need more files (connections are files) than it
// may open: new connections would not be answered then.
func sayFiles(log *slog.Logger, sockets int) {
	limit, err := fileLimit()
	if err != nil {
		log.Debug("limit of open files not read", "error", err)
		return
	}
	if need := sockets + otherFiles; limit < uint64(need) {
		log.Warn("this process may need more open files than its limit allows; then it does not answer. Raise the limit (ulimit -n, LimitNOFILE), or lower --max-waiters of an api, --concurrency of a worker",
			"limit", limit, "may_need", need)
	}
}

// newLogger writes text on a terminal and JSON otherwise.
func newLogger(w io.Writer) *slog.Logger {
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(terminal.VisibleWriter{Writer: w}, nil))
	}
	return slog.New(slog.NewJSONHandler(terminal.VisibleWriter{Writer: w}, nil))
}

// logging has every entry of the audit trail in the log, too, keeps those that have to be
// written later, which is for WriteTrail, and has in the log what lists leave out.
func logging(opts redisdb.Options, log *slog.Logger) redisdb.Options {
	opts.Log, opts.LateEntries = log, 10_000
	opts.Audited = func(e tasks.AuditEntry, missing error) {
		level, attrs := slog.LevelInfo, e.LogAttrs()
		if missing != nil {
			level, attrs = slog.LevelWarn, append(attrs, slog.Bool("in_trail", false), slog.String("error", missing.Error()))
		}
		log.LogAttrs(context.Background(), level, "audit", attrs...)
	}
	return opts
}
