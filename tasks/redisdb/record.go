package redisdb

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

const (
	openKey = "reset:open"
	// allJobsKey has the jobs of all tenants by creation time.
	allJobsKey = "reset:jobs"
)

func jobsKey(tenant string) string { return "reset:jobs:{" + tenant + "}" }

// listingGrace is how long a job may be listed before its record exists. A
// listing without a record is dropped after this time, and a create refuses to
// run after half of it, so that no job can exist unlisted.
const listingGrace = time.Minute

// Submit makes a job of the batch: it lists the job as open, creates the record
// and enqueues one task per item. The record is the commit point: when an
// enqueue fails after it, the job stands all the same and Submit returns it
// together with a *tasks.UndeliveredError. Any other error means that the job may or
// may not exist, wholly; after tasks.TooManyRequests, the tenant's limits or the
// backlog's, and after tasks.StorageFull it does not.
func (db *DB) Submit(ctx context.Context, s tasks.Submission) (tasks.Job, error) {
	job, err := db.submit(ctx, s)
	return job, orFull(err)
}

func (db *DB) submit(ctx context.Context, s tasks.Submission) (tasks.Job, error) {
	id := s.JobID()
	if err := db.refuseWhenFull(ctx); err != nil {
		return tasks.Job{}, err
	}
	if err := db.backlog(); err != nil {
		return tasks.Job{}, err
	}
	listed, err := db.accept(ctx, s.Tenant, id, len(s.InstanceIDs), false)
	if err != nil {
		return tasks.Job{}, err
	}
	entry, err := db.list(ctx, s, id, listed)
	if err != nil {
		return tasks.Job{}, db.notDecided(ctx, entry, fmt.Errorf("list job as open: %w", err))
	}
	labels, err := encodeLabels(s.Labels)
	if err != nil {
		return tasks.Job{}, err
	}
	notBefore := ""
	if !s.NotBefore.IsZero() {
		notBefore = strconv.FormatInt(s.NotBefore.UnixMilli(), 10)
	}
	queue, epoch := db.place(s.Tenant, len(s.InstanceIDs)), rand.Text()[:epochLength]
	args := []any{
		listed.UnixMilli(), (listingGrace / 2).Milliseconds(),
		db.opts.GiveUpAfter.Milliseconds(), int64(db.opts.JobRetention.Seconds()),
		s.Tenant, queue, flag(s.AllowUnregistered), s.RequestID, s.Fingerprint(), s.MaxFailures,
		int64(db.opts.TaskRetention.Seconds()), notBefore, s.Reason, labels, s.Traceparent,
		epoch,
	}
	for _, instance := range s.InstanceIDs {
		args = append(args, instance)
	}
	// A caller who hangs up now would leave a record whose tasks wait for the sweeper.
	ctx, cancel := outlive(ctx)
	defer cancel()
	answer, err := db.commit(ctx, createScript, []string{jobKey(id)}, args...).Slice()
	if err != nil || len(answer) == 0 {
		return tasks.Job{}, db.notDecided(ctx, entry, fmt.Errorf("create job record: %w, answer %v", err, answer))
	}
	created := number(answer[0])
	if created != listed.UnixMilli() { // then this request has decided nothing
		if err := db.takeBack(ctx, entry); err != nil {
			return tasks.Job{}, err
		}
	}
	switch {
	case created == 0:
		return tasks.Job{}, errors.New("create job record: Redis took too long")
	case created == -1:
		return tasks.Job{}, keyReused()
	case len(answer) != 3:
		return tasks.Job{}, fmt.Errorf("create job record: the script answered %v", answer)
	case created == listed.UnixMilli():
		db.metrics.accept(db.metrics.submitted, len(s.InstanceIDs))
		db.audited(s.Audited(id), nil)
	default:
		// Another sending of this request made the record. Listings select by the time in
		// the index; it is not worth an error.
		for _, jobs := range []string{jobsKey(s.Tenant), allJobsKey} {
			_ = db.rdb.ZAdd(ctx, jobs, redis.Z{Score: float64(created), Member: id}).Err()
		}
	}
	// The queue and the epoch are the record's: the same job must not get into two queues,
	// where its tasks would not be known to each other.
	queue, epoch = text(answer[1]), text(answer[2])

	job := tasks.Job{
		ID: id, RequestID: s.RequestID, Tenant: s.Tenant, Queue: queue, Epoch: epoch, AllowUnregistered: s.AllowUnregistered,
		CreatedAt: tasks.FromMillis(created), Total: len(s.InstanceIDs), Revision: 1, Fingerprint: s.Fingerprint(),
		TaskRetention: db.opts.TaskRetention, NotBefore: s.NotBefore, Reason: s.Reason, Labels: s.Labels, Traceparent: s.Traceparent,
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

// notDecided takes back the entry of a submit that Redis had no room for; after any other
// error nobody knows what was done.
func (db *DB) notDecided(ctx context.Context, entry string, err error) error {
	if !saysFull(err) {
		return err
	}
	return cmp.Or(db.takeBack(ctx, entry), err)
}

// epochLength is enough to tell the records apart that one idempotency key makes in time.
const epochLength = 5

// outlive is ctx as long as its deadline allows, whatever else ends it.
func outlive(ctx context.Context) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		return context.WithDeadline(context.WithoutCancel(ctx), deadline)
	}
	return context.WithoutCancel(ctx), func() {}
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
	if err != nil {
		return job, err
	}
	if job.Fingerprint != s.Fingerprint() {
		return tasks.Job{}, keyReused()
	}
	return job, db.confirm(ctx, jobKey(job.ID), revField)
}

// Cancel ends the items of a job that wait, and lets none begin any more. Errors:
// tasks.JobGone, tasks.JobFinal.
func (db *DB) Cancel(ctx context.Context, id string, actor tasks.Actor) error {
	job, err := db.Job(ctx, id)
	switch {
	case err != nil:
		return err
	case job.State.Final():
		return nothingToCancel()
	case job.Stop == tasks.Cancelled:
		return db.confirm(ctx, jobKey(id), revField)
	}
	open := aboutItems(actor.Entry(tasks.ActionCancel), job, func(it tasks.Item) bool { return !it.State.Final() })
	if err := db.Decide(ctx, open, func(ctx context.Context) error { return db.cancel(ctx, id) }); err != nil {
		return err
	}
	if job, err := db.Job(ctx, id); err == nil {
		_ = db.EnqueueNotices(ctx, job) // otherwise the sweeper does
		_ = db.IndexFailures(ctx, job)
		if job.State.Final() {
			db.uncount(ctx, job.Tenant, id, job.FinishedAt.UnixMilli())
		}
	}
	return nil
}

func (db *DB) cancel(ctx context.Context, id string) error {
	a, err := db.commit(ctx, cancelScript, []string{jobKey(id)}, rand.Text()).Slice()
	if err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	switch number(a[0]) {
	case -1:
		return tasks.JobGone
	case 0:
		return nothingToCancel()
	case 2: // somebody else was faster
		return cmp.Or(db.confirm(ctx, jobKey(id), revField), errUnchanged)
	}
	db.metrics.stop(a[1:])
	return nil
}

func nothingToCancel() error {
	return tasks.Errorf(tasks.JobFinal, "the job has ended, there is nothing to cancel")
}

// aboutItems makes an entry one about those items of a job that a condition selects.
func aboutItems(e tasks.AuditEntry, job tasks.Job, selects func(tasks.Item) bool) tasks.AuditEntry {
	var instances []string
	for _, it := range job.Items {
		if selects(it) {
			instances = append(instances, it.InstanceID)
		}
	}
	e.Tenant, e.Job = job.Tenant, job.ID
	return e.About(instances)
}

// Retry opens those items of a final job that are in one of the states, which are among
// tasks.RetryStates, for another try, and enqueues them; the others stay as they are.
// Errors: tasks.JobGone, tasks.JobFinal, tasks.TooManyRequests, tasks.StorageFull, and a
// *tasks.UndeliveredError, after which the retry stands all the same.
func (db *DB) Retry(ctx context.Context, id string, states []tasks.ItemState, actor tasks.Actor) error {
	return orFull(db.retry(ctx, id, states, actor))
}

func (db *DB) retry(ctx context.Context, id string, states []tasks.ItemState, actor tasks.Actor) error {
	var letters strings.Builder
	for _, state := range states {
		if !slices.Contains(tasks.RetryStates, state) {
			return fmt.Errorf("retry: an item that is %q cannot be opened", state)
		}
		letters.WriteByte(state[0]) // see stateOf
	}
	job, err := db.Job(ctx, id)
	if err != nil {
		return err
	}
	again := job.Counts.In(states)
	if !job.State.Final() || again == 0 {
		return job.NothingToRetry(states)
	}
	if err := db.refuseWhenFull(ctx); err != nil {
		return err
	}
	// What has ended must have been told before it opens again.
	if err := db.EnqueueNotices(ctx, job); err != nil {
		return fmt.Errorf("retry: %w", err)
	}
	if _, err := db.accept(ctx, job.Tenant, id, again, true); err != nil {
		return err
	}
	// Listed as open first: from here on no crash can hide the job.
	now, err := db.rdb.Time(ctx).Result()
	if err == nil {
		err = db.listOpen(ctx, now, id)
	}
	if err != nil {
		return fmt.Errorf("list job as open: %w", err)
	}
	about := aboutItems(actor.Entry(tasks.ActionRetry), job, func(it tasks.Item) bool { return slices.Contains(states, it.State) })
	if err := db.Decide(ctx, about, func(ctx context.Context) error { return db.reopen(ctx, id, letters.String(), states) }); err != nil {
		return err
	}
	db.metrics.accept(db.metrics.reopened, again)
	if job, err = db.Job(ctx, id); err != nil {
		return &tasks.UndeliveredError{Job: id, Cause: err}
	}
	return db.enqueue(ctx, job)
}

func (db *DB) reopen(ctx context.Context, id, letters string, states []tasks.ItemState) error {
	done, err := db.commit(ctx, reopenScript, []string{jobKey(id)}, rand.Text(), db.opts.GiveUpAfter.Milliseconds(), letters).Int()
	if err != nil {
		return orFull(fmt.Errorf("retry: %w", err))
	}
	switch done {
	case -1:
		return tasks.JobGone
	case 0: // somebody else was faster
		job, err := db.Job(ctx, id)
		if err != nil {
			return err
		}
		return job.NothingToRetry(states)
	}
	return nil
}

// list puts the job into the open index, into those by tenant and by instance, and into the
// audit trail, before it exists, so that no crash can hide it. now is Redis's time. It
// returns the ID of the entry.
func (db *DB) list(ctx context.Context, s tasks.Submission, id string, now time.Time) (entry string, err error) {
	add, err := db.auditArgs(s.Audited(id), now)
	if err != nil {
		return "", err
	}
	lifetime := db.lifetime()
	pipe := db.rdb.Pipeline()
	var added *redis.StringCmd
	if db.opts.CommitReplicas > 0 {
		// The record would survive a failover that these entries did not.
		if err := db.listOpen(ctx, now, id); err != nil {
			return "", err
		}
		if entry, err = db.writeAudit(ctx, add); err != nil {
			return "", err
		}
	} else {
		// Never earlier, but later: this request has a whole grace of its own, even if an
		// earlier one of the same key has listed the job and come to nothing.
		pipe.ZAddArgs(ctx, openKey, redis.ZAddArgs{GT: true, Members: []redis.Z{openEntry(now, id)}})
		added = pipe.XAdd(ctx, add)
	}
	for _, jobs := range []string{jobsKey(s.Tenant), allJobsKey} {
		pipe.ZAdd(ctx, jobs, redis.Z{Score: float64(now.UnixMilli()), Member: id})
		pipe.ZRemRangeByScore(ctx, jobs, "-inf", score(now.Add(-lifetime)))
		pipe.Expire(ctx, jobs, lifetime)
	}
	db.instances.add(ctx, pipe, now, lifetime, id, s.InstanceIDs)
	if _, err = pipe.Exec(ctx); err != nil {
		db.instances.forget()
	}
	if added != nil {
		entry = added.Val()
	}
	return entry, err
}

// lifetime is after what time a record is gone for certain: its job's time and its retention
// are over.
func (db *DB) lifetime() time.Duration {
	return tasks.MaxNotBefore + db.opts.GiveUpAfter + db.opts.JobRetention + 24*time.Hour
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
