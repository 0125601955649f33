package serve

import (
	"log/slog"

	"go.opentelemetry.io/otel/trace"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks/redisdb"
	"batchreset/worker"
	"batchreset/worker/webhook"
)

// newTeller makes what sends webhooks.
func newTeller(db *redisdb.DB, allowPrivate bool, tracer trace.Tracer, log *slog.Logger) *worker.Teller {
	return worker.NewTeller(redisdb.WebhookQueue, db, webhook.NewSender(terminal.UserAgent(), allowPrivate, db.Now), db.NewServer, tracer, log)
}
