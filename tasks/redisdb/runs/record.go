package runs

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"batchreset/tasks"
	"batchreset/tasks/redisdb/codec"
)

// encodeHeader is what a record has from the beginning, fields and values by turns.
func encodeHeader(s tasks.RunSubmission, now time.Time, list string, opts Options) ([]any, error) {
	labels, err := codec.EncodeLabels(s.Labels)
	if err != nil {
		return nil, err
	}
	state := tasks.RunRunning
	notBefore := ""
	if !s.NotBefore.IsZero() {
		state, notBefore = tasks.RunWaiting, strconv.FormatInt(s.NotBefore.UnixMilli(), 10)
	}
	o := s.Options
	var approval []any
	if s.Approval.Approvers > 0 {
		state = tasks.RunWaiting
		approval = []any{"approvers", s.Approval.Approvers, "approval_until", now.Add(s.Approval.Expiry).UnixMilli()}
		run := tasks.Run{State: state, Round: 1, Approval: &tasks.Approval{Approvers: s.Approval.Approvers}}
		approval = append(approval, eventField+"1", encodeEvent(run.Event(tasks.TopicRunWaiting, now)))
	}
	return append(approval,
		"v", version, "state", string(state), "tenant", s.Tenant, "created", now.UnixMilli(), "name", s.Name, "reason", s.Reason,
		"labels", labels, "request_id", s.RequestID, "by", codec.By(s.By, s.From), "trace", s.Traceparent, "open", codec.Flag(s.AllowUnregistered),
		"total", len(s.InstanceIDs), "repeats", s.Repeats, "list", list, "keep", int64(opts.Retention.Seconds()), "give_up", opts.GiveUpAfter.Milliseconds(), "not_before", notBefore,
		"keep_tasks", int64(opts.TaskRetention.Seconds()),
		"max_parallel", o.MaxParallel, "canary", o.Canary, "soak", time.Duration(o.Soak).Milliseconds(),
		"growth", strconv.FormatFloat(o.Growth, 'g', -1, 64), "max_failures", o.MaxFailures.String(), "principal", s.Principal,
	), nil
}

// decode reads a record. Errors: tasks.RunGone for an empty one, else a *codec.Damage.
func decode(id string, hash map[string]string) (tasks.Run, error) {
	if len(hash) == 0 {
		return tasks.Run{}, tasks.RunGone
	}
	if v := hash["v"]; v != version {
		return tasks.Run{}, &codec.Damage{Err: fmt.Errorf("run %s has record version %q, this program reads %s", id, v, version)}
	}
	d := decoder{hash: hash}
	run := tasks.Run{
		ID: id, Name: hash["name"], State: tasks.RunState(hash["state"]), RequestID: hash["request_id"], Tenant: hash["tenant"],
		CreatedAt: d.time("created"), StartedAt: d.time("started"), FinishedAt: d.time("finished"), NotBefore: d.time("not_before"),
		Total: d.number("total"), Repeats: d.number("repeats"), ListSHA256: hash["list"], Reason: hash["reason"],
		Fingerprint: hash["fp"], AllowUnregistered: hash["open"] == "1", Traceparent: hash["trace"], Revision: int64(d.number("rev")),
		Cancelled: hash["cancel"] == "1", Parts: d.number("parts"), Next: d.number("next"), Wave: d.number("wave"),
		CanaryPassed: hash["canary_passed"] == "1", SoakUntil: d.time("soak_until"), Principal: hash["principal"], RoundAt: d.time("round_at"),
		Closed:    d.counts(""),
		Before:    d.counts("before_"),
		Retention: time.Duration(d.number("keep")) * time.Second, GiveUpAfter: time.Duration(d.number("give_up")) * time.Millisecond,
		TaskRetention: time.Duration(d.number("keep_tasks")) * time.Second, WaveAt: d.time("wave_at"),
		Open: map[int]int{}, Codes: map[tasks.Code]int{},
	}
	run.From, run.By, _ = strings.Cut(hash["by"], " ")
	run.Held = heldOf(hash["held"])
	run.RunOptions = tasks.RunOptions{
		MaxParallel: d.number("max_parallel"), Canary: d.number("canary"), Soak: tasks.Duration(time.Duration(d.number("soak")) * time.Millisecond),
	}
	var err error
	if run.Growth, err = strconv.ParseFloat(hash["growth"], 64); err != nil {
		d.fail("growth", err)
	}
	if run.MaxFailures, err = tasks.ParseBudget(hash["max_failures"]); err != nil {
		d.fail("max_failures", err)
	}
	if run.Retries, err = tasks.ParseRunRetries(hash["retries"]); err != nil {
		d.fail("retries", err)
	}
	run.Round = 1 + len(run.Retries)
	run.Approval = d.approval()
	if run.Labels, err = codec.Labels(hash["labels"]); err != nil {
		d.fail("labels", err)
	}
	run.Untold = d.events()
	for field := range hash {
		if part, open := strings.CutPrefix(field, "o:"); open {
			n, err := strconv.Atoi(part)
			if err != nil {
				d.fail(field, err)
			}
			run.Open[n] = d.number(field)
		} else if code, failed := strings.CutPrefix(field, "c:"); failed {
			run.Codes[tasks.Code(code)] = d.number(field)
		}
	}
	if d.err != nil {
		return tasks.Run{}, &codec.Damage{Err: fmt.Errorf("run %s: %w", id, d.err)}
	}
	return run, nil
}

// heldOf reads what Runs.held writes; "" is nothing.
func heldOf(text string) tasks.Held {
	since, reason, _ := strings.Cut(text, " ")
	return tasks.Held{Reason: reason, Since: codec.Millis(since)}
}

// decoder reads fields of a record and keeps the first error.
type decoder struct {
	hash map[string]string
	err  error
}

func (d *decoder) fail(field string, err error) {
	if d.err == nil {
		d.err = fmt.Errorf("%s: %w", field, err)
	}
}

// number is 0 if the field is not there.
func (d *decoder) number(field string) int {
	if d.hash[field] == "" {
		return 0
	}
	n, err := strconv.Atoi(d.hash[field])
	if err != nil {
		d.fail(field, err)
	}
	return n
}

func (d *decoder) counts(prefix string) tasks.Counts {
	return tasks.Counts{
		Succeeded: d.number(prefix + "succeeded"), Failed: d.number(prefix + "failed"),
		Unknown: d.number(prefix + "unknown"), Cancelled: d.number(prefix + "cancelled"),
	}
}

// approval is nil if the run needs none.
func (d *decoder) approval() *tasks.Approval {
	a := &tasks.Approval{Approvers: d.number("approvers"), ExpiresAt: d.time("approval_until"), Decisions: []tasks.RunDecision{}}
	if a.Approvers == 0 {
		return nil
	}
	for field, value := range d.hash {
		principal, decided := strings.CutPrefix(field, "d:")
		if !decided {
			continue
		}
		at, rest, _ := strings.Cut(value, " ")
		decision, comment, ok := strings.Cut(rest, " ")
		if !ok {
			d.fail(field, fmt.Errorf("%.80q is not a decision", value))
		}
		a.Decisions = append(a.Decisions, tasks.RunDecision{Principal: principal, Decision: tasks.Decision(decision), Comment: comment, At: codec.Millis(at)})
	}
	slices.SortFunc(a.Decisions, func(x, y tasks.RunDecision) int {
		return cmp.Or(x.At.Compare(y.At.Time), strings.Compare(x.Principal, y.Principal))
	})
	return a
}

func (d *decoder) time(field string) tasks.Time { return tasks.FromMillis(int64(d.number(field))) }
