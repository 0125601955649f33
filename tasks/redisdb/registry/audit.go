package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// auditKey is a stream. The field auditField of each entry is the JSON of a
// tasks.AuditEntry, its time is the entry's ID.
const (
	auditKey   = "reset:audit"
	auditField = "e"
)

// Audit is the audit trail.
type Audit struct {
	redis     *wire.Client
	retention time.Duration
	told      func(e tasks.AuditEntry, missing error)
	late      late
	failed    *failedLogins
}

// NewAudit makes an Audit. retention is how old an entry must be to be dropped when another
// one is written; 0 = none is dropped. told hears of each entry whose decision was carried
// out, and with an error of each that stops something and could not be written; it may be
// nil. keep is how many of the latter are kept for WriteTrail; 0 = none.
func NewAudit(client *wire.Client, retention time.Duration, told func(e tasks.AuditEntry, missing error), keep int) *Audit {
	return &Audit{redis: client, retention: retention, told: told, late: late{bound: keep}, failed: newFailedLogins()}
}

// write returns the ID of an entry that is on the primary, even if it is not, after an
// error, on the replicas that must have it.
func (a *Audit) write(ctx context.Context, add *redis.XAddArgs) (id string, err error) {
	var added *redis.StringCmd
	replicated := a.redis.CommitWrites(ctx, auditKey, func(pipe redis.Pipeliner) { added = pipe.XAdd(ctx, add) })
	if added == nil {
		return "", replicated
	}
	return added.Val(), cmp.Or(added.Err(), replicated)
}

// args are those of the command that writes an entry, and drops those that are too old. The
// time has to be Redis's: it made the IDs, and a clock that is ahead would drop too many.
func (a *Audit) args(e tasks.AuditEntry, now time.Time) (*redis.XAddArgs, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode an entry: %w", err)
	}
	add := &redis.XAddArgs{Stream: auditKey, Values: []any{auditField, text}}
	if a.retention > 0 {
		add.MinID, add.Approx = strconv.FormatInt(now.Add(-a.retention).UnixMilli(), 10), true
	}
	return add, nil
}

// Trail calls visit for each entry that the filter selects, oldest first.
func (a *Audit) Trail(ctx context.Context, f tasks.AuditFilter, visit func(tasks.AuditEntry) error) error {
	from, to := "-", "+"
	if !f.Since.IsZero() {
		from = strconv.FormatInt(f.Since.UnixMilli(), 10)
	}
	if !f.Until.IsZero() {
		to = strconv.FormatInt(f.Until.UnixMilli()-1, 10) // with all of that millisecond
	}
	for {
		entries, err := a.redis.XRangeN(ctx, auditKey, from, to, auditPage).Result()
		if err != nil {
			return fmt.Errorf("read audit trail: %w", err)
		}
		for _, raw := range entries {
			e, err := decodeAudit(raw)
			if err != nil {
				return fmt.Errorf("read audit trail: entry %s: %w", raw.ID, err)
			}
			if !f.Match(e) {
				continue
			}
			if err := visit(e); err != nil {
				return err
			}
		}
		if len(entries) < auditPage {
			return nil
		}
		from = "(" + entries[len(entries)-1].ID
	}
}

func decodeAudit(raw redis.XMessage) (e tasks.AuditEntry, err error) {
	if err := json.Unmarshal([]byte(codec.Text(raw.Values[auditField])), &e); err != nil {
		return e, err
	}
	ms, _, _ := strings.Cut(raw.ID, "-")
	at, err := strconv.ParseInt(ms, 10, 64)
	e.At = tasks.FromMillis(at)
	return e, err
}

// Recent returns the last entries that the filter selects, newest first, at most
// limit of them, and the cursor of those before them, empty at the end. It looks through
// 3,000 entries at the most, so there may be fewer, and even none, before the end. Errors:
// tasks.BadRequest for a cursor that is not one of ours.
func (a *Audit) Recent(ctx context.Context, f tasks.AuditFilter, cursor string, limit int) (found []tasks.AuditEntry, older string, err error) {
	to := "+"
	if cursor != "" {
		if !auditID.MatchString(cursor) {
			return nil, "", tasks.Errorf(tasks.BadRequest, "cursor is not one that an earlier answer gave")
		}
		to = "(" + cursor
	}
	for looked := 0; looked < recentScan; looked += auditPage {
		entries, err := a.redis.XRevRangeN(ctx, auditKey, to, "-", auditPage).Result()
		if err != nil {
			return nil, "", fmt.Errorf("read audit trail: %w", err)
		}
		for _, raw := range entries {
			e, err := decodeAudit(raw)
			if err != nil {
				return nil, "", fmt.Errorf("read audit trail: entry %s: %w", raw.ID, err)
			}
			if f.Match(e) {
				if found = append(found, e); len(found) == limit {
					return found, raw.ID, nil
				}
			}
		}
		if len(entries) < auditPage {
			return found, "", nil
		}
		older = entries[len(entries)-1].ID
		to = "(" + older
	}
	return found, older, nil
}

var auditID = regexp.MustCompile(`^[0-9]{1,20}-[0-9]{1,20}$`)

const (
	// auditPage is how many entries are read at once, recentScan how many for one page of
	// people's.
	auditPage  = 500
	recentScan = 6 * auditPage
)
