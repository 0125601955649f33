package redisdb

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/registry"
	"batchreset/tasks/redisdb/views"
	"batchreset/tasks/redisdb/wire"
)

// Records are the job records, as far as callers change them.
type Records struct {
	redis    *wire.Client
	opts     Options
	audit    *registry.Audit
	storage  *registry.Storage
	quotas   *registry.Quotas
	jobs     *views.Jobs
	failures *views.Failures
	queues   *Queues
	notices  *Notices
	metrics  *metrics
}

// Submit makes a job of the batch: it lists the job as open, creates the record
// and enqueues one task per item. The record is the commit point: when an
// enqueue fails after it, the job stands all the same and Submit returns it
// together with a *tasks.UndeliveredError. Any other error means that the job may or
// may not exist, wholly; after tasks.TooManyRequests, the tenant's limits or the
// backlog's, and after tasks.StorageFull it does not.
func (r *Records) Submit(ctx context.Context, s tasks.Submission) (tasks.Job, error) {
	job, err := r.submit(ctx, s)
	return job, registry.OrFull(err)
}

func (r *Records) submit(ctx context.Context, s tasks.Submission) (tasks.Job, error) {
	id := s.JobID()
	if err := r.storage.Refuse(ctx); err != nil {
		return tasks.Job{}, err
	}
	if err := r.queues.refuseBacklog(); err != nil {
		return tasks.Job{}, err
	}
	listed, err := r.quotas.Accept(ctx, registry.Work{Tenant: s.Tenant, Job: id, Instances: len(s.InstanceIDs), OfRun: s.RunID != ""})
	if err != nil {
		return tasks.Job{}, err
	}
	entry, err := r.list(ctx, s, id, listed)
	if err != nil {
		return tasks.Job{}, r.notDecided(ctx, entry, fmt.Errorf("list job as open: %w", err))
	}
	args, err := r.createArgs(s, listed)
	if err != nil {
		return tasks.Job{}, err
	}
	// A caller who hangs up now would leave a record whose tasks wait for the sweeper.
	ctx, cancel := wire.Outlive(ctx)
	defer cancel()
	answer, err := r.redis.Commit(ctx, createScript, []string{codec.JobKey(id)}, args...).Slice()
	if err != nil || len(answer) == 0 {
		return tasks.Job{}, r.notDecided(ctx, entry, fmt.Errorf("create job record: %w", orOddAnswer(err, answer)))
	}
	created := codec.Number(answer[0])
	if created != listed.UnixMilli() { // then this request has decided nothing
		if err := r.audit.TakeBack(ctx, entry); err != nil {
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
		r.metrics.accept(r.metrics.submitted, len(s.InstanceIDs))
		if s.RunID == "" {
			r.audit.Announce(s.Audited(id), nil)
		}
	default:
		r.jobs.IndexAt(ctx, created, s.Tenant, id) // another sending of this request made the record
		return r.again(ctx, id)
	}
	job := r.jobOf(s, id, tasks.FromMillis(created))
	job.Queue, job.Epoch = codec.Text(answer[1]), codec.Text(answer[2])
	return job, r.queues.enqueue(ctx, job)
}

// again enqueues a job as its record is: the same job must not get into two queues, where its tasks
// would not be known to each other.
func (r *Records) again(ctx context.Context, id string) (tasks.Job, error) {
	job, err := r.jobs.Job(ctx, id)
	if err != nil {
		return job, fmt.Errorf("read the job record of an earlier sending: %w", err)
	}
	return job, r.queues.enqueue(ctx, job)
}

// createArgs are those of create.lua.
func (r *Records) createArgs(s tasks.Submission, listed time.Time) ([]any, error) {
	labels, err := codec.EncodeLabels(s.Labels)
	if err != nil {
		return nil, err
	}
	notBefore := ""
	if !s.NotBefore.IsZero() {
		notBefore = strconv.FormatInt(s.NotBefore.UnixMilli(), 10)
	}
	queue, epoch := r.queues.place(s.Tenant, len(s.InstanceIDs)), rand.Text()[:epochLength]
	args := []any{
		listed.UnixMilli(), (codec.ListingGrace / 2).Milliseconds(),
		r.giveUpAfter(s).Milliseconds(), int64(r.opts.JobRetention.Seconds()),
		s.Tenant, queue, codec.Flag(s.AllowUnregistered), s.RequestID, s.Fingerprint(), s.MaxFailures,
		int64(r.opts.TaskRetention.Seconds()), notBefore, s.Reason, labels, s.Traceparent,
		codec.By(s.By, s.From), epoch, s.RunID,
	}
	for _, instance := range s.InstanceIDs {
		args = append(args, codec.NewItem(instance, s.Drivers[instance], s.Generations[instance]))
	}
	return args, nil
}

// jobOf is the job that a submission has just become.
func (r *Records) jobOf(s tasks.Submission, id string, created tasks.Time) tasks.Job {
	job := tasks.Job{
		ID: id, RunID: s.RunID, RequestID: s.RequestID, Tenant: s.Tenant, AllowUnregistered: s.AllowUnregistered,
		CreatedAt: created, Total: len(s.InstanceIDs), Revision: 1, Fingerprint: s.Fingerprint(),
		TaskRetention: r.opts.TaskRetention, NotBefore: s.NotBefore, Reason: s.Reason, Labels: s.Labels, Traceparent: s.Traceparent,
		By: s.By, From: s.From,
	}
	job.EndBefore = tasks.Time{Time: latest(job.CreatedAt, job.NotBefore).Add(r.giveUpAfter(s))}
	for n, instance := range s.InstanceIDs {
		job.Items = append(job.Items, tasks.Item{
			ID: tasks.ItemID(id, n), InstanceID: instance, State: tasks.ItemPending, Delivery: 1, Driver: s.Drivers[instance], Generation: s.Generations[instance],
		})
	}
	job.Counts = tasks.Count(job.Items)
	job.State = job.Counts.State()
	return job
}

// notDecided takes back the entry of a submit that Redis had no room for; after any other
// error nobody knows what was done.
func (r *Records) notDecided(ctx context.Context, entry string, err error) error {
	if !registry.SaysFull(err) {
		return err
	}
	return cmp.Or(r.audit.TakeBack(ctx, entry), err)
}

// epochLength is enough to tell the records apart that one idempotency key makes in time.
const epochLength = 5

func latest(a, b tasks.Time) tasks.Time {
	if a.After(b.Time) {
		return a
	}
	return b
}

func keyReused() error {
	return tasks.Errorf(tasks.KeyReused, "Idempotency-Key was used for another request")
}

// Replay returns the job that the submission has become before, by its idempotency
// key. Errors: tasks.JobGone if there is none, tasks.KeyReused if the key was used
// for another request.
func (r *Records) Replay(ctx context.Context, s tasks.Submission) (tasks.Job, error) {
	job, err := r.jobs.Job(ctx, s.JobID())
	if err != nil {
		return job, err
	}
	if job.Fingerprint != s.Fingerprint() {
		return tasks.Job{}, keyReused()
	}
	return job, r.redis.Confirm(ctx, codec.JobKey(job.ID), codec.RevField)
}

// Cancel ends the items of a job that wait, and lets none begin any more. Errors:
// tasks.JobGone, tasks.JobFinal.
func (r *Records) Cancel(ctx context.Context, id string, actor tasks.Actor) error {
	job, err := r.jobs.Job(ctx, id)
	switch {
	case err != nil:
		return err
	case job.State.Final():
		return nothingToCancel()
	case job.Stop == tasks.Cancelled:
		return r.redis.Confirm(ctx, codec.JobKey(id), codec.RevField)
	}
	open := aboutItems(actor.Entry(tasks.ActionCancel), job, func(it tasks.Item) bool { return !it.State.Final() })
	if err := r.audit.Decide(ctx, open, func(ctx context.Context) error { return r.cancel(ctx, id) }); err != nil {
		return err
	}
	if job, err := r.jobs.Job(ctx, id); err == nil {
		_ = r.notices.EnqueueNotices(ctx, job) // otherwise the sweeper does
		_ = r.failures.IndexFailures(ctx, job)
		if job.State.Final() {
			r.quotas.JobEnded(ctx, job.Tenant, id, job.FinishedAt.UnixMilli())
		}
	}
	return nil
}

func (r *Records) cancel(ctx context.Context, id string) error {
	a, err := r.redis.Commit(ctx, cancelScript, []string{codec.JobKey(id)}, rand.Text()).Slice()
	if err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	switch codec.Number(a[0]) {
	case -1:
		return tasks.JobGone
	case 0:
		return nothingToCancel()
	case 2: // somebody else was faster
		return cmp.Or(r.redis.Confirm(ctx, codec.JobKey(id), codec.RevField), registry.ErrUnchanged)
	}
	r.metrics.stop(a[1:])
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
// tasks.RetryStates, and have one of the codes if there are any, for another try, and enqueues them; the others stay as they are.
// Errors: tasks.JobGone, tasks.JobFinal, tasks.TooManyRequests, tasks.StorageFull, and a
// *tasks.UndeliveredError, after which the retry stands all the same.
func (r *Records) Retry(ctx context.Context, id string, states []tasks.ItemState, actor tasks.Actor, codes ...tasks.Code) error {
	return registry.OrFull(r.retry(ctx, id, tasks.Again{States: states, Codes: codes}, actor))
}

func (r *Records) retry(ctx context.Context, id string, what tasks.Again, actor tasks.Actor) error {
	var letters strings.Builder
	for _, state := range what.States {
		if !slices.Contains(tasks.RetryStates, state) {
			return fmt.Errorf("retry: an item that is %q cannot be opened", state)
		}
		letters.WriteByte(state[0]) // see codec.StateOf
	}
	job, err := r.jobs.Job(ctx, id)
	if err != nil {
		return err
	}
	if job.RunID != "" { // which has counted its instances
		return tasks.Errorf(tasks.JobFinal, "the job belongs to run %s: it cannot be retried by itself", job.RunID)
	}
	again := 0
	for _, it := range job.Items {
		if what.Takes(it) {
			again++
		}
	}
	if !job.State.Final() || again == 0 {
		return job.NothingToRetry(what)
	}
	if err := r.storage.Refuse(ctx); err != nil {
		return err
	}
	// What has ended must have been told before it opens again.
	if err := r.notices.EnqueueNotices(ctx, job); err != nil {
		return fmt.Errorf("retry: %w", err)
	}
	if _, err := r.quotas.Accept(ctx, registry.Work{Tenant: job.Tenant, Job: id, Instances: again, Again: true}); err != nil {
		return err
	}
	// Listed as open first: from here on no crash can hide the job.
	now, err := r.redis.Time(ctx).Result()
	if err == nil {
		err = r.listOpen(ctx, now, id)
	}
	if err != nil {
		return fmt.Errorf("list job as open: %w", err)
	}
	about := aboutItems(actor.Entry(tasks.ActionRetry), job, what.Takes)
	if err := r.audit.Decide(ctx, about, func(ctx context.Context) error { return r.reopen(ctx, id, letters.String(), what) }); err != nil {
		return err
	}
	r.metrics.accept(r.metrics.reopened, again)
	if job, err = r.jobs.Job(ctx, id); err != nil {
		return &tasks.UndeliveredError{Job: id, Cause: err}
	}
	return r.queues.enqueue(ctx, job)
}

func (r *Records) giveUpAfter(s tasks.Submission) time.Duration {
	return cmp.Or(s.GiveUpAfter, r.opts.GiveUpAfter)
}

func (r *Records) reopen(ctx context.Context, id, letters string, what tasks.Again) error {
	args := []any{rand.Text(), r.opts.GiveUpAfter.Milliseconds(), letters}
	for _, code := range what.Codes {
		args = append(args, string(code))
	}
	done, err := r.redis.Commit(ctx, reopenScript, []string{codec.JobKey(id)}, args...).Int()
	if err != nil {
		return registry.OrFull(fmt.Errorf("retry: %w", err))
	}
	switch done {
	case -1:
		return tasks.JobGone
	case 0: // somebody else was faster
		job, err := r.jobs.Job(ctx, id)
		if err != nil {
			return err
		}
		return job.NothingToRetry(what)
	}
	return nil
}

// list puts the job into the open index, into those by tenant and by instance, and into the
// audit trail, before it exists, so that no crash can hide it. now is Redis's time. It
// returns the ID of the entry.
func (r *Records) list(ctx context.Context, s tasks.Submission, id string, now time.Time) (entry string, err error) {
	pipe := r.redis.Pipeline()
	var added *redis.StringCmd
	if r.opts.CommitReplicas > 0 {
		// The record would survive a failover that these entries did not.
		if err := r.listOpen(ctx, now, id); err != nil {
			return "", err
		}
		if s.RunID == "" { // else the run has one
			if entry, err = r.audit.Write(ctx, s.Audited(id), now); err != nil {
				return "", err
			}
		}
	} else {
		// Never earlier, but later: this request has a whole grace of its own, even if an
		// earlier one of the same key has listed the job and come to nothing.
		pipe.ZAddArgs(ctx, codec.OpenKey, redis.ZAddArgs{GT: true, Members: []redis.Z{openEntry(now, id)}})
		if s.RunID == "" {
			if added, err = r.audit.WriteIn(ctx, pipe, s.Audited(id), now); err != nil {
				return "", err
			}
		}
	}
	r.jobs.Index(ctx, pipe, now, s.Tenant, id, s.InstanceIDs)
	if _, err = pipe.Exec(ctx); err != nil {
		r.jobs.Forget()
	}
	if added != nil {
		entry = added.Val()
	}
	return entry, err
}

// listOpen puts a job into the open index, or its next sweep off.
func (r *Records) listOpen(ctx context.Context, now time.Time, id string) error {
	var added *redis.IntCmd
	replicated := r.redis.CommitWrites(ctx, codec.OpenKey, func(pipe redis.Pipeliner) { added = pipe.ZAdd(ctx, codec.OpenKey, openEntry(now, id)) })
	if added == nil {
		return replicated
	}
	return cmp.Or(replicated, added.Err())
}

func openEntry(now time.Time, id string) redis.Z {
	return redis.Z{Score: float64(now.Add(codec.ListingGrace).UnixMilli()), Member: id}
}
