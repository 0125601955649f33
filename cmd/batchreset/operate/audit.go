package operate

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// sayWhatIsMissing prints an entry that could not be written to the audit trail, although
// what it is about is done.
func sayWhatIsMissing(w io.Writer) func(tasks.AuditEntry, error) {
	return func(e tasks.AuditEntry, missing error) {
		if missing == nil {
			return
		}
		e.At = e.DecidedAt
		fmt.Fprintf(w, "batchreset: the audit trail could not be written, this entry is nowhere but here:\n%s\n(%v)\n", auditLine(e), missing)
	}
}

func newAuditCommand(std *terminal.Streams) *cobra.Command {
	var (
		op           operation
		filter       tasks.AuditFilter
		since, until string
		action       string
	)
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show who decided what",
		Long: `Shows the audit trail, oldest first: every submit, cancel and retry, every change of the
fleet, of tokens, of operators, of halts and limits, every change on the asynq dashboard, and
who logged in to the operators' site or tried to, with who asked for it and from where. An entry is written before what it is about is done, so
nothing is done without one; what came of it is in the job's record. Refused requests are
in the log of the api.

What stops or removes something is done even while the trail cannot be written, because
Redis is full for example. Its entry is in the log then; api and worker write it when there
is room, with the time at which it was decided. A command prints it.

--output json has all entries in one object; for a long trail take jsonl, an entry on each
line.`,
		Example: `  batchreset audit --since 24h
  batchreset audit --since 720h --instance phone-1
  batchreset audit --since 2026-01-02T15:00:00Z --until 2026-01-02T16:00:00Z --output jsonl`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter.Action = tasks.Action(action)
			readTimes := func(now time.Time) (err error) {
				if filter.Since.Time, err = terminal.PastTime("since", since, now); err != nil {
					return err
				}
				if filter.Until.Time, err = terminal.PastTime("until", until, now); err != nil {
					return err
				}
				return checkAuditFilter(filter)
			}
			if err := readTimes(time.Now()); err != nil { // before anything else goes wrong
				return err
			}
			return op.run(cmd, func(db *redisdb.DB) error {
				if err := readTimes(db.Redis.Now()); err != nil {
					return err
				}
				return op.output.Show(std.Out, terminal.View{
					List: "entries", Columns: auditColumns,
					Rows: func(add func(any) error) error {
						return db.Audit.Trail(cmd.Context(), filter, func(e tasks.AuditEntry) error { return add(e) })
					},
					Text: func(w io.Writer) error {
						return db.Audit.Trail(cmd.Context(), filter, func(e tasks.AuditEntry) error {
							_, err := fmt.Fprintln(w, auditLine(e))
							return err
						})
					},
				})
			})
		},
	}
	op.define(cmd)
	cmd.Flags().StringVar(&since, "since", "24h", "from this time on: a time such as 2026-01-02T15:04:05Z, or how long ago; '' = from the start")
	terminal.MayBeEmpty(cmd.Flags(), "since")
	cmd.Flags().StringVar(&until, "until", "", "up to this time, likewise")
	cmd.Flags().StringVar(&action, "action", "", "only this action: "+actionNames())
	cmd.Flags().StringVar(&filter.Tenant, "tenant", "", "only what is about this tenant")
	cmd.Flags().StringVar(&filter.Job, "job", "", "only what is about this job")
	cmd.Flags().StringVar(&filter.Run, "run", "", "only what is about this run")
	cmd.Flags().StringVar(&filter.InstanceID, "instance", "", "only what is about this instance")
	return cmd
}

var auditColumns = []string{
	"at", "decided_at", "by", "from", "action", "tenant", "job_id", "run_id", "request_id", "instance_ids", "list_sha256", "reason", "detail",
}

func actionNames() string {
	names := make([]string, len(tasks.Actions))
	for i, a := range tasks.Actions {
		names[i] = string(a)
	}
	return strings.Join(names, ", ")
}

func checkAuditFilter(f tasks.AuditFilter) error {
	if err := tasks.CheckTimes(f.Since.Time, f.Until.Time); err != nil {
		return errors.New("--since is after --until")
	}
	if f.Action != "" && !slices.Contains(tasks.Actions, f.Action) {
		return fmt.Errorf("--action must be one of %s, not %q", actionNames(), f.Action)
	}
	if f.Tenant != "" {
		if err := tasks.CheckTenant(f.Tenant); err != nil {
			return fmt.Errorf("--tenant: %w", err)
		}
	}
	if f.Job != "" && !tasks.ValidJobID(f.Job) {
		return fmt.Errorf("--job: %.80q is not a job ID", f.Job)
	}
	if f.Run != "" && !tasks.ValidJobID(f.Run) {
		return fmt.Errorf("--run: %.80q is not a run ID", f.Run)
	}
	if f.InstanceID != "" {
		if err := tasks.CheckInstanceID(f.InstanceID); err != nil {
			return fmt.Errorf("--instance %w", err)
		}
	}
	return nil
}

// someOf names the first few of n.
func someOf(ids []string, n int, what string) string {
	if n <= 3 {
		return strings.Join(ids, " ")
	}
	return fmt.Sprintf("%d %s: %s …", n, what, strings.Join(ids[:min(3, len(ids))], " "))
}

// auditLine is an entry for people.
func auditLine(e tasks.AuditEntry) string {
	parts := []string{terminal.Clock(e.At.Time), e.Who()}
	if e.From != "" {
		parts = append(parts, "from "+e.From)
	}
	if !e.DecidedAt.IsZero() {
		parts = append(parts, "decided "+terminal.Clock(e.DecidedAt.Time))
	}
	parts = append(parts, string(e.Action))
	if e.Tenant != "" {
		parts = append(parts, "tenant "+e.Tenant)
	}
	if e.Job != "" {
		parts = append(parts, "job "+e.Job)
	}
	if e.Run != "" {
		parts = append(parts, "run "+e.Run)
	}
	if n := len(e.InstanceIDs); n > 0 {
		parts = append(parts, someOf(e.InstanceIDs, n, "instances"))
	}
	if e.Detail != "" {
		parts = append(parts, e.Detail)
	}
	if e.Tasks > 0 {
		parts = append(parts, someOf(e.TaskIDs, e.Tasks, "tasks"))
	}
	if e.Reason != "" {
		parts = append(parts, strconv.Quote(e.Reason))
	}
	return tasks.Visible(strings.Join(parts, "  "))
}
