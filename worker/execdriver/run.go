package execdriver

import (
	"bytes"
	"context"
	"errors"
	"math"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"batchreset/worker"
)

// inputDelay is how long somebody who has left the program's process group may hold up the end of
// its standard input, once the program has ended.
const inputDelay = time.Second

// times are how long a program may take to end once it was told to.
type times struct {
	// deadline is for one whose time is nearly over: it is told that much earlier, or after three
	// quarters of its time if that is later, so that the attempt ends in time.
	deadline time.Duration
	// stop is for one whose attempt is stopped. It is shorter than the time that the worker
	// leaves a driver to return.
	stop time.Duration
}

var usualTimes = times{deadline: 10 * time.Second, stop: 3 * time.Second}

// soft is when a program that still runs is told to end; zero: when ctx ends.
func (t times) soft(ctx context.Context) time.Time {
	deadline, limited := ctx.Deadline()
	if !limited {
		return time.Time{}
	}
	return deadline.Add(-min(t.deadline, time.Until(deadline)/4))
}

// run runs the program once. It is started directly after allow has said so. An error is a
// [*worker.DriverError] and says that it was not started. When run returns, the program and what
// it has left in its process group have ended.
func (p *program) run(ctx context.Context, a worker.Attempt, mode string, allow func() error, l *listener) (ending, error) {
	soft := p.times.soft(ctx)
	input, err := encode(a, mode, soft)
	if err != nil {
		return ending{}, notStarted(worker.Permanent, err)
	}
	cmd := p.command(input)
	out, outErr := newOutput(&cmd.Stdout)
	defer out.close()
	log, logErr := newOutput(&cmd.Stderr)
	defer log.close()
	if err := errors.Join(outErr, logErr); err != nil {
		return ending{}, notStarted(worker.Unreachable, err)
	}
	if err := p.spawner.start(ctx, cmd, allow); err != nil {
		return ending{}, err
	}
	return p.follow(ctx, a, cmd, soft, l, out, log), nil
}

// command is the program, to be told input.
func (p *program) command(input []byte) *exec.Cmd {
	cmd := exec.Command(p.path, p.cfg.Command[1:]...) //nolint:noctx // supervise stops it with all of its group, and not at once
	cmd.Env, cmd.SysProcAttr, cmd.WaitDelay = p.env, attributes(), inputDelay
	cmd.Stdin = bytes.NewReader(input)
	return cmd
}

// follow sees a program that was started to its end.
func (p *program) follow(ctx context.Context, a worker.Attempt, cmd *exec.Cmd, soft time.Time, l *listener, out, log *output) ending {
	out.started()
	log.started()
	var tail string
	var readers sync.WaitGroup
	readers.Go(func() { l.listen(out) })
	readers.Go(func() { tail = lastBytes(log, maxLog) })
	ended, reap := watch(cmd)
	stopped := p.times.supervise(ctx, cmd.Process.Pid, soft, ended)
	// Nothing may go on at a phone whose attempt is over.
	signal(-cmd.Process.Pid, syscall.SIGKILL)
	out.end()
	log.end()
	readers.Wait()
	end := ending{said: l.said, state: reap(), stopped: stopped}
	p.tell(a, end, tail)
	return end
}

// supervise waits until a program has ended. It stops it, with all of its process group, when its
// time is over or ctx ends, and says why it did: first kindly, so that it can say how far it came.
func (t times) supervise(ctx context.Context, pid int, soft time.Time, ended <-chan struct{}) (stopped string) {
	var late <-chan time.Time
	if !soft.IsZero() {
		late = time.After(time.Until(soft))
	}
	var obeys bool
	select {
	case <-ended:
		return ""
	case <-late:
		signal(-pid, syscall.SIGTERM)
		stopped, obeys = "its time was over", wait(ended, ctx.Done())
	case <-ctx.Done():
		signal(-pid, syscall.SIGTERM)
		stopped, obeys = "it was told to stop", wait(ended, time.After(t.stop))
	}
	if !obeys {
		signal(-pid, syscall.SIGKILL)
		signal(pid, syscall.SIGKILL) // it may have left its group
		<-ended
	}
	return stopped
}

// wait says whether a program has ended before something else happens.
func wait[T any](ended <-chan struct{}, limit <-chan T) bool {
	select {
	case <-ended:
		return true
	case <-limit:
		return false
	}
}

// tell passes on what is for people.
func (p *program) tell(a worker.Attempt, end ending, tail string) {
	if text := worker.Printable(tail, math.MaxInt); text != "" {
		p.log(a, strings.ToValidUTF8(text[max(0, len(text)-maxLog):], ""))
	}
	if end.answer != nil && end.answer.Result != nil && end.answer.Evidence != "" {
		p.log(a, "evidence: "+end.answer.evidence())
	}
}

// ending is how a run of a program ended.
type ending struct {
	said

	state   *os.ProcessState
	stopped string // why it was told to stop, or empty
}

// byItself says whether the program exited, and no signal ended it.
func (e ending) byItself() bool { return e.state.Exited() }

func (e ending) code() int { return e.state.ExitCode() }

// how says how the program ended, for people.
func (e ending) how() string {
	how := "it ended with " + e.state.String() // "exit status 3" or "signal: killed"
	if e.stopped != "" {
		how = e.stopped + ", and " + how
	}
	if e.progress != "" {
		how += "; its last progress was " + quoted(e.progress)
	}
	return how
}
