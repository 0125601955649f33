package notify

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"batchreset/tasks"
	"batchreset/worker/webhook"
)

const (
	// every is the pause between two rounds, roundTime bounds one, and leadFor is how long one that died keeps others from
	// telling: longer than a round, so that no two tell the same.
	every     = 15 * time.Second
	roundTime = 40 * time.Second
	leadFor   = 60 * time.Second
	// sendTime bounds what a receiver has to answer.
	sendTime = 10 * time.Second
	// firstRetry and lastRetry bound the time until a receiver that takes nothing is tried again. It doubles.
	firstRetry, lastRetry = 15 * time.Second, 10 * time.Minute
	// forgetAfter is when a receiver is forgotten that is named no more.
	forgetAfter = 2 * tasks.AlertAgain
	// MaxReceivers is how many receivers there may be.
	MaxReceivers = 10
)

// Config says who is told, and how.
type Config struct {
	URLs   []string
	Format Format
	Secret string // that signs in the format Webhook
	Site   string // URL of the operators' site; empty: messages have no links
}

// Store keeps what was told, for all processes.
type Store interface {
	Lead(ctx context.Context, token string, ttl time.Duration) (told tasks.AlertStates, leads bool, err error)
	Keep(ctx context.Context, token string, ttl time.Duration, told tasks.AlertStates) (leads bool, err error)
	Now() time.Time
}

// Transport sends to receivers: webhook.Sender.
type Transport interface {
	Send(ctx context.Context, e tasks.Endpoint, eventID string, body []byte) webhook.Reply
	SendPlain(ctx context.Context, url string, body []byte) webhook.Reply
	Close()
}

// receiver is one URL.
type receiver struct {
	url  string
	name string // in the store: no secret
	said string // in the log

	failed int       // how often in a row it took nothing
	next   time.Time // it is not tried before
}

// Notifier tells operators. As a prometheus.Collector it tells how that went.
type Notifier struct {
	prometheus.Collector
	cfg       Config
	store     Store
	sources   Sources
	transport Transport
	log       *slog.Logger
	token     string
	receivers []*receiver
	sent      *prometheus.CounterVec

	// unsaved is what was told when Redis could not keep it; nil: it has it.
	unsaved tasks.AlertStates
}

// New makes a notifier. The caller has checked the configuration.
func New(cfg Config, store Store, sources Sources, transport Transport, log *slog.Logger) *Notifier {
	registry := prometheus.NewRegistry()
	n := &Notifier{
		Collector: registry, cfg: cfg, store: store, sources: sources, transport: transport, log: log, token: rand.Text(),
		sent: promauto.With(registry).NewCounterVec(prometheus.CounterOpts{
			Name: "batchreset_notifications_total",
			Help: "Messages to operators' receivers, by outcome.",
		}, []string{"outcome"}),
	}
	n.sent.WithLabelValues("sent")
	n.sent.WithLabelValues("failed")
	for i, u := range cfg.URLs {
		sum := sha256.Sum256([]byte(u))
		n.receivers = append(n.receivers, &receiver{url: u, name: hex.EncodeToString(sum[:8]), said: fmt.Sprintf("%d (%s)", i+1, hostOf(u))})
	}
	return n
}

// Run tells until ctx ends.
func (n *Notifier) Run(ctx context.Context) error {
	defer n.transport.Close()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if err := n.Round(ctx); err != nil && ctx.Err() == nil {
			n.log.Warn("operators may not be told of everything", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Round looks once, and tells what is to be told, if no other process does. Its error is about what could not be looked at or
// kept; a receiver that takes nothing is logged.
func (n *Notifier) Round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	states, leads, err := n.store.Lead(ctx, n.token, leadFor)
	if err != nil || !leads {
		if err == nil {
			n.unsaved = nil // who leads knows better
		}
		return err
	}
	if n.unsaved != nil {
		states = n.unsaved
	}
	now := n.store.Now()
	found := n.sources.look(ctx, now)
	states.See(found.alerts, found.looked, now)
	states.Forget(n.names(), forgetAfter, now)
	// What was seen is kept before anything is sent, and whether this process still leads is asked.
	leads, err = n.store.Keep(ctx, n.token, leadFor, states)
	switch {
	case err == nil && !leads:
		return found.err
	case err == nil:
		n.unsaved = nil
	}
	if n.tell(ctx, states, now) || err != nil {
		if _, err = n.store.Keep(context.WithoutCancel(ctx), n.token, leadFor, states); err != nil {
			n.unsaved = states
		} else {
			n.unsaved = nil
		}
	}
	return errors.Join(found.err, err)
}

func (n *Notifier) names() map[string]bool {
	names := map[string]bool{}
	for _, r := range n.receivers {
		names[r.name] = true
	}
	return names
}

// tell sends each receiver what it is to be told, side by side, and reports whether one has taken it.
func (n *Notifier) tell(ctx context.Context, states tasks.AlertStates, now time.Time) (told bool) {
	type result struct {
		changes []change
		taken   bool
	}
	results := make([]result, len(n.receivers))
	var all sync.WaitGroup
	for i, r := range n.receivers {
		changes := n.due(states, r.name, now)
		if len(changes) == 0 || now.Before(r.next) {
			continue
		}
		all.Go(func() { results[i] = result{changes, n.send(ctx, r, changes, now)} })
	}
	all.Wait()
	for i, res := range results {
		if !res.taken {
			continue
		}
		told = true
		for _, c := range res.changes {
			states.Tell(c.key, n.receivers[i].name, c.What, now)
		}
	}
	return told
}

// due are the changes that a receiver is to be told, those that begin first.
func (n *Notifier) due(states tasks.AlertStates, name string, now time.Time) (changes []change) {
	for key, s := range states {
		what := s.Due(name, now)
		if what == "" {
			continue
		}
		c := change{AlertState: s, What: what, key: key}
		if n.cfg.Site != "" {
			c.URL = strings.TrimSuffix(n.cfg.Site, "/") + "/" + s.Path
		}
		changes = append(changes, c)
	}
	slices.SortFunc(changes, func(a, b change) int {
		return cmp.Or(cmp.Compare(a.What, b.What), a.Since.Compare(b.Since.Time), cmp.Compare(a.key, b.key))
	})
	return changes
}

// send sends changes to a receiver, once, and reports whether it has taken them.
func (n *Notifier) send(ctx context.Context, r *receiver, changes []change, now time.Time) bool {
	at := tasks.FromMillis(now.UnixMilli())
	wait, err := n.post(ctx, r.url, "alerts-"+r.name+"-"+strconv.FormatInt(now.UnixMilli(), 36), n.cfg.Format.body(changes, at))
	if err == nil {
		r.failed, r.next = 0, time.Time{}
		n.sent.WithLabelValues("sent").Inc()
		return true
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		return false // the process stops
	}
	pause := min(firstRetry<<min(r.failed, 10), lastRetry)
	r.failed++
	r.next = now.Add(max(pause, min(wait, time.Hour)))
	n.sent.WithLabelValues("failed").Inc()
	n.log.Warn("operators were not told", "receiver", r.said, "alerts", len(changes), "again_at", r.next.UTC().Format(time.RFC3339), "error", err)
	return false
}

// post sends a body, and returns for how long the receiver wants nothing more, if it says so.
func (n *Notifier) post(ctx context.Context, url, id string, body []byte) (wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	var reply webhook.Reply
	if n.cfg.Format == Webhook {
		reply = n.transport.Send(ctx, tasks.Endpoint{URL: url, Secret: n.cfg.Secret}, id, body)
	} else {
		reply = n.transport.SendPlain(ctx, url, body)
	}
	switch {
	case reply.Err != nil:
		return 0, reply.Err
	case reply.Status/100 != 2: // what it says beside that may repeat the URL
		return reply.RetryAfter, fmt.Errorf("it answers %d", reply.Status)
	}
	return 0, nil
}

// Test sends a test to every receiver, and returns an error for each, nil for those that have taken it, by how they may be
// named.
func (n *Notifier) Test(ctx context.Context) (names []string, results []error) {
	now := time.Now()
	for _, r := range n.receivers {
		_, err := n.post(ctx, r.url, "test-"+r.name+"-"+strconv.FormatInt(now.UnixMilli(), 36), n.cfg.Format.test(tasks.FromMillis(now.UnixMilli())))
		names, results = append(names, r.said), append(results, err)
	}
	return names, results
}
