package wire

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// subscribeEvery is how often a subscription is made anew: Redis may have refused it to a user
// who may have it now.
const subscribeEvery = 5 * time.Second

// subscription is that of the whole process, on one connection. It begins when somebody listens.
type subscription struct {
	rdb redis.UniversalClient

	mu      sync.Mutex
	ears    map[string]map[*ear]bool // by channel
	sub     *redis.PubSub            // nil until somebody listens
	changed chan struct{}            // there is a new channel
	running sync.WaitGroup
}

type ear struct{ heard func(payload string) }

func newSubscription(rdb redis.UniversalClient) *subscription {
	return &subscription{rdb: rdb, ears: map[string]map[*ear]bool{}, changed: make(chan struct{}, 1)}
}

// listen calls heard, which must not wait for anything, with what comes over a channel, until
// stop is called. Some may be missed, when the connection to Redis breaks for example.
func (s *subscription) listen(channel string, heard func(payload string)) (stop func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := &ear{heard}
	if s.ears[channel] == nil {
		s.ears[channel] = map[*ear]bool{}
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}
	s.ears[channel][e] = true
	if s.sub == nil {
		s.sub = s.rdb.Subscribe(context.Background())
		s.running.Go(func() { s.run(s.sub) })
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.ears[channel], e)
	}
}

// run tells what comes until sub is closed. go-redis repairs its connection.
func (s *subscription) run(sub *redis.PubSub) {
	s.subscribe(sub)
	messages := sub.Channel()
	again := time.NewTicker(subscribeEvery)
	defer again.Stop()
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				return
			}
			s.tell(m)
		case <-s.changed:
			s.subscribe(sub)
		case <-again.C:
			s.subscribe(sub)
		}
	}
}

func (s *subscription) subscribe(sub *redis.PubSub) {
	s.mu.Lock()
	channels := slices.Collect(maps.Keys(s.ears))
	s.mu.Unlock()
	// Without a connection it is made up for when there is one. Twice is as good as once.
	_ = sub.Subscribe(context.Background(), channels...)
}

func (s *subscription) tell(m *redis.Message) {
	s.mu.Lock()
	ears := slices.Collect(maps.Keys(s.ears[m.Channel]))
	s.mu.Unlock()
	for _, e := range ears {
		e.heard(m.Payload)
	}
}

func (s *subscription) close() {
	s.mu.Lock()
	sub := s.sub
	s.mu.Unlock()
	if sub != nil {
		_ = sub.Close() // nothing is lost with it
		s.running.Wait()
	}
}

// Subscribed calls heard, which must not wait for anything, with what comes over a channel,
// until ctx ends. All who listen in this process share one connection. Some may be missed,
// when it breaks for example.
func (c *Client) Subscribed(ctx context.Context, channel string, heard func(payload string)) error {
	defer c.shared.listen(channel, heard)()
	<-ctx.Done()
	return nil
}
