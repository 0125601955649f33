package worker

import (
	"context"
	"time"

	"batchreset/tasks"
)

// relistEvery is how often it is looked whether every open job and run is listed as open.
const relistEvery = time.Hour

// relist is when that was done last.
type relist struct {
	at   time.Time
	halt tasks.Time // of the halt of everything that held then
}

// Relist has jobs and runs listed that are open, and that no sweep would come to. In a Cluster some servers can go back to an
// earlier moment than others. Whoever restores them has everything halted; so it is looked once in each halt, besides once when
// this process begins to lead, and every hour.
func (s *Sweeper) Relist(ctx context.Context) error {
	if !s.leads.Load() {
		s.relist = relist{}
		return nil
	}
	policy, err := s.store.PolicyOf(ctx, "", "")
	if err != nil {
		return err
	}
	now := relist{at: time.Now()}
	if policy.OperatorHalt != nil {
		now.halt = policy.OperatorHalt.Since
	}
	if now.at.Sub(s.relist.at) < relistEvery && (now.halt.IsZero() || now.halt.Equal(s.relist.halt.Time)) {
		return nil
	}
	listed, err := s.store.Relist(ctx)
	if listed > 0 {
		s.log.Warn("open jobs and runs were not listed as open, and are now", "number", listed)
	}
	if err == nil {
		s.relist = now
	}
	return err
}
