package views

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

// HeldJobs are jobs for their callers: a record says what holds it as soon as something does, and no longer. Halts, pauses of runs
// and not_before are looked at when a record is read, which costs nothing; they are in its tag, so that nobody keeps an old answer.
// A driver without a worker is said by the record itself, once a sweeper has been there.
type HeldJobs struct {
	*jobRecords

	policies CensusPolicies
	now      func() time.Time
}

// jobRecords are Jobs under another name: they have a method of that name.
type jobRecords = Jobs

// NewHeldJobs makes HeldJobs.
func NewHeldJobs(jobs *Jobs, policies CensusPolicies, now func() time.Time) *HeldJobs {
	return &HeldJobs{jobs, policies, now}
}

// Job is that of Jobs, with what holds it.
func (v *HeldJobs) Job(ctx context.Context, id string) (tasks.Job, error) {
	job, err := v.jobRecords.Job(ctx, id)
	if err == nil {
		v.bar(ctx, &job)
	}
	return job, err
}

// JobsByID are those of Jobs, with what holds them.
func (v *HeldJobs) JobsByID(ctx context.Context, ids []string) ([]tasks.Job, error) {
	found, err := v.jobRecords.JobsByID(ctx, ids)
	for i := range found {
		v.bar(ctx, &found[i])
	}
	return found, err
}

// Jobs are those of Jobs, with what holds them.
func (v *HeldJobs) Jobs(ctx context.Context, tenant string, f tasks.JobFilter) (found []tasks.Job, cursor string, err error) {
	found, cursor, err = v.jobRecords.Jobs(ctx, tenant, f)
	for i := range found {
		v.bar(ctx, &found[i])
	}
	return found, cursor, err
}

// BarredRun is what keeps all instances of a tenant from beginning, or zero.
func (v *HeldJobs) BarredRun(ctx context.Context, tenant string) tasks.Held {
	return v.barredBy(ctx, tasks.Job{Tenant: tenant})
}

// versionFields are what a tag is made of.
var versionFields = []string{"v", "tenant", "created", "rev", "left", "end", "run"}

// Version returns a job with only its tenant and what makes its tag, without
// reading the items. Errors: tasks.JobGone.
func (v *HeldJobs) Version(ctx context.Context, id string) (tasks.Job, error) {
	args := make([]any, 0, 2+len(versionFields))
	args = append(args, "hmget", codec.JobKey(id))
	for _, name := range versionFields {
		args = append(args, name)
	}
	cmd := redis.NewSliceCmd(ctx, args...)
	if err := v.redis.Grouped(ctx, cmd); err != nil {
		return tasks.Job{}, fmt.Errorf("read job record: %w", err)
	}
	if codec.Text(cmd.Val()[0]) != codec.Version {
		return v.Job(ctx, id) // there is none, or it cannot be read
	}
	return v.version(ctx, id, cmd.Val())
}

// version reads versionFields.
func (v *HeldJobs) version(ctx context.Context, id string, header []any) (tasks.Job, error) {
	created, revision, err := codec.Revision(header[2], header[3])
	job := tasks.Job{ID: id, Tenant: codec.Text(header[1]), CreatedAt: created, Revision: revision, RunID: codec.Text(header[6])}
	if left := codec.Text(header[4]); left == "" || left == "0" {
		return job, err
	}
	if _, notBefore, some := strings.Cut(codec.Text(header[5]), " "); some {
		job.NotBefore = codec.Millis(notBefore)
	}
	job.Barred = v.barredBy(ctx, job)
	return job, err
}

// Tags returns the tags of those jobs that have a record.
func (v *HeldJobs) Tags(ctx context.Context, jobs []string) (map[string]string, error) {
	pipe := v.redis.Pipeline()
	answers := make([]*redis.SliceCmd, len(jobs))
	for i, id := range jobs {
		answers[i] = pipe.HMGet(ctx, codec.JobKey(id), versionFields...)
	}
	_, _ = pipe.Exec(ctx) // each carries its own error
	tags := make(map[string]string, len(jobs))
	for i, id := range jobs {
		header, err := answers[i].Result()
		if wire.Answered(err) {
			continue // it is no record
		}
		if err != nil {
			return nil, fmt.Errorf("read job versions: %w", err)
		}
		if job, _ := v.version(ctx, id, header); !job.CreatedAt.IsZero() {
			tags[id] = job.Tag()
		}
	}
	return tags, nil
}

// bar says in a job what holds it.
func (v *HeldJobs) bar(ctx context.Context, job *tasks.Job) {
	if job.State.Final() {
		return
	}
	job.Barred = v.barredBy(ctx, *job)
	if job.Barred.Reason != "" && job.Counts.Pending+job.Counts.Retrying > 0 {
		job.Held = job.Barred
	}
}

// barredBy is what keeps all of a job from beginning, whatever it has left. While the policies cannot be read it is nothing.
func (v *HeldJobs) barredBy(ctx context.Context, job tasks.Job) tasks.Held {
	all, err := v.policies.Policy(ctx, "")
	if err != nil {
		return tasks.Held{}
	}
	t := tally{sources: CensusSources{Policies: v.policies}, now: v.now(), all: all.OperatorHalt, tenants: map[string]tenantHold{}, runs: map[string]*tasks.Holding{}}
	h, err := t.jobHold(ctx, codec.Open{Job: job, Since: job.CreatedAt})
	if err != nil || h == nil {
		return tasks.Held{}
	}
	held := tasks.Held{Reason: h.Text(), Since: h.Since}
	if h.Reason == tasks.HoldNotBefore {
		held.Reason = "not_before is " + h.Until.UTC().Format(time.RFC3339)
	}
	return held
}
