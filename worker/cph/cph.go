package cph

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"batchreset/worker"
)

// Driver resets phones of one project of Cloud Phone Host.
type Driver struct {
	cfg    Config
	client *client
	// pollInterval is the time between two questions about a call, and locked the least while we
	// are refused.
	pollInterval, locked time.Duration
}

// New returns a driver. It reads the files of the credentials. Errors begin with the name of the
// key that is wrong.
func New(cfg Config) (*Driver, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	reader := newReader()
	auth, err := cfg.credentials(reader)
	if err != nil {
		return nil, err
	}
	return &Driver{
		cfg: cfg, client: newClient(cfg, auth, reader),
		pollInterval: cfg.PollInterval, locked: time.Minute,
	}, nil
}

// Close closes idle connections.
func (d *Driver) Close() { d.client.close() }

// Check says whether the project can be reached with these credentials. It lists one phone, which
// needs the permission cph:phones:list; a reset needs cph:phones:reset, cph:phones:get,
// cph:jobs:get and ims:images:get.
func (d *Driver) Check(ctx context.Context) error {
	var list struct {
		RequestID string `json:"request_id"`
	}
	said, f := d.client.read(ctx, "phones?limit=1")
	switch {
	case f != nil:
	case !said.ok():
		f = refusal(said)
	case said.decode(&list) != nil || list.RequestID == "":
		f = misread("it is none of CPH")
	default:
		return nil
	}
	what := "endpoint " + d.cfg.Endpoint
	if off, ok := clockDifference(said); ok {
		what += fmt.Sprintf(": the clock of this machine differs by %s, and may by 15 minutes", off)
	}
	return errors.New(f.as(worker.Unreachable, what).Message)
}

// clockDifference is how far our clock is from an answer's, if that is worth a word: signatures
// are refused for it.
func clockDifference(said reply) (off time.Duration, ok bool) {
	date, err := http.ParseTime(said.Header.Get("Date"))
	if err != nil {
		return 0, false
	}
	off = said.At.Sub(date).Round(time.Second)
	return off, off.Abs() > 5*time.Minute
}

// Reset has CPH reset the phone and waits until it is known what came of it. With a checkpoint,
// or when an earlier call is in doubt, it only finds out about that call.
func (d *Driver) Reset(ctx context.Context, a worker.Attempt) error {
	id, err := phoneID(a)
	if err != nil {
		return &worker.DriverError{Verdict: worker.Permanent, Message: err.Error()}
	}
	m, err := readMark(a.Checkpoint, id)
	switch {
	case err != nil:
		return lost(err.Error())
	case m.JobID == "" && !a.Ambiguous: // what was saved was not sent
		return d.begin(ctx, a, id)
	case m.PhoneID != id:
		return lost(fmt.Sprintf("the earlier call was for phone %.64q, and the instance is now phone %s", m.PhoneID, id))
	}
	w := &watch{Driver: d, mark: m}
	return w.follow(ctx, 0)
}

// phoneID is the phone of an instance.
func phoneID(a worker.Attempt) (string, error) {
	id := cmp.Or(a.Address, a.InstanceID)
	if !plainID.MatchString(id) {
		return "", fmt.Errorf("%.80q is no phone ID of CPH: give the instance its phone ID as address", id)
	}
	return id, nil
}

// begin looks at the phone, resets it, and follows the call.
func (d *Driver) begin(ctx context.Context, a worker.Attempt, id string) error {
	m, e := d.before(ctx, a, id)
	if e != nil {
		return e
	}
	said, e := d.send(ctx, a, id)
	if e != nil && e.Verdict != worker.Unknown {
		return e
	}
	w := &watch{Driver: d, mark: m, doubt: e}
	if e == nil {
		request, job, f := accepted(said, id)
		if f != nil && f.class != doubtful {
			return f.as(f.class.verdict(), "CPH refuses to reset phone "+id)
		}
		if f != nil {
			w.doubt = f.as(worker.Unknown, "the reset was sent and its answer leaves it in doubt")
		}
		w.mark.RequestID, w.mark.JobID = request, job
	}
	if w.mark.JobID != "" {
		_ = w.mark.save(ctx, a) // without it a later attempt still has the phone to ask
	}
	return w.follow(ctx, d.interval())
}

// before looks at the phone before it is reset, and saves what it saw: if the call's answer gets
// lost, the difference says what came of it. It also finds a phone that does not exist, or that
// somebody else resets. Nothing has been sent when it returns an error.
func (d *Driver) before(ctx context.Context, a worker.Attempt, id string) (mark, *worker.DriverError) {
	p, f := d.client.phone(ctx, id)
	switch {
	case ctx.Err() != nil:
		return mark{}, notSent(worker.NotSent, ctx.Err())
	case f != nil:
		return mark{}, f.unsent()
	case mark{}.judge(p, undecided, false) == pending:
		return mark{}, notSent(worker.Busy, errors.New(p.String()))
	}
	m := mark{PhoneID: id, Status: p.Status, Updated: worker.Printable(p.Updated, maxCode)}
	if err := m.save(ctx, a); err != nil {
		return mark{}, notSent(worker.NotSent, fmt.Errorf("the checkpoint was not saved: %w", err))
	}
	return m, nil
}

// lost is a call of which nobody can find out any more what came of it.
func lost(message string) error {
	return &worker.DriverError{Verdict: worker.Unknown, Message: message}
}
