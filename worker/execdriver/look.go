package execdriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"batchreset/worker"
)

// looking is a Driver whose program can look.
type looking struct{ *program }

// Repeatable is true: an attempt that follows one in doubt begins with a look.
func (l *looking) Repeatable() bool { return true }

// Reset looks before it does anything else if an earlier run is in doubt and left nothing to
// resume from.
func (l *looking) Reset(ctx context.Context, a worker.Attempt) error {
	if !a.Ambiguous || a.Checkpoint != "" {
		return l.reset(ctx, a)
	}
	sight, err := l.Look(ctx, a)
	switch {
	case err == nil && sight.State == worker.Initial:
		return nil
	case err == nil && sight.State == worker.NotInitial:
		return l.again(ctx, a)
	case l.cfg.Repeatable:
		return l.reset(ctx, a)
	case err != nil:
		return doubtful(err.Error())
	}
	return doubtful("a look did not show what came of it: " + sight.Evidence)
}

// again resets a phone that an earlier run has certainly not reset: nothing is in doubt but what
// this run does.
func (l *looking) again(ctx context.Context, a worker.Attempt) error {
	a.Ambiguous = false
	err := l.reset(ctx, a)
	if e, ok := errors.AsType[*worker.DriverError](err); ok && definite(e.Verdict) {
		e.EndsDoubt = true
	}
	return err
}

// doubtful leaves a phone in doubt. The next attempt does no harm: it looks again.
func doubtful(message string) error {
	return &worker.DriverError{Verdict: worker.Unknown, Repeatable: true, Message: "an earlier run may have reset the phone; " + message}
}

// Look runs the program in the mode that changes nothing.
func (l *looking) Look(ctx context.Context, a worker.Attempt) (worker.Sight, error) {
	end, err := l.run(ctx, a, modeLook, ctx.Err, &listener{looks: true})
	if err != nil {
		return worker.Sight{}, err
	}
	return seen(end)
}

// seen is what a program says that it saw.
func seen(end ending) (worker.Sight, error) {
	said := end.answer
	switch {
	case end.trouble != "":
		return worker.Sight{}, errors.New("what the program saw was not understood: " + end.trouble)
	case said == nil || !end.byItself() || said.Initial != nil && end.code() != 0:
		return worker.Sight{}, errors.New("the program did not say what it saw: " + end.how())
	case said.Initial != nil && *said.Initial:
		return worker.Sight{State: worker.Initial, Evidence: said.evidence()}, nil
	case said.Initial != nil:
		return worker.Sight{State: worker.NotInitial, Evidence: said.evidence()}, nil
	case *said.Result == resultUnknown:
		return worker.Sight{State: worker.Unclear, Evidence: cmp.Or(said.evidence(), worker.Printable(said.Message, worker.MaxEvidence))}, nil
	}
	return worker.Sight{}, fmt.Errorf("the program could not look: %s", said.text())
}
