package runs

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
	"batchreset/tasks/redisdb/wire"
)

//go:embed lua
var files embed.FS

var (
	scripts          = wire.NewScripts(files, map[string]string{"EVENT": eventField})
	createScript     = scripts.Script("create")
	takeScript       = scripts.Script("take")
	closeScript      = scripts.Script("close")
	changeScript     = scripts.Script("change")
	finishScript     = scripts.Script("finish")
	releaseScript    = scripts.Script("release")
	rescheduleScript = scripts.Script("reschedule")
	judgeScript      = scripts.Script("judge")
	retryScript      = scripts.Script("retry")
	retireScript     = scripts.Script("retire")
)

// Jobs reads job records, or of each what a run adds up; a read has an answer, or an error, for each.
type Jobs interface {
	Records(ctx context.Context, ids []string) []tasks.Read
	Outlines(ctx context.Context, ids []string) []tasks.Read
	OutlinesOfWaiting(ctx context.Context, ids []string) []tasks.Read
}

// Audit carries decisions out and has them in the trail: see registry.Audit.
type Audit interface {
	Decide(ctx context.Context, e tasks.AuditEntry, act func(context.Context) error) error
}

// Brake keeps attempts of a run's jobs from beginning.
type Brake interface {
	HaltRun(ctx context.Context, run, reason string) error
	ReleaseRun(ctx context.Context, run string) error
}

// Options are the settings of Runs.
type Options struct {
	// Refuse returns an error while nothing new may be stored.
	Refuse func(context.Context) error
	// Retention is how long a record is kept after its end, TaskRetention how long asynq keeps notices that were sent.
	Retention, TaskRetention time.Duration
	// GiveUpAfter is how long after its creation the items of a run's job may still start.
	GiveUpAfter time.Duration
	// LeftOut is told what lists leave out because it cannot be read.
	LeftOut *codec.LeftOut
	// Barred is what keeps all instances of a tenant from beginning, if anything does. nil: nobody looks.
	Barred func(ctx context.Context, tenant string) tasks.Held
	// Paused is told of each run that this process has paused, and by what.
	Paused func(by string)
}

// What pauses a run.
const (
	ByHand     = "hand"
	ByCanary   = "canary"   // not all of it succeeded
	ByFailures = "failures" // more than max_failures
)

// Runs are the records of runs: they are made, read, listed.
type Runs struct {
	redis *wire.Client
	jobs  Jobs
	audit Audit
	opts  Options
}

// New makes Runs.
func New(client *wire.Client, jobs Jobs, audit Audit, opts Options) *Runs {
	return &Runs{client, jobs, audit, opts}
}

const (
	// version is written into every record. A record of another version is not read.
	version = "1"
	// writeLife is how long a list may take to be written.
	writeLife = 10 * time.Minute
	// pushAtOnce is how many parts are written by one command.
	pushAtOnce = 500
)

// Create makes a run of the submission, or returns the one that it has become before, by its
// idempotency key. After an error that is none of these it may exist or not, wholly. Errors:
// tasks.KeyReused, tasks.StorageFull.
func (r *Runs) Create(ctx context.Context, s tasks.RunSubmission) (tasks.Run, error) {
	if err := r.opts.Refuse(ctx); err != nil {
		return tasks.Run{}, err
	}
	id := s.RunID()
	switch before, err := r.Stored(ctx, id); {
	case err == nil && before.Fingerprint != s.Fingerprint():
		return tasks.Run{}, keyReused()
	case err == nil:
		return r.Run(ctx, id)
	case !errors.Is(err, tasks.RunGone):
		return tasks.Run{}, err
	}
	written, parts, err := r.writeList(ctx, id, s.Options.Parts(s.InstanceIDs, s.Generations))
	if err != nil {
		return tasks.Run{}, err
	}
	now, err := r.redis.Time(ctx).Result()
	if err != nil {
		return tasks.Run{}, fmt.Errorf("create run: %w", err)
	}
	// Listed before it exists, so that no crash can hide a run.
	if err := r.list(ctx, s.Tenant, id, now, now); err != nil {
		return tasks.Run{}, err
	}
	e := tasks.Actor{By: s.By, Principal: s.Principal, From: s.From, RequestID: s.RequestID, Reason: s.Reason}.Entry(tasks.ActionRun)
	e.Tenant, e.Run, e.List, e.Detail = s.Tenant, id, tasks.ListHash(s.InstanceIDs), strconv.Itoa(len(s.InstanceIDs))+" instances"
	if err := r.audit.Decide(ctx, e, func(ctx context.Context) error {
		return r.create(ctx, id, s, now, written, parts, e.List)
	}); err != nil {
		return tasks.Run{}, err
	}
	_ = r.wake(ctx, id)              // else a runner comes in a minute
	_ = r.forget(ctx, s.Tenant, now) // else the next run that is made does
	return r.Run(ctx, id)
}

func keyReused() error {
	return tasks.Errorf(tasks.KeyReused, "Idempotency-Key was used for another request")
}

// list lists a run that was created at a time, and is to be looked at from now on. One that was listed before under its
// idempotency key, and has expired since, is a new one.
func (r *Runs) list(ctx context.Context, tenant, id string, created, now time.Time) error {
	pipe := r.redis.Pipeline()
	// Never earlier, but later: this request has a whole grace of its own, even if an earlier one of the same key has
	// listed the run and come to nothing.
	pipe.ZAddArgs(ctx, codec.OpenRunsKey, redis.ZAddArgs{GT: true, Members: []redis.Z{{Score: float64(now.Add(codec.ListingGrace).UnixMilli()), Member: id}}})
	for _, key := range []string{codec.RunsKey(tenant), codec.AllRunsKey} {
		pipe.ZAdd(ctx, key, redis.Z{Score: float64(created.UnixMilli()), Member: id})
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("list run: %w", err)
	}
	return nil
}

// forgetAtOnce is how many runs of a list are looked at for each run that is made.
const forgetAtOnce = 100

// forget takes those of the oldest runs off the lists whose records have expired, or were never made. How long a run lasts
// is up to people, so its age alone does not say that.
func (r *Runs) forget(ctx context.Context, tenant string, now time.Time) error {
	for _, key := range []string{codec.RunsKey(tenant), codec.AllRunsKey} {
		oldest, err := r.redis.ZRangeArgsWithScores(ctx, redis.ZRangeArgs{
			Key: key, Start: "-inf", Stop: strconv.FormatInt(now.Add(-codec.ListingGrace).UnixMilli(), 10), ByScore: true, Count: forgetAtOnce,
		}).Result()
		if err != nil {
			return fmt.Errorf("list oldest runs: %w", err)
		}
		pipe := r.redis.Pipeline()
		records := make([]*redis.IntCmd, len(oldest))
		for i, z := range oldest {
			id, _ := z.Member.(string)
			records[i] = pipe.Exists(ctx, codec.RunKey(id))
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("look for oldest runs: %w", err)
		}
		for i, z := range oldest {
			if records[i].Val() > 0 {
				continue
			}
			// With another score it is about to be made again.
			if err := rescheduleScript.Run(ctx, r.redis, []string{key}, z.Member, int64(z.Score), "").Err(); err != nil {
				return fmt.Errorf("forget run: %w", err)
			}
		}
	}
	return nil
}

// writeList writes the parts where nobody else writes.
func (r *Runs) writeList(ctx context.Context, id string, all []tasks.Part) (key string, parts int, err error) {
	key = codec.RunListKey(id) + ":" + rand.Text()
	for chunk := range slices.Chunk(all, pushAtOnce) {
		texts := make([]any, len(chunk))
		for i, p := range chunk {
			texts[i] = encodePart(p)
		}
		pipe := r.redis.Pipeline()
		pipe.RPush(ctx, key, texts...)
		pipe.Expire(ctx, key, writeLife)
		if _, err := pipe.Exec(ctx); err != nil {
			return "", 0, fmt.Errorf("write list of run: %w", err)
		}
	}
	return key, len(all), nil
}

// encodePart is a part as the list has it: its wave, and its instances, each with "=" and its generation if there is
// one. No instance ID has an equals sign.
func encodePart(p tasks.Part) string {
	var b strings.Builder
	b.WriteString(strconv.Itoa(p.Wave))
	for _, instance := range p.InstanceIDs {
		b.WriteByte(' ')
		b.WriteString(instance)
		if n := p.Generations[instance]; n != 0 {
			b.WriteByte('=')
			b.WriteString(strconv.Itoa(n))
		}
	}
	return b.String()
}

func decodePart(text string) (tasks.Part, error) {
	fields := strings.Split(text, " ")
	wave, err := strconv.Atoi(fields[0])
	if err != nil || len(fields) < 2 {
		return tasks.Part{}, &codec.Damage{Err: fmt.Errorf("a part of the list is %.80q", text)}
	}
	p := tasks.Part{Wave: wave, InstanceIDs: fields[1:]}
	for i, field := range p.InstanceIDs {
		instance, generation, ok := strings.Cut(field, "=")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(generation)
		if err != nil {
			return tasks.Part{}, &codec.Damage{Err: fmt.Errorf("a part of the list has %.80q", field)}
		}
		if p.Generations == nil {
			p.Generations = map[string]int{}
		}
		p.InstanceIDs[i], p.Generations[instance] = instance, n
	}
	return p, nil
}

func (r *Runs) create(ctx context.Context, id string, s tasks.RunSubmission, now time.Time, written string, parts int, list string) error {
	fields, err := encodeHeader(s, now, list, r.opts)
	if err != nil {
		return err
	}
	args := append([]any{s.Fingerprint(), parts, now.UnixMilli(), (codec.ListingGrace / 2).Milliseconds()}, fields...)
	ctx, cancel := wire.Outlive(ctx)
	defer cancel()
	made, err := r.redis.Commit(ctx, createScript, []string{codec.RunKey(id), codec.RunListKey(id), written}, args...).Int()
	switch {
	case err != nil:
		return fmt.Errorf("create run: %w", err)
	case made == -1:
		return keyReused()
	case made == 0:
		return errors.New("create run: Redis took too long")
	}
	return nil
}

// Run returns a run with the counts of this moment. Errors: tasks.RunGone.
func (r *Runs) Run(ctx context.Context, id string) (tasks.Run, error) {
	run, err := r.Stored(ctx, id)
	if err != nil {
		return run, err
	}
	if run, err = r.sum(ctx, run); err != nil || r.opts.Barred == nil || run.State != tasks.RunRunning || run.Cancelled {
		return run, err
	}
	// What people have decided about the tenant comes before what its jobs wait for.
	if barred := r.opts.Barred(ctx, run.Tenant); barred.Reason != "" && run.Counts.Pending+run.Counts.Retrying > 0 {
		run.Held = barred
	}
	return run, nil
}

// Stored is a run without what the jobs of its open parts say. Errors: tasks.RunGone.
func (r *Runs) Stored(ctx context.Context, id string) (tasks.Run, error) {
	hash, err := r.redis.HGetAll(ctx, codec.RunKey(id)).Result()
	if err != nil {
		return tasks.Run{}, fmt.Errorf("read run: %w", err)
	}
	return decode(id, hash)
}

func (r *Runs) sum(ctx context.Context, run tasks.Run) (tasks.Run, error) {
	return r.sumBy(ctx, run, r.jobs.Outlines)
}

// outlines reads outlines of jobs.
type outlines func(ctx context.Context, ids []string) []tasks.Read

func (r *Runs) sumBy(ctx context.Context, run tasks.Run, look outlines) (tasks.Run, error) {
	jobs, err := r.openJobs(ctx, run, look)
	if err != nil {
		return run, err
	}
	return run.Sum(jobs, r.redis.Now()), nil
}

// OpenJobs are outlines of the jobs of the open parts of a run, by part: see codec.Outline. Those that are
// not made yet are not there.
func (r *Runs) OpenJobs(ctx context.Context, run tasks.Run) (map[int]tasks.Job, error) {
	return r.openJobs(ctx, run, r.jobs.Outlines)
}

func (r *Runs) openJobs(ctx context.Context, run tasks.Run, look outlines) (map[int]tasks.Job, error) {
	parts := slices.Sorted(maps.Keys(run.Open))
	ids := make([]string, len(parts))
	for i, part := range parts {
		ids[i] = tasks.PartJobID(run.ID, part)
	}
	jobs := make(map[int]tasks.Job, len(parts))
	for i, read := range look(ctx, ids) {
		switch {
		case read.Err == nil:
			jobs[parts[i]] = read.Job
		case !errors.Is(read.Err, tasks.JobGone):
			return nil, fmt.Errorf("read job %s of run %s: %w", ids[i], run.ID, read.Err)
		}
	}
	return jobs, nil
}

// partsAtOnce is how many parts are read at once.
const partsAtOnce = 32

// Parts reads parts of the list.
func (r *Runs) Parts(ctx context.Context, run string, from, n int) ([]tasks.Part, error) {
	texts, err := r.redis.LRange(ctx, codec.RunListKey(run), int64(from), int64(from+n-1)).Result()
	if err != nil {
		return nil, fmt.Errorf("read list of run: %w", err)
	}
	parts := make([]tasks.Part, len(texts))
	for i, text := range texts {
		if parts[i], err = decodePart(text); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

// Instances calls visit for each instance of a run: in the order of its list, but for those that were retried, which
// come at the end, with what became of them last.
func (r *Runs) Instances(ctx context.Context, run tasks.Run, visit func(tasks.RunInstance) error) error {
	for from := 0; from < run.Parts; from += partsAtOnce {
		numbers := upTo(from, min(from+partsAtOnce, run.Parts))
		parts, err := r.Parts(ctx, run.ID, from, partsAtOnce)
		if err != nil {
			return err
		}
		rows, err := r.rows(ctx, run, numbers[:len(parts)], parts)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if err := visit(row); err != nil {
				return err
			}
		}
	}
	return nil
}

// rows are the instances of some parts, but for those that were retried.
func (r *Runs) rows(ctx context.Context, run tasks.Run, numbers []int, parts []tasks.Part) (rows []tasks.RunInstance, err error) {
	ids := make([]string, len(parts))
	for i, number := range numbers {
		ids[i] = tasks.PartJobID(run.ID, number)
	}
	for i, read := range r.jobs.Records(ctx, ids) {
		if read.Err != nil && !errors.Is(read.Err, tasks.JobGone) {
			return nil, fmt.Errorf("read job %s of run %s: %w", ids[i], run.ID, read.Err)
		}
		for n, instance := range parts[i].InstanceIDs {
			row := rowOf(run, numbers[i], instance, n, read)
			row.Generation = parts[i].Generations[instance]
			if !run.Retried(numbers[i], row.Item) {
				rows = append(rows, row)
			}
		}
	}
	return rows, nil
}

// rowOf is the nth instance of a part.
func rowOf(run tasks.Run, part int, instance string, n int, read tasks.Read) tasks.RunInstance {
	row := tasks.RunInstance{Item: tasks.Item{InstanceID: instance, State: tasks.ItemPending}, Round: run.RoundOf(part)}
	switch {
	case read.Err == nil && n < len(read.Job.Items):
		row.JobID, row.Item = read.Job.ID, read.Job.Items[n]
	case !run.Made(part) && (run.Over() || part < run.FirstPart()):
		row.Item.State, row.Item.Code, row.Item.Message = tasks.ItemCancelled, tasks.Cancelled, whyOver(run)
	}
	return row
}

// whyOver is why an instance of a run was never in a job.
func whyOver(run tasks.Run) string {
	switch run.State {
	case tasks.RunRejected:
		return "the run was rejected"
	case tasks.RunExpired:
		return "nobody approved the run in time"
	}
	return cancelled
}

// keptAtOnce is how many jobs are told by one call how long they are kept.
const keptAtOnce = 500

// keepJobs has the records of a run's jobs expire after a while.
func (r *Runs) keepJobs(ctx context.Context, run tasks.Run, life time.Duration) error {
	for from := 0; from < run.Parts; from += keptAtOnce {
		pipe := r.redis.Pipeline()
		for part := from; part < min(from+keptAtOnce, run.Parts); part++ {
			if run.Made(part) {
				pipe.Expire(ctx, codec.JobKey(tasks.PartJobID(run.ID, part)), life)
			}
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("keep jobs of run: %w", err)
		}
	}
	return nil
}
