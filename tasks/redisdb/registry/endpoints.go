package registry

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
	"batchreset/tasks/seal"
)

// webhooksIndex has the tenant of every endpoint, by its ID.
const webhooksIndex = "reset:webhooks"

// failingFor is how long an endpoint may take nothing before it is disabled.
const failingFor = 5 * 24 * time.Hour

func webhooksKey(tenant string) string    { return "reset:webhook:{" + tenant + "}" }
func webhookKey(tenant, id string) string { return webhooksKey(tenant) + ":" + id }

// Endpoints are the webhook endpoints of tenants.
type Endpoints struct {
	redis   *wire.Client
	audit   *Audit
	leftOut *codec.LeftOut
	seals   *seal.Keys
}

// NewEndpoints makes Endpoints. Their secrets are sealed with seals, if there are any.
func NewEndpoints(client *wire.Client, audit *Audit, leftOut *codec.LeftOut, seals *seal.Keys) *Endpoints {
	return &Endpoints{client, audit, leftOut, seals}
}

// Add gives the tenant an endpoint, which the caller has checked, and returns it.
// Errors: tasks.TooManyRequests if the tenant has tasks.MaxEndpoints.
func (r *Endpoints) Add(ctx context.Context, e tasks.Endpoint, actor tasks.Actor) (added tasks.Endpoint, err error) {
	n, err := r.redis.SCard(ctx, webhooksKey(e.Tenant)).Result()
	switch {
	case err != nil:
		return added, fmt.Errorf("add endpoint: %w", err)
	case n >= tasks.MaxEndpoints:
		return added, tooManyEndpoints(e.Tenant)
	}
	err = r.audit.Decide(ctx, aboutEndpoint(actor, tasks.ActionAddWebhook, e), func(ctx context.Context) error {
		added, err = r.add(ctx, e)
		return err
	})
	return added, err
}

// aboutEndpoint leaves the URL out, which may have secrets of the receiver.
func aboutEndpoint(actor tasks.Actor, action tasks.Action, e tasks.Endpoint) tasks.AuditEntry {
	entry := actor.Entry(action)
	entry.Tenant, entry.Detail = e.Tenant, "endpoint "+e.ID
	return entry
}

func tooManyEndpoints(tenant string) *tasks.Error {
	return tasks.Errorf(tasks.TooManyRequests,
		"tenant %s has %d webhook endpoints, which is the limit; remove one first", tenant, tasks.MaxEndpoints)
}

func (r *Endpoints) add(ctx context.Context, e tasks.Endpoint) (tasks.Endpoint, error) {
	now, err := r.redis.Time(ctx).Result()
	if err != nil {
		return tasks.Endpoint{}, fmt.Errorf("add endpoint: %w", err)
	}
	// Indexed first: an endpoint that exists is always listed.
	if err := r.redis.HSet(ctx, webhooksIndex, e.ID, e.Tenant).Err(); err != nil {
		return tasks.Endpoint{}, fmt.Errorf("add endpoint: %w", err)
	}
	added, err := endpointScript.Run(ctx, r.redis, []string{webhooksKey(e.Tenant), webhookKey(e.Tenant, e.ID)},
		e.ID, tasks.MaxEndpoints,
		"url", e.URL, "topics", joinTopics(e.Topics), "secret", r.seals.Seal(e.Secret, e.ID), "created", now.UnixMilli()).Int()
	if err != nil {
		return tasks.Endpoint{}, fmt.Errorf("add endpoint: %w", err)
	}
	if added == 0 {
		_ = r.redis.HDel(ctx, webhooksIndex, e.ID).Err() // met again by the next listing
		return tasks.Endpoint{}, tooManyEndpoints(e.Tenant)
	}
	stored, err := r.endpoint(ctx, e.Tenant, e.ID)
	stored.Secret = e.Secret
	return stored, err
}

func joinTopics(topics []tasks.Topic) string {
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = string(t)
	}
	return strings.Join(names, " ")
}

// Endpoint returns a tenant's endpoint with its secrets. Errors: tasks.ErrNoEndpoint; seal.ErrNotOpened.
func (r *Endpoints) Endpoint(ctx context.Context, tenant, id string) (tasks.Endpoint, error) {
	e, err := r.endpoint(ctx, tenant, id)
	if err != nil {
		return tasks.Endpoint{}, err
	}
	for field, secret := range map[string]*string{"secret": &e.Secret, "old_secret": &e.OldSecret} {
		kept := *secret
		opened, stale, err := r.seals.Open(kept, id)
		if err != nil {
			return tasks.Endpoint{}, fmt.Errorf("endpoint %s: %w", id, err)
		}
		*secret = opened
		if stale {
			_, _ = reseal(ctx, r.redis, webhookKey(tenant, id), field, kept, r.seals.Seal(*secret, id)) // SealAll says if this cannot be
		}
	}
	return e, nil
}

// endpoint is Endpoint with its secrets as they are kept.
func (r *Endpoints) endpoint(ctx context.Context, tenant, id string) (tasks.Endpoint, error) {
	hash, err := r.redis.HGetAll(ctx, webhookKey(tenant, id)).Result()
	if err != nil {
		return tasks.Endpoint{}, fmt.Errorf("read endpoint: %w", err)
	}
	return decodeEndpoint(tenant, id, hash)
}

// SealAll seals the secrets of endpoints that are not sealed with the newest key yet.
func (r *Endpoints) SealAll(ctx context.Context) (Sealing, error) {
	all, err := r.kept(ctx, 0)
	if err != nil {
		return Sealing{}, err
	}
	return sealAll(all, r.seals, func(k kept, sealed string) (bool, error) {
		return reseal(ctx, r.redis, k.key, k.field, k.text, sealed)
	})
}

// some are so many endpoints, or a few more; 0: all.
func (r *Endpoints) some(ctx context.Context, most int) (endpoints []tasks.Endpoint, err error) {
	if most == 0 {
		return r.List(ctx)
	}
	index, _, err := r.redis.HScan(ctx, webhooksIndex, 0, "", int64(most)).Result()
	if err != nil {
		return nil, fmt.Errorf("read endpoints: %w", err)
	}
	seen := map[string]bool{}
	for i := 1; i < len(index) && len(endpoints) < most; i += 2 { // the index is IDs, each with its tenant
		if tenant := index[i]; !seen[tenant] {
			seen[tenant] = true
			found, err := r.Of(ctx, tenant)
			if err != nil {
				return nil, err
			}
			endpoints = append(endpoints, found...)
		}
	}
	return endpoints, nil
}

// kept are the secrets of endpoints, of so many of them; 0: of all.
func (r *Endpoints) kept(ctx context.Context, most int) (all []kept, err error) {
	endpoints, err := r.some(ctx, most)
	if err != nil {
		return nil, err
	}
	now := r.redis.Now()
	for _, e := range endpoints {
		k := kept{kind: "webhook endpoint", id: e.ID, key: webhookKey(e.Tenant, e.ID), field: "secret", place: e.ID, text: e.Secret}
		if k.text != "" {
			all = append(all, k)
		}
		if k.field, k.text, k.ended = "old_secret", e.OldSecret, !now.Before(e.OldUntil.Time); k.text != "" {
			all = append(all, k)
		}
	}
	return all, nil
}

// EndpointByID returns an endpoint for somebody who does not know the tenant, and has no use for its secrets.
func (r *Endpoints) EndpointByID(ctx context.Context, id string) (tasks.Endpoint, error) {
	tenant, err := r.redis.HGet(ctx, webhooksIndex, id).Result()
	switch {
	case err == redis.Nil: //nolint:errorlint // go-redis returns it bare
		return tasks.Endpoint{}, tasks.ErrNoEndpoint
	case err != nil:
		return tasks.Endpoint{}, fmt.Errorf("read endpoint: %w", err)
	}
	return r.endpoint(ctx, tenant, id)
}

// List returns every endpoint, by tenant and age. Entries of the index without an
// endpoint are left out.
func (r *Endpoints) List(ctx context.Context) ([]tasks.Endpoint, error) {
	index, err := r.redis.HGetAll(ctx, webhooksIndex).Result()
	if err != nil {
		return nil, fmt.Errorf("list endpoints: %w", err)
	}
	tenants := map[string]bool{}
	for _, tenant := range index {
		tenants[tenant] = true
	}
	endpoints := []tasks.Endpoint{}
	for tenant := range tenants {
		found, err := r.Of(ctx, tenant)
		if err != nil {
			if err := r.leftOut.Note("endpoints of "+tenant, err); err != nil {
				return nil, fmt.Errorf("list endpoints: %w", err)
			}
		}
		endpoints = append(endpoints, found...)
	}
	slices.SortFunc(endpoints, func(a, b tasks.Endpoint) int {
		if order := strings.Compare(a.Tenant, b.Tenant); order != 0 {
			return order
		}
		return a.CreatedAt.Compare(b.CreatedAt.Time)
	})
	return endpoints, nil
}

// Of returns a tenant's endpoints.
func (r *Endpoints) Of(ctx context.Context, tenant string) ([]tasks.Endpoint, error) {
	cmd := redis.NewStringSliceCmd(ctx, "smembers", webhooksKey(tenant))
	if err := r.redis.Grouped(ctx, cmd); err != nil {
		return nil, fmt.Errorf("read endpoints: %w", err)
	}
	ids := cmd.Val()
	if len(ids) == 0 {
		return nil, nil
	}
	pipe := r.redis.Pipeline()
	answers := make([]*redis.MapStringStringCmd, len(ids))
	for i, id := range ids {
		answers[i] = pipe.HGetAll(ctx, webhookKey(tenant, id))
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	var endpoints []tasks.Endpoint
	for i, id := range ids {
		hash, err := answers[i].Result()
		if err != nil { // the tenant's other endpoints are told all the same
			if err := r.leftOut.Note("endpoint "+id, err); err != nil {
				return nil, fmt.Errorf("read endpoints: %w", err)
			}
			continue
		}
		e, err := decodeEndpoint(tenant, id, hash)
		if err == nil { // else it was removed just now
			endpoints = append(endpoints, e)
		}
	}
	return endpoints, nil
}

func decodeEndpoint(tenant, id string, hash map[string]string) (tasks.Endpoint, error) {
	if len(hash) == 0 {
		return tasks.Endpoint{}, tasks.ErrNoEndpoint
	}
	e := tasks.Endpoint{
		ID: id, Tenant: tenant, URL: hash["url"], CreatedAt: codec.Millis(hash["created"]),
		Secret: hash["secret"], OldSecret: hash["old_secret"], OldUntil: codec.Millis(hash["old_until"]),
		DisabledAt: codec.Millis(hash["disabled"]), DisabledReason: hash["reason"], FailingSince: codec.Millis(hash["failing"]),
	}
	for name := range strings.FieldsSeq(hash["topics"]) {
		e.Topics = append(e.Topics, tasks.Topic(name))
	}
	if at := codec.Millis(hash["at"]); !at.IsZero() {
		e.Last = &tasks.Report{At: at, EventID: hash["event"], Topic: tasks.Topic(hash["topic"]), Error: hash["error"]}
		e.Last.Status, _ = strconv.Atoi(hash["status"])               // 0: there was no answer
		e.Last.TookMillis, _ = strconv.ParseInt(hash["took"], 10, 64) // of a later version: not known
	}
	return e, nil
}

// Remove removes an endpoint. What is on its way to it is dropped. Errors:
// tasks.ErrNoEndpoint.
func (r *Endpoints) Remove(ctx context.Context, e tasks.Endpoint, actor tasks.Actor) error {
	if _, err := r.endpoint(ctx, e.Tenant, e.ID); err != nil {
		return err
	}
	return r.audit.Decide(ctx, aboutEndpoint(actor, tasks.ActionRemoveWebhook, e), func(ctx context.Context) error {
		pipe := r.redis.Pipeline() // a transaction would be refused by a Redis that is full
		pipe.SRem(ctx, webhooksKey(e.Tenant), e.ID)
		removed := pipe.Del(ctx, webhookKey(e.Tenant, e.ID))
		_, err := pipe.Exec(ctx)
		if err == nil {
			err = r.redis.HDel(ctx, webhooksIndex, e.ID).Err() // last: until then it can be repeated
		}
		if err != nil {
			return fmt.Errorf("remove endpoint: %w", err)
		}
		if removed.Val() == 0 {
			return tasks.ErrNoEndpoint
		}
		return nil
	})
}

// RotateSecret gives an endpoint a new secret; the one before signs as well for so long.
// Errors: tasks.ErrNoEndpoint.
func (r *Endpoints) RotateSecret(ctx context.Context, e tasks.Endpoint, secret string, overlap time.Duration, actor tasks.Actor) error {
	if _, err := r.endpoint(ctx, e.Tenant, e.ID); err != nil {
		return err
	}
	return r.audit.Decide(ctx, aboutEndpoint(actor, tasks.ActionRotateWebhook, e), func(ctx context.Context) error {
		return r.rotateSecret(ctx, e, secret, overlap)
	})
}

func (r *Endpoints) rotateSecret(ctx context.Context, e tasks.Endpoint, secret string, overlap time.Duration) error {
	now, err := r.redis.Time(ctx).Result()
	if err != nil {
		return fmt.Errorf("rotate secret: %w", err)
	}
	rotated, err := rotateScript.Run(ctx, r.redis, []string{webhookKey(e.Tenant, e.ID)}, r.seals.Seal(secret, e.ID), now.Add(overlap).UnixMilli()).Int()
	if err != nil {
		return fmt.Errorf("rotate secret: %w", err)
	}
	if rotated == 0 {
		return tasks.ErrNoEndpoint
	}
	return nil
}

// Change gives an endpoint another URL, which the caller has checked, and other topics. Errors: tasks.ErrNoEndpoint.
func (r *Endpoints) Change(ctx context.Context, e tasks.Endpoint, url string, topics []tasks.Topic, actor tasks.Actor) error {
	now, err := r.endpoint(ctx, e.Tenant, e.ID)
	if err != nil || now.URL == url && slices.Equal(now.Topics, topics) {
		return err
	}
	entry := aboutEndpoint(actor, tasks.ActionChangeWebhook, e)
	entry.Detail += " for " + joinTopics(topics)
	if now.URL != url {
		entry.Detail += ", with another URL"
	}
	return r.audit.Decide(ctx, entry, func(ctx context.Context) error {
		return r.alter(ctx, e, "url", url, "topics", joinTopics(topics))
	})
}

// Disable has an endpoint told no more, for a reason that people are shown. Errors: tasks.ErrNoEndpoint.
func (r *Endpoints) Disable(ctx context.Context, e tasks.Endpoint, reason string, actor tasks.Actor) error {
	now, err := r.endpoint(ctx, e.Tenant, e.ID)
	if err != nil || !now.DisabledAt.IsZero() {
		return err
	}
	return r.audit.Decide(ctx, aboutEndpoint(actor, tasks.ActionDisableWebhook, e), func(ctx context.Context) error {
		at, err := r.redis.Time(ctx).Result()
		if err != nil {
			return fmt.Errorf("disable endpoint: %w", err)
		}
		return r.alter(ctx, e, "disabled", at.UnixMilli(), "reason", reason)
	})
}

// alter changes fields of an endpoint that there is.
func (r *Endpoints) alter(ctx context.Context, e tasks.Endpoint, fields ...any) error {
	done, err := alterScript.Run(ctx, r.redis, []string{webhookKey(e.Tenant, e.ID)}, fields...).Int()
	switch {
	case err != nil:
		return fmt.Errorf("change endpoint: %w", err)
	case done == 0:
		return tasks.ErrNoEndpoint
	}
	return nil
}

// Sealed reports whether the secrets of endpoints are sealed.
func (r *Endpoints) Sealed() bool { return r.seals != nil }

// Enable has an endpoint told again. Errors: tasks.ErrNoEndpoint.
func (r *Endpoints) Enable(ctx context.Context, e tasks.Endpoint, actor tasks.Actor) error {
	now, err := r.endpoint(ctx, e.Tenant, e.ID)
	if err != nil || now.DisabledAt.IsZero() && now.FailingSince.IsZero() {
		return err
	}
	return r.audit.Decide(ctx, aboutEndpoint(actor, tasks.ActionEnableWebhook, e), func(ctx context.Context) error {
		if err := r.redis.HDel(ctx, webhookKey(e.Tenant, e.ID), "disabled", "reason", "failing").Err(); err != nil {
			return fmt.Errorf("enable endpoint: %w", err)
		}
		return nil
	})
}

// Report notes what came of sending a notice. It disables an endpoint that wants no
// more, or that has taken nothing for five days, and reports whether it did.
func (r *Endpoints) Report(ctx context.Context, e tasks.Endpoint, report tasks.Report) (disabled bool, err error) {
	n, err := r.redis.Run(ctx, reportScript, []string{webhookKey(e.Tenant, e.ID)},
		report.EventID, string(report.Topic), report.Status, report.Error, codec.Flag(report.Gone), failingFor.Milliseconds(), report.TookMillis).Int()
	if err != nil {
		return false, fmt.Errorf("report: %w", err)
	}
	return n == 1, nil
}
