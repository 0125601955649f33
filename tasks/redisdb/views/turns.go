package views

import (
	"context"
	"sync"
	"time"

	"batchreset/tasks"
)

// turns let one at a time do something for a tenant.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed at the end of the turn
}

// take takes the tenant's turn, for which it waits so long at the most. The caller ends it.
// Errors: tasks.TooManyRequests.
func (t *turns) take(ctx context.Context, tenant string, patience time.Duration) (end func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		t.mu.Lock()
		other := t.taken[tenant]
		if other == nil {
			mine := make(chan struct{})
			if t.taken == nil {
				t.taken = map[string]chan struct{}{}
			}
			t.taken[tenant] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.taken, tenant)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, &tasks.Error{
				Code: tasks.TooManyRequests, Message: "another list of the tenant goes through its jobs, one at a time may", RetryAfter: time.Second,
			}
		}
	}
}
