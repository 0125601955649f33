package serve

import (
	"context"
	"errors"
	"time"

	"batchreset/api/ops"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/seal"
	"batchreset/worker/webhook"
)

// webhookSender is what the site needs to check and to try endpoints.
type webhookSender struct {
	db      *redisdb.DB
	private bool // they may have private addresses
}

// CheckURL implements ops.WebhookSender.
func (w webhookSender) CheckURL(ctx context.Context, url string) error {
	return webhook.CheckURL(ctx, url, w.private)
}

// Test implements ops.WebhookSender.
func (w webhookSender) Test(ctx context.Context, e tasks.Endpoint) (ops.WebhookTest, error) {
	e, err := w.db.Endpoints.Endpoint(ctx, e.Tenant, e.ID) // with its secrets
	if errors.Is(err, seal.ErrNotOpened) {
		return ops.WebhookTest{}, tasks.Errorf(tasks.JobFinal, "This process cannot read the endpoint's secret: start it with the --secret-key-file that the other processes have.")
	}
	if err != nil {
		return ops.WebhookTest{}, err
	}
	sender := webhook.NewSender(terminal.UserAgent(), w.private, w.db.Redis.Now)
	defer sender.Close()
	began := time.Now()
	reply := sender.SendTest(ctx, e)
	return ops.WebhookTest{Status: reply.Status, Text: reply.Text, Err: reply.Err, Took: time.Since(began)}, nil
}
