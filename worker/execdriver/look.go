package execdriver

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"batchreset/worker"
)

// looking is a Driver whose program can look. The worker looks before an attempt in doubt: what is
// not seen may still come, so a look alone never lets the program run again.
type looking struct{ *program }

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
