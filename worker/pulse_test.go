package worker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/cmd/harness/faketime"
)

func TestPulseNoticesAStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPulse()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			p.run(ctx)
			close(ended)
		}()
		before := p.beat()
		faketime.Pass(time.Hour) // a process that runs
		if p.beat() != before {
			t.Error("a stall where there was none")
		}
		stop()
		<-ended // from here on nothing beats, as if it was frozen
		faketime.Pass(frozenAfter)
		if p.beat() != before {
			t.Error("a stall that is too short to matter")
		}
		faketime.Pass(frozenAfter + time.Second)
		if first, second := p.beat(), p.beat(); first != before+1 || second != first {
			t.Errorf("%d and %d stalls, want %d", first, second, before+1)
		}
	})
}
