package redisdb

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

const openKey = "reset:open"

func jobsKey(tenant string) string { return "reset:jobs:{" + tenant + "}" }

// listingGrace is how long a job may be listed before its record exists. A
// listing without a record is dropped after this time, and a create refuses to
// run after half of it, so that no job can exist unlisted.
const listingGrace = time.Minute

// Submit makes a job of the batch: it lists the job as open, creates the record
// and enqueues one task per item. The record is the commit point: when an
// enqueue fails after it, the job stands all the same and Submit returns it
// together with a *tasks.UndeliveredError. Any other error means that the job may or
// may not exist, wholly.
func (db *DB) Submit(ctx context.Context, s tasks.Submission) (tasks.Job, error) {
	id := s.JobID()
	listed, err := db.list(ctx, s.Tenant, id)
	if err != nil {
		return tasks.Job{}, fmt.Errorf("list job as open: %w", err)
	}
	labels, err := encodeLabels(s.Labels)
	if err != nil {
		return tasks.Job{}, err
	}
	notBefore := ""
	if !s.NotBefore.IsZero() {
		notBefore = strconv.FormatInt(s.NotBefore.UnixMilli(), 10)
	}
	queue := db.place(s.Tenant, len(s.InstanceIDs))
	args := []any{
		listed.UnixMilli(), (listingGrace / 2).Milliseconds(),
		db.opts.GiveUpAfter.Milliseconds(), int64(db.opts.JobRetention.Seconds()),
		s.Tenant, queue, flag(s.Open), s.RequestID, s.Fingerprint(), s.MaxFailures,
		int64(db.opts.TaskRetention.Seconds()), notBefore, s.Reason, labels,
	}
	for _, instance := range s.InstanceIDs {
		args = append(args, instance)
	}
	answer, err := db.commit(ctx, createScript, []string{jobKey(id)}, args...).Slice()
	if err != nil || len(answer) == 0 {
		return tasks.Job{}, fmt.Errorf("create job record: %w, answer %v", err, answer)
	}
	created := number(answer[0])
	switch created {
	case 0:
		return tasks.Job{}, errors.New("create job record: Redis took too long")
	case -1:
		return tasks.Job{}, keyReused()
	}
	// The queue is the record's: the same job must not get into two, where its tasks
	// would not be known to each other.
	queue = text(answer[len(answer)-1])

	job := tasks.Job{
		ID: id, RequestID: s.RequestID, Tenant: s.Tenant, Queue: queue, Open: s.Open,
		CreatedAt: tasks.FromMillis(created), Total: len(s.InstanceIDs), Revision: 1, Fingerprint: s.Fingerprint(),
		TaskRetention: db.opts.TaskRetention, NotBefore: s.NotBefore, Reason: s.Reason, Labels: s.Labels,
	}
	job.EndBefore = tasks.Time{Time: latest(job.CreatedAt, job.NotBefore).Add(db.opts.GiveUpAfter)}
	for n, instance := range s.InstanceIDs {
		job.Items = append(job.Items, tasks.Item{
			ID: tasks.ItemID(id, n), InstanceID: instance, State: tasks.ItemPending, Delivery: 1,
		})
	}
	job.Counts = tasks.Count(job.Items)
	job.State = job.Counts.State()
	return job, db.enqueue(ctx, job)
}

func latest(a, b tasks.Time) tasks.Time {
	if a.After(b.Time) {
		return a
	}
	return b
}

// encodeLabels returns an empty string for no labels.
func encodeLabels(labels map[string]string) (string, error) {
	if len(labels) == 0 {
		return "", nil
	}
	b, err := json.Marshal(labels)
	return string(b), err
}

func keyReused() error {
	return tasks.Errorf(tasks.KeyReused, "Idempotency-Key was used for another request")
}

// Replay returns the job that the submission has become before, by its idempotency
// key. Errors: tasks.JobGone if there is none, tasks.KeyReused if the key was used
// for another request.
func (db *DB) Replay(ctx context.Context, s tasks.Submission) (tasks.Job, error) {
	job, err := db.Job(ctx, s.JobID())
	if err == nil && job.Fingerprint != s.Fingerprint() {
		return tasks.Job{}, keyReused()
	}
	return job, err
}

// Cancel ends the items of a job that wait, and lets none begin any more. Errors:
// tasks.JobGone, tasks.JobFinal.
func (db *DB) Cancel(ctx context.Context, id string) error {
	done, err := db.commit(ctx, cancelScript, []string{jobKey(id)}, rand.Text()).Int()
	switch {
	case err != nil:
		return fmt.Errorf("cancel: %w", err)
	case done == -1:
		return tasks.JobGone
	case done == 0:
		return tasks.Errorf(tasks.JobFinal, "the job has ended, there is nothing to cancel")
	}
	if job, err := db.Job(ctx, id); err == nil {
		_ = db.Tell(ctx, job) // otherwise the sweeper does
	}
	return nil
}

// Retry opens the items of a final job that did not succeed for another try and
// enqueues them. Errors: tasks.JobGone, tasks.JobFinal, and a
// *tasks.UndeliveredError, after which the retry stands all the same.
func (db *DB) Retry(ctx context.Context, id string) error {
	// What has ended must have been told before it opens again.
	job, err := db.Job(ctx, id)
	if err != nil {
		return err
	}
	if !job.State.Final() {
		return nothingToRetry()
	}
	if err := db.Tell(ctx, job); err != nil {
		return fmt.Errorf("retry: %w", err)
	}
	// Listed as open first: from here on no crash can hide the job.
	now, err := db.rdb.Time(ctx).Result()
	if err == nil {
		err = db.listOpen(ctx, now, id)
	}
	if err != nil {
		return fmt.Errorf("list job as open: %w", err)
	}
	done, err := db.commit(ctx, reopenScript, []string{jobKey(id)}, rand.Text(), db.opts.GiveUpAfter.Milliseconds()).Int()
	switch {
	case err != nil:
		return fmt.Errorf("retry: %w", err)
	case done == -1:
		return tasks.JobGone
	case done == 0:
		return nothingToRetry()
	}
	job, err = db.Job(ctx, id)
	if err != nil {
		return &tasks.UndeliveredError{Job: id, Cause: err}
	}
	return db.enqueue(ctx, job)
}

func nothingToRetry() error {
	return tasks.Errorf(tasks.JobFinal, "the job has nothing to retry: it is running, or every item succeeded")
}

// list puts the job into the open index and into its tenant's index, before it
// exists, so that no crash can hide it. It returns the time by Redis's clock.
func (db *DB) list(ctx context.Context, tenant, id string) (time.Time, error) {
	now, err := db.rdb.Time(ctx).Result()
	if err != nil {
		return time.Time{}, err
	}
	// A record is gone for certain once its job's time and its retention are over.
	lifetime := tasks.MaxNotBefore + db.opts.GiveUpAfter + db.opts.JobRetention + 24*time.Hour
	pipe := db.rdb.Pipeline()
	if db.opts.CommitReplicas > 0 {
		// The record would survive a failover that this entry did not.
		if err := db.listOpen(ctx, now, id); err != nil {
			return now, err
		}
	} else {
		pipe.ZAddNX(ctx, openKey, openEntry(now, id))
	}
	jobs := jobsKey(tenant)
	pipe.ZAdd(ctx, jobs, redis.Z{Score: float64(now.UnixMilli()), Member: id})
	pipe.ZRemRangeByScore(ctx, jobs, "-inf", strconv.FormatInt(now.Add(-lifetime).UnixMilli(), 10))
	pipe.Expire(ctx, jobs, lifetime)
	_, err = pipe.Exec(ctx)
	return now, err
}

// listOpen puts a job into the open index, or its next sweep off.
func (db *DB) listOpen(ctx context.Context, now time.Time, id string) error {
	if db.opts.CommitReplicas == 0 {
		return db.rdb.ZAdd(ctx, openKey, openEntry(now, id)).Err()
	}
	node, err := db.primary(ctx, openKey)
	if err != nil {
		return err
	}
	pipe := node.Pipeline()
	added := pipe.ZAdd(ctx, openKey, openEntry(now, id))
	return cmp.Or(db.replicate(ctx, pipe), added.Err())
}

func openEntry(now time.Time, id string) redis.Z {
	return redis.Z{Score: float64(now.Add(listingGrace).UnixMilli()), Member: id}
}

// Job returns the record of a job. Errors: tasks.JobGone.
func (db *DB) Job(ctx context.Context, id string) (tasks.Job, error) {
	hash, err := db.rdb.HGetAll(ctx, jobKey(id)).Result()
	if err == nil && hash["v"] == "1" {
		if err = db.commit(ctx, upgradeScript, []string{jobKey(id)}).Err(); err == nil {
			hash, err = db.rdb.HGetAll(ctx, jobKey(id)).Result()
		}
	}
	if err != nil {
		return tasks.Job{}, fmt.Errorf("read job record: %w", err)
	}
	return decodeJob(id, hash)
}

// Version returns a job with only its tenant and what makes its tag, without
// reading the items. Errors: tasks.JobGone.
func (db *DB) Version(ctx context.Context, id string) (tasks.Job, error) {
	cmd := redis.NewSliceCmd(ctx, "hmget", jobKey(id), "v", "tenant", "created", "rev")
	if err := db.group.do(ctx, cmd); err != nil {
		return tasks.Job{}, fmt.Errorf("read job record: %w", err)
	}
	v := cmd.Val()
	if text(v[0]) != schemaVersion {
		return db.Job(ctx, id) // there is none, or it is older
	}
	f := numbers{fields: []string{text(v[2]), text(v[3])}}
	return tasks.Job{ID: id, Tenant: text(v[1]), CreatedAt: tasks.FromMillis(f.count(0)), Revision: f.count(1)}, f.err
}

// scanLimit is how many records one call of Jobs reads at the most: a filter
// that matches little ends with a cursor instead of reading everything.
const scanLimit = 1000

// Jobs returns the tenant's jobs that match, newest first, and the cursor of the
// rest, empty at the end. Entries whose record has expired are dropped on the
// way. Errors: tasks.BadRequest for a cursor that is not one of ours.
func (db *DB) Jobs(ctx context.Context, tenant string, f tasks.JobFilter) (found []tasks.Job, cursor string, err error) {
	after, err := parseCursor(f.Cursor)
	if err != nil {
		return nil, "", err
	}
	var gone []any
	defer func() {
		if len(gone) > 0 {
			_ = db.rdb.ZRem(ctx, jobsKey(tenant), gone...).Err() // met again next time
		}
	}()
	for scanned := 0; scanned < scanLimit; {
		entries, err := db.rdb.ZRevRangeByScoreWithScores(ctx, jobsKey(tenant), &redis.ZRangeBy{
			Max: after.score(), Min: "-inf", Offset: int64(scanned), Count: 100,
		}).Result()
		if err != nil {
			return nil, "", fmt.Errorf("list jobs: %w", err)
		}
		records, err := db.records(ctx, entries)
		if err != nil {
			return nil, "", fmt.Errorf("list jobs: %w", err)
		}
		for i, entry := range entries {
			scanned++
			at := cursorOf(entry)
			if !at.isAfter(after) {
				continue
			}
			hash := records[i].Val()
			job, err := decodeJob(at.job, hash)
			if hash["v"] == "1" {
				job, err = db.Job(ctx, at.job)
			}
			switch {
			case errors.Is(err, tasks.JobGone):
				if time.Since(time.UnixMilli(at.created)) > listingGrace {
					gone = append(gone, at.job)
				}
			case err != nil:
				return nil, "", fmt.Errorf("list jobs: %w", err)
			case f.Match(job):
				found = append(found, job)
				if len(found) == f.Limit {
					return found, at.String(), nil
				}
			}
			cursor = at.String()
		}
		if len(entries) < 100 {
			return found, "", nil
		}
	}
	return found, cursor, nil
}

func (db *DB) records(ctx context.Context, entries []redis.Z) ([]*redis.MapStringStringCmd, error) {
	pipe := db.rdb.Pipeline()
	records := make([]*redis.MapStringStringCmd, len(entries))
	for i, entry := range entries {
		records[i] = pipe.HGetAll(ctx, jobKey(cursorOf(entry).job))
	}
	_, err := pipe.Exec(ctx)
	return records, err
}

// position is where an entry stands in a tenant's index: by creation time, then
// by job ID, both falling.
type position struct {
	created int64
	job     string
}

func cursorOf(entry redis.Z) position {
	job, _ := entry.Member.(string)
	return position{created: int64(entry.Score), job: job}
}

func parseCursor(s string) (position, error) {
	if s == "" {
		return position{}, nil
	}
	created, job, _ := strings.Cut(s, "-")
	ms, err := strconv.ParseInt(created, 10, 64)
	if err != nil || ms <= 0 || !tasks.ValidJobID(job) {
		return position{}, tasks.Errorf(tasks.BadRequest, "cursor is not one that an earlier answer gave")
	}
	return position{ms, job}, nil
}

func (p position) String() string { return strconv.FormatInt(p.created, 10) + "-" + p.job }

func (p position) score() string {
	if p.created == 0 {
		return "+inf"
	}
	return strconv.FormatInt(p.created, 10)
}

func (p position) isAfter(q position) bool {
	return q.created == 0 || p.created < q.created || p.created == q.created && p.job < q.job
}
