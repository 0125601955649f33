package views

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// SpaceBounds bound what a look at a server costs.
type SpaceBounds struct {
	Keys int           // about as many are looked at
	Time time.Duration // for so long; what is begun is ended
	Page int           // keys that are asked about at once
}

// DefaultSpaceBounds are a second or two of a server that has other things to do.
var DefaultSpaceBounds = SpaceBounds{Keys: 20_000, Time: 5 * time.Second, Page: 500}

const (
	// largestShown and lastingShown are how many keys are named.
	largestShown, lastingShown = 10, 5
)

// Space says what fills the servers that are written to.
type Space struct{ redis *wire.Client }

// NewSpace makes a Space.
func NewSpace(client *wire.Client) *Space { return &Space{client} }

// Look looks at all of them. It changes nothing. It takes the keys of a server in the order of SCAN, which is none, until a
// bound is reached, and so estimates the rest; keys of which there is one of a kind, and may be large, are looked at all the
// same.
func (s *Space) Look(ctx context.Context, bounds SpaceBounds) (all []tasks.Space, err error) {
	var mu sync.Mutex
	err = s.redis.ForEachPrimary(ctx, func(ctx context.Context, server redis.Cmdable, address string) error {
		m := measure{server: server, bounds: bounds, sampled: map[string]sizes{}, exact: map[string]sizes{}, known: map[string]bool{}}
		seen, err := m.look(ctx)
		seen.Address = address
		mu.Lock()
		defer mu.Unlock()
		all = append(all, seen)
		return err
	})
	slices.SortFunc(all, func(a, b tasks.Space) int { return strings.Compare(a.Address, b.Address) })
	return all, err
}

// sizes are how many keys there are of a family, and how large they are.
type sizes struct{ keys, bytes int64 }

// measure is a look at a server.
type measure struct {
	server redis.Cmdable
	bounds SpaceBounds

	known          map[string]bool  // looked at by name
	exact, sampled map[string]sizes // by family
	met            int64            // keys that SCAN gave, without those
	largest        []tasks.KeySize
	seen           tasks.Space
}

func (m *measure) look(ctx context.Context) (tasks.Space, error) {
	start := time.Now()
	text, err := m.server.Info(ctx).Result()
	if err != nil {
		return m.seen, err
	}
	info := wire.ParseInfo(text)
	m.seen.Memory, _ = strconv.ParseInt(info["used_memory"], 10, 64)
	m.seen.Files = filesOf(info)
	if m.seen.Keys, err = m.server.DBSize(ctx).Result(); err != nil {
		return m.seen, err
	}
	if err := m.lookAtKnown(ctx); err != nil {
		return m.seen, err
	}
	cursor := uint64(0)
	for {
		var keys []string
		if keys, cursor, err = m.server.Scan(ctx, cursor, "*", int64(m.bounds.Page)).Result(); err != nil {
			return m.seen, err
		}
		keys = slices.DeleteFunc(keys, func(key string) bool { return m.known[key] })
		m.met += int64(len(keys))
		if err := m.ask(ctx, keys, m.sampled); err != nil {
			return m.seen, err
		}
		whole := cursor == 0
		if whole || m.met >= int64(m.bounds.Keys) || time.Since(start) > m.bounds.Time {
			m.sum(whole)
			return m.seen, nil
		}
	}
}

// sum estimates what was not looked at.
func (m *measure) sum(whole bool) {
	exactKeys := int64(0)
	for _, t := range m.exact {
		exactKeys += t.keys
	}
	m.seen.Looked = m.met + exactKeys
	grow := 1.0
	if rest := m.seen.Keys - exactKeys; !whole && m.met > 0 && rest > m.met {
		grow = float64(rest) / float64(m.met)
	}
	all := maps.Clone(m.exact)
	for family, t := range m.sampled {
		sum := all[family]
		all[family] = sizes{sum.keys + int64(float64(t.keys)*grow), sum.bytes + int64(float64(t.bytes)*grow)}
	}
	m.seen.Families = []tasks.KeyFamily{}
	for family, t := range all {
		m.seen.Families = append(m.seen.Families, tasks.KeyFamily{Name: family, Keys: t.keys, Bytes: t.bytes})
	}
	slices.SortFunc(m.seen.Families, func(a, b tasks.KeyFamily) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Name, b.Name))
	})
	m.seen.Largest = m.largest
}

// lookAtKnown looks at keys that a sample could miss. Those that another server of a cluster has are its own to look at.
func (m *measure) lookAtKnown(ctx context.Context) error {
	names := []string{
		codec.OpenKey, codec.AllJobsKey, codec.OpenRunsKey, codec.AllRunsKey,
		"reset:audit", "reset:failures", "reset:fleet", "reset:tokens", "reset:keys", "reset:census", "reset:operators", "reset:webhooks", "reset:policies", "asynq:queues",
	}
	queues, err := m.server.SMembers(ctx, "asynq:queues").Result()
	if err != nil && !elsewhere(err) && !denied(err) {
		return err
	}
	for _, queue := range queues {
		for _, state := range []string{"pending", "active", "scheduled", "retry", "archived", "completed", "lease"} {
			names = append(names, "asynq:{"+queue+"}:"+state)
		}
	}
	for _, name := range names {
		m.known[name] = true
	}
	return m.ask(ctx, names, m.exact)
}

// asked is what is asked about a key.
type asked struct {
	key    string
	size   *redis.IntCmd
	ttl    *redis.DurationCmd
	header *redis.SliceCmd // of a job record
}

// ask asks about keys, and counts them.
func (m *measure) ask(ctx context.Context, keys []string, into map[string]sizes) error {
	pipe := m.server.Pipeline()
	all := make([]asked, len(keys))
	for i, key := range keys {
		all[i] = asked{key: key, size: pipe.MemoryUsage(ctx, key), ttl: pipe.PTTL(ctx, key)}
		if FamilyOf(key) == familyJobs {
			all[i].header = pipe.HMGet(ctx, key, "left", "run")
		}
	}
	if len(all) > 0 {
		_, _ = pipe.Exec(ctx) // each carries its own error
	}
	for _, a := range all {
		bytes, err := a.size.Result()
		switch {
		case errors.Is(err, redis.Nil), elsewhere(err): // it is gone, or another server's
			continue
		case denied(err):
			m.seen.Refused++
			continue
		case err != nil:
			return fmt.Errorf("size of %s: %w", a.key, err)
		}
		m.count(a, bytes, into)
	}
	return nil
}

func (m *measure) count(a asked, bytes int64, into map[string]sizes) {
	family := FamilyOf(a.key)
	t := into[family]
	into[family] = sizes{t.keys + 1, t.bytes + bytes}
	m.largest = append(m.largest, tasks.KeySize{Key: a.key, Family: family, Bytes: bytes})
	slices.SortStableFunc(m.largest, func(a, b tasks.KeySize) int { return cmp.Compare(b.Bytes, a.Bytes) })
	m.largest = m.largest[:min(len(m.largest), largestShown)]
	if a.lasts() {
		m.seen.LastingCount++
		if len(m.seen.Lasting) < lastingShown {
			m.seen.Lasting = append(m.seen.Lasting, a.key)
		}
	}
}

// lasts reports whether a key should expire and does not: a lock, the sign of life of a worker, or the record of a job that
// has ended and is no part of a run. The record of another job expires when it has ended, or with its run.
func (a asked) lasts() bool {
	if ttl, err := a.ttl.Result(); err != nil || ttl != -1 {
		return false
	}
	if a.header == nil {
		return strings.HasPrefix(a.key, "reset:lock:{") || strings.HasPrefix(a.key, "reset:worker:{")
	}
	fields, err := a.header.Result()
	return err == nil && len(fields) == 2 && fields[0] == "0" && fields[1] == nil
}

// elsewhere says that another server of a cluster has the key.
func elsewhere(err error) bool {
	return err != nil && (strings.HasPrefix(err.Error(), "MOVED ") || strings.HasPrefix(err.Error(), "ASK "))
}

// denied says that the Redis user may not ask.
func denied(err error) bool { return err != nil && strings.HasPrefix(err.Error(), "NOPERM") }

func filesOf(info map[string]string) tasks.RedisFiles {
	count := func(name string) int64 {
		n, _ := strconv.ParseInt(info[name], 10, 64) // 0 if Redis does not say
		return n
	}
	return tasks.RedisFiles{
		AppendOnly: info["aof_enabled"] == "1", AppendBytes: count("aof_current_size"),
		WriteFails:   info["aof_enabled"] == "1" && info["aof_last_write_status"] == "err",
		RewriteFails: info["aof_enabled"] == "1" && info["aof_last_bgrewrite_status"] == "err",
		SavedAt:      tasks.FromMillis(1000 * count("rdb_last_save_time")), Unsaved: count("rdb_changes_since_last_save"),
		SaveFails: info["rdb_last_bgsave_status"] == "err",
	}
}

// The families that are told by more than a prefix.
const (
	familyJobs  = "job records"
	familyLists = "lists of runs"
	familyTasks = "tasks of asynq"
	familyOther = "other keys"
)

// families are kinds of keys by how their names begin. The first that fits counts.
var families = []struct{ prefix, name string }{
	{"reset:{", familyJobs},
	{"reset:run:", "runs"},
	{"reset:runs", "indexes of jobs and runs"},
	{"reset:jobs", "indexes of jobs and runs"},
	{"reset:instances:", "index of instances"},
	{"reset:lock:", "locks"},
	{"reset:fleet", "fleet"},
	{"reset:address:", "fleet"},
	{"reset:audit", "audit trail"},
	{"reset:webhook", "webhooks"},
	{"reset:failures", "failures"},
	{"reset:activity:", "activity"},
	{"reset:token", "callers and operators"},
	{"reset:key", "callers and operators"},
	{"reset:caller:", "callers and operators"},
	{"reset:session:", "callers and operators"},
	{"reset:operator", "callers and operators"},
	{"reset:first", "callers and operators"},
	{"reset:form:", "callers and operators"},
	{"reset:ticket", "callers and operators"},
	{"reset:worker", "workers and open work"},
	{"reset:open", "workers and open work"},
	{"reset:sweeper", "workers and open work"},
	{"reset:census", "workers and open work"},
	{"reset:accepted:", "limits of tenants"},
	{"reset:direct:", "limits of tenants"},
	{"reset:held:", "limits of tenants"},
	{"reset:begun:", "limits of tenants"},
	{"reset:pace:", "limits of tenants"},
	{"reset:policies", "limits of tenants"},
	{"reset:", "others of this service"},
	{"asynq:", "queues of asynq"},
}

// FamilyOf is the kind of a key.
func FamilyOf(key string) string {
	for _, f := range families {
		if !strings.HasPrefix(key, f.prefix) {
			continue
		}
		switch {
		case f.prefix == "reset:run:" && strings.HasSuffix(key, ":list"):
			return familyLists
		case f.prefix == "asynq:" && strings.Contains(key, "}:t:"):
			return familyTasks
		}
		return f.name
	}
	return familyOther
}
