package serve

import (
	"context"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/tasks/redisdb/registry"
)

// lookAtSecrets says at the start whether this process can open the secrets that Redis keeps: else who has the wrong
// --secret-key-file would hear of it from callers. The process goes on, because tokens work without, and halts.
func (p *process) lookAtSecrets(seals *redisflags.Seals) step {
	return func(ctx context.Context) error {
		if exposed := seals.Exposed(); exposed != "" {
			p.log.Warn("others may read the key that seals secrets", "problem", exposed)
		}
		return p.watchSecrets(ctx)
	}
}

func (p *process) watchSecrets(ctx context.Context) error {
	seen, err := p.db.Secrets.Look(ctx)
	if err != nil {
		p.log.Warn("the secrets in Redis could not be looked at; it is tried again", "error", err)
	} else if len(seen.Unopened) > 0 {
		p.sayUnopened(seen)
	}
	p.companions = append(p.companions, part{"secrets", func(ctx context.Context) error {
		return p.db.Secrets.Watch(ctx, p.sayUnopened)
	}})
	return nil
}

func (p *process) sayUnopened(seen registry.Opening) {
	if len(seen.Unopened) == 0 {
		p.log.Info("all secrets in Redis that were looked at can be opened again", "looked_at", seen.Looked)
		return
	}
	first := seen.Unopened[0]
	p.log.Error("secrets in Redis cannot be opened: --secret-key-file is missing, or is not the one of the other processes; signed requests, webhooks and second factors fail",
		"unreadable", len(seen.Unopened), "looked_at", seen.Looked, "first", first.Kind+" "+first.ID, "error", first.Err)
}

// secretsText is what /readyz says of secrets.
func (p *process) secretsText() string {
	seen, looked := p.db.Secrets.Last()
	switch {
	case !looked:
		return "not known"
	case len(seen.Unopened) > 0:
		return "unreadable"
	}
	return "ok"
}
