package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"batchreset/api/client"
	"batchreset/tasks"
)

func newSubmitCommand(std *streams) *cobra.Command {
	var (
		flags    callerFlags
		file     string
		chunk    int
		parallel int
		wait     bool
		dryRun   bool
		batch    client.Batch // without its instances
		options  batchOptions
	)
	cmd := &cobra.Command{
		Use:   "submit [ID…]",
		Short: "Reset instances, which destroys the data on them",
		Long: `Asks the service to reset instances, named as arguments or in a file with one ID
per line; blank lines and what follows a # are skipped. An ID that is named twice is
reset once. All IDs are checked before anything is sent.

One request takes up to --chunk instances, so a long list becomes several jobs. The
job IDs are printed to standard output, one per line, as soon as they are known;
everything else goes to standard error.

A request whose answer is lost is sent again, under the same idempotency key, and
becomes one job. With --idempotency-key the same is true of the whole command: run
again with the same key and the same IDs, it finds the jobs that it has made.

If a request fails, its instances are listed. Those "not accepted" or "not sent" can
be submitted again. For those that "may have been accepted" ask 'batchreset jobs
--instance ID' first: a second job would wipe the phone a second time.

With --dry-run nothing is reset: each instance is listed with would_reset, unknown
(not registered), foreign (another tenant's), protected, or busy (it would wait for the
reset that is under way). Exit code 0 then means that none would be refused, 2 that
some would.

` + exitCodes + `
Without --wait, 0 means that every instance was accepted.`,
		Example: `  batchreset submit phone-1 phone-2
  batchreset submit --file phones.txt --wait
  batchreset submit --file phones.txt --dry-run
  batchreset submit --file phones.txt --not-before 10m --reason 'recall 7' --label site=lab
  grep ^lab- phones.txt | batchreset submit --file - | xargs batchreset watch`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if chunk < 1 || chunk > tasks.MaxMaxInstances {
				return fmt.Errorf("--chunk must be from 1 to %d, not %d", tasks.MaxMaxInstances, chunk)
			}
			if parallel < 1 || parallel > maxParallel {
				return fmt.Errorf("--parallel must be from 1 to %d, not %d", maxParallel, parallel)
			}
			if batch.MaxFailures < 0 {
				return fmt.Errorf("--max-failures must not be negative")
			}
			if err := options.read(&batch, time.Now()); err != nil {
				return err
			}
			if dryRun && wait {
				return errors.New("--dry-run and --wait do not go together: a dry run has no job")
			}
			if file == "" && cmd.Flags().Changed("file") {
				return errors.New("--file is empty")
			}
			instances, repeats, err := readInstances(args, file, std.in)
			if err != nil {
				return err
			}
			notices := &notices{w: std.err}
			c, err := flags.connect(notices)
			if err != nil {
				return err
			}
			defer c.Close()
			if repeats > 0 {
				fmt.Fprintf(notices, "%s folded: each instance is reset once\n", plural(repeats, "repeated ID"))
			}

			if dryRun {
				return tryOut(cmd.Context(), std.out, c, batches(batch, instances, chunk), flags.output.json())
			}
			s := submission{text: !flags.output.json(), total: len(instances), out: std.out, notices: notices}
			s.send(cmd.Context(), c, batches(batch, instances, chunk), parallel)
			return s.finish(cmd.Context(), c, wait)
		},
	}
	flags.define(cmd.Flags())
	cmd.Flags().StringVar(&file, "file", "", "`file` with one instance ID per line; - is standard input")
	cmd.Flags().IntVar(&chunk, "chunk", tasks.DefaultMaxInstances, "instances per request; the server's own limit is 32 unless it was raised")
	cmd.Flags().IntVar(&parallel, "parallel", 4, "requests under way at a time")
	cmd.Flags().IntVar(&batch.MaxFailures, "max-failures", 0, "stop the rest of a job once so many of its instances failed; 0 = never")
	cmd.Flags().StringVar(&batch.IdempotencyKey, "idempotency-key", "", "`key` that makes this command safe to repeat (default: a new one)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would become of each instance")
	options.define(cmd.Flags())
	cmd.Flags().BoolVar(&wait, "wait", false, "follow the jobs to their end")
	return cmd
}

// batches cuts the instances into requests. Each has its own idempotency key, which
// is the same whenever the command is given the same key and the same instances.
func batches(all client.Batch, instances []string, chunk int) []client.Batch {
	var list []client.Batch
	for ids := range slices.Chunk(instances, chunk) {
		b := all
		b.InstanceIDs, b.MaxFailures = ids, min(all.MaxFailures, len(ids))
		if all.IdempotencyKey != "" {
			b.IdempotencyKey = fmt.Sprintf("%s-%d", all.IdempotencyKey, len(list))
		}
		list = append(list, b)
	}
	return list
}

const (
	maxParallel = 32
	// interruptGrace is how long requests that are under way may take for their
	// answer after Ctrl-C: only the answer says whether a batch was accepted.
	interruptGrace = 5 * time.Second
)

// submission is one run of submit.
type submission struct {
	text    bool // not JSON
	total   int  // instances to submit
	out     io.Writer
	notices *notices

	mu       sync.Mutex
	jobs     []client.Job // as accepted, with their items' names only
	failed   []failedBatch
	notSent  []string
	printing error // of job IDs
}

// failedBatch is a request that brought no job.
type failedBatch struct {
	InstanceIDs   []string `json:"instance_ids"`
	MayBeAccepted bool     `json:"may_be_accepted"`
	failure
}

// send submits the batches, some at a time, until an error that is not about one
// batch alone, or until ctx ends.
func (s *submission) send(ctx context.Context, c *client.Client, batches []client.Batch, parallel int) {
	more, stop := context.WithCancel(ctx)
	defer stop()
	sending, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(interruptGrace, abandon) })()

	var requests errgroup.Group
	requests.SetLimit(parallel)
	for _, batch := range batches {
		requests.Go(func() error {
			if more.Err() != nil {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.notSent = append(s.notSent, batch.InstanceIDs...)
				return nil
			}
			accepted, err := c.Submit(sending, batch)
			if err != nil && !onlyThisBatch(err) {
				stop()
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if err != nil {
				s.failed = append(s.failed, failedBatch{batch.InstanceIDs, errors.Is(err, client.ErrUncertain), newFailure(err)})
				return nil
			}
			s.accept(accepted)
			return nil
		})
	}
	_ = requests.Wait() // errors are in failed
}

// onlyThisBatch reports whether other batches may fare better: the server found
// fault with the instances. After anything else they would meet the same error,
// or leave one more batch of which nobody knows whether it was accepted.
func onlyThisBatch(err error) bool {
	e, answered := errors.AsType[*client.Error](err)
	return answered && (e.HTTPStatus == http.StatusBadRequest || e.Code == string(tasks.Protected))
}

// accept notes an accepted batch, and prints its job ID at once: whatever
// happens next, the caller has it.
func (s *submission) accept(a client.Accepted) {
	record, err := json.Marshal(a)
	s.jobs = append(s.jobs, client.Job{
		ID: a.JobID, Total: len(a.Items), Counts: client.Counts{Pending: len(a.Items)}, Record: record,
	})
	if err == nil && s.text {
		_, err = fmt.Fprintln(s.out, client.Printable(a.JobID))
	}
	s.printing = errors.Join(s.printing, err)
}

// finish reports what was accepted and what was not, follows the jobs if asked
// to, and returns the error that gives the exit code.
func (s *submission) finish(ctx context.Context, c *client.Client, wait bool) error {
	if s.text {
		s.report(wait)
	}
	f := following{jobs: s.jobs, errors: []jobError{}}
	if wait && len(s.jobs) > 0 {
		f = follow(ctx, c, s.notices, s.jobs, false)
	}
	var err error
	switch {
	case !s.text:
		err = writeJSON(s.out, map[string]any{
			"jobs": records(f.jobs), "failed": notNil(s.failed), "not_sent": notNil(s.notSent), "errors": f.errors,
		})
	case wait && len(s.jobs) > 0:
		err = writeSummary(s.notices, f.jobs)
	}
	if err = errors.Join(s.printing, err, s.verdict(ctx)); err != nil || !wait {
		return err
	}
	return f.verdict()
}

// report tells people what to do next.
func (s *submission) report(wait bool) {
	for _, f := range s.failed {
		what := "not accepted"
		if f.MayBeAccepted {
			what = "may have been accepted"
		}
		fmt.Fprintf(s.notices, "%s: %s\n  %s\n", what, f.Message, strings.Join(f.InstanceIDs, " "))
	}
	if s.notSent != nil {
		fmt.Fprintf(s.notices, "not sent:\n  %s\n", strings.Join(s.notSent, " "))
	}
	if len(s.jobs) > 0 && !wait {
		total, _ := sum(s.jobs)
		fmt.Fprintf(s.notices, "%s accepted in %s; 'batchreset watch JOB…' follows them\n", plural(total, "instance"), plural(len(s.jobs), "job"))
	}
}

// verdict is an error unless every instance was accepted.
func (s *submission) verdict(ctx context.Context) error {
	missing := len(s.notSent)
	for _, f := range s.failed {
		missing += len(f.InstanceIDs)
	}
	switch {
	case missing == 0:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted; %d of %s not accepted, or not for certain", missing, plural(s.total, "instance"))
	default:
		return fmt.Errorf("%d of %s not accepted, or not for certain", missing, plural(s.total, "instance"))
	}
}

// notNil makes an empty list of none, for JSON.
func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
