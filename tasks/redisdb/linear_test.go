package redisdb_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// life is all that the scripts know of the only item of a job, in plain Go.
type life struct {
	state     tasks.ItemState
	attempts  int
	delivery  int
	token     string // of the running attempt
	lock      string // whose the instance is
	key       string // while a call is in doubt, or an attempt runs
	unsure    bool   // an earlier call was in doubt when the attempt began
	sent      bool   // the attempt has asked to send
	retried   bool   // while a call was in doubt
	stopped   bool
	cancelled bool   // by an operator
	given     string // tokens that were given up, each with a space behind it
}

// deed is what somebody asks of the record.
type deed struct {
	what     string
	token    string
	delivery int
	outcome  tasks.Outcome
	unlock   bool
	states   []tasks.ItemState
}

// answer is what the record said; the zero answer with lost says that nobody heard it.
type answer struct {
	refusal  tasks.Refusal
	state    tasks.ItemState
	attempts int
	delivery int
	key      string
	unsure   bool
	lost     bool
}

// alive reports whether the worker of a token is: those of the test's dead workers are short.
func alive(token string) bool { return strings.HasPrefix(token, aliveWorker) }

const aliveWorker = "worker01"

// do is the sequential specification: what the record says, and what becomes of it.
func (l life) do(d deed) (answer, life) {
	switch d.what {
	case "begin":
		return l.begin(d)
	case "send":
		switch {
		case l.state != tasks.ItemRunning || l.token != d.token:
			return answer{refusal: tasks.WrongToken}, l
		case l.stopped:
			return answer{refusal: tasks.JobStopped}, l
		case l.lock != d.token:
			return answer{refusal: tasks.InstanceBusy}, l
		}
		l.sent = true
		return answer{}, l
	case "finish":
		if d.unlock && l.lock == d.token {
			l.lock = ""
		}
		if l.state != tasks.ItemRunning || l.token != d.token {
			return answer{refusal: tasks.WrongToken}, l
		}
		l = l.finish(d.outcome, d.outcome.InDoubt)
		return answer{state: l.state}, l
	case "give up":
		if l.state != tasks.ItemRunning || l.token != d.token {
			if !l.state.Final() && l.delivery == d.delivery {
				l.given += d.token + " "
				if strings.Count(l.given, " ") > 8 {
					_, l.given, _ = strings.Cut(l.given, " ")
				}
			}
			return answer{refusal: tasks.WrongToken}, l
		}
		if !l.unsure && l.lock == d.token {
			l.lock = ""
		}
		l = l.finish(tasks.Outcome{Transition: tasks.Retry}, l.unsure)
		return answer{state: l.state}, l
	case "deliver":
		switch {
		case l.state.Final():
			return answer{refusal: tasks.AlreadyFinal}, l
		case l.delivery != d.delivery:
			return answer{refusal: tasks.OldDelivery}, l
		case l.state == tasks.ItemRunning && alive(l.token):
			return answer{refusal: tasks.AttemptAlive}, l
		}
		if l.state == tasks.ItemRunning {
			l = l.lose()
			l.state, l.token, l.sent, l.unsure = tasks.ItemRetrying, "", false, false
		}
		l.delivery++
		l.given = ""
		return answer{}, l
	case "cancel":
		if l.state.Final() {
			return answer{refusal: nothingDone}, l
		}
		if l.cancelled {
			return answer{}, l
		}
		l.stopped, l.cancelled = true, true
		if l.state != tasks.ItemRunning {
			l.state, l.given = tasks.ItemCancelled, ""
			if l.key != "" || l.retried {
				l.state = tasks.ItemUnknown
			}
		}
		return answer{}, l
	case "retry":
		if !l.state.Final() || !slices.Contains(d.states, l.state) {
			return answer{refusal: nothingDone}, l
		}
		l = life{
			state: tasks.ItemPending, attempts: l.attempts, delivery: l.delivery + 1, lock: l.lock,
			retried: l.key != "" || l.retried,
		}
		return answer{}, l
	default:
		return answer{state: l.state, attempts: l.attempts, delivery: l.delivery}, l
	}
}

// nothingDone stands for the error of a cancel or retry that had nothing to do.
const nothingDone tasks.Refusal = "there was nothing to do"

func (l life) begin(d deed) (answer, life) {
	begun := func() answer { return answer{attempts: l.attempts, key: l.key, unsure: l.unsure} }
	switch {
	case l.state.Final():
		return answer{refusal: tasks.AlreadyFinal}, l
	case l.delivery != d.delivery:
		return answer{refusal: tasks.OldDelivery}, l
	case strings.Contains(l.given, d.token+" "):
		return answer{refusal: tasks.WrongToken}, l
	case l.state == tasks.ItemRunning && l.token == d.token:
		l.lock = d.token
		return begun(), l
	case l.state == tasks.ItemRunning && alive(l.token):
		return answer{refusal: tasks.AttemptAlive}, l
	case l.stopped:
		return answer{refusal: tasks.JobStopped}, l
	case l.retried && l.lock != "":
		return answer{refusal: tasks.TooEarly}, l
	case l.state != tasks.ItemRunning && l.key == "" && l.lock != d.token && alive(l.lock):
		return answer{refusal: tasks.AttemptAlive}, l // an attempt of which the record knows nothing
	}
	if l.state == tasks.ItemRunning {
		l = l.lose()
	}
	l.unsure = l.key != ""
	if !l.unsure {
		l.key = "key-of-" + d.token
	}
	l.attempts++
	l.state, l.token, l.lock, l.sent, l.retried = tasks.ItemRunning, d.token, d.token, false, false
	return begun(), l
}

// lose closes the running attempt, whose worker is dead. One that had not asked to send puts
// nothing in doubt.
func (l life) lose() life {
	if !l.sent && !l.unsure {
		l.key = ""
	}
	return l
}

// finish ends the running attempt.
func (l life) finish(o tasks.Outcome, inDoubt bool) life {
	event := o.Transition
	if event == tasks.Retry && l.stopped {
		switch {
		case inDoubt:
			event = tasks.LoseTrack
		case o.Failure || o.Unanswered:
			event = tasks.Fail
		default:
			event = cancel
		}
	}
	l.state = map[tasks.Transition]tasks.ItemState{
		tasks.Succeed: tasks.ItemSucceeded, tasks.Retry: tasks.ItemRetrying, tasks.Fail: tasks.ItemFailed,
		tasks.LoseTrack: tasks.ItemUnknown, cancel: tasks.ItemCancelled,
	}[event]
	l.token, l.sent, l.unsure = "", false, false
	if !inDoubt {
		l.key = ""
	}
	if l.state.Final() {
		l.given = ""
	}
	return l
}

var lifeModel = porcupine.Model{
	Init: func() any { return life{state: tasks.ItemPending, delivery: 1} },
	Step: func(state, input, output any) (bool, any) {
		l, d, heard := state.(life), input.(deed), output.(answer) //nolint:forcetypeassert // we put them there
		said, next := l.do(d)
		switch {
		case heard.lost:
			return true, next
		case heard.refusal == tasks.AttemptAlive && l.state == tasks.ItemRunning && l.token != d.token:
			// The attempt that it was to replace has been replaced meanwhile.
			return true, l
		}
		return heard == said, next
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v: %+v", input, output) },
	DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
}

// crowd is everybody who is at work on one record.
type crowd struct {
	w     world
	job   tasks.Job
	start time.Time

	mu       sync.Mutex
	delivery int      // the last that is known
	tokens   []string // that somebody used
	ops      []porcupine.Operation
}

// draw makes up something to do, which mostly makes sense.
func (c *crowd) draw(r *rand.Rand, n int) deed {
	c.mu.Lock()
	defer c.mu.Unlock()
	fresh := fmt.Sprintf("t%d", n)
	if r.IntN(3) == 0 {
		fresh = fmt.Sprintf(aliveWorker+"%08d", n)
	}
	token := fresh
	if len(c.tokens) > 0 {
		token = c.tokens[max(0, len(c.tokens)-1-r.IntN(3))]
	}
	d := deed{token: token, delivery: max(1, c.delivery-r.IntN(8)/7)}
	switch kind := r.IntN(20); {
	case kind < 6:
		d.what = "begin"
		// A command can come twice. One of a living worker that comes after its attempt has
		// ended makes an attempt of which that worker knows nothing: see lifeSign.
		if r.IntN(4) > 0 || alive(d.token) {
			d.token = fresh
		}
		c.tokens = append(c.tokens, d.token)
	case kind < 9:
		d.what = "send"
	case kind < 12:
		d.what, d.unlock = "finish", r.IntN(3) > 0
		d.outcome = []tasks.Outcome{
			{Transition: tasks.Succeed},
			{Transition: tasks.Retry, Code: "X", Failure: true},
			{Transition: tasks.Retry, Code: "X", InDoubt: true, Unanswered: true},
			{Transition: tasks.Retry, Code: "X"},
			{Transition: tasks.Fail, Code: "X", Failure: true},
			{Transition: tasks.LoseTrack, Code: "X", InDoubt: true},
		}[r.IntN(6)]
		d.unlock = d.unlock && !d.outcome.InDoubt
	case kind < 14:
		d.what = "give up"
		if r.IntN(2) == 0 { // before it begins
			d.token = fresh
			c.tokens = append(c.tokens, d.token)
		}
	case kind < 15:
		d.what = "deliver"
	case kind < 16:
		d.what = "cancel"
	case kind < 18:
		d.what = "retry"
		d.states = [][]tasks.ItemState{{tasks.ItemFailed}, {tasks.ItemFailed, tasks.ItemUnknown, tasks.ItemCancelled}}[r.IntN(2)]
	default:
		d.what = "read"
	}
	return d
}

// carryOut asks the record.
func (c *crowd) carryOut(ctx context.Context, d deed) (a answer) {
	delivery := c.job.Deliveries()[0]
	delivery.Number = d.delivery
	var err error
	switch d.what {
	case "begin":
		var begun tasks.Begun
		begun, err = c.w.db.Attempts.Begin(ctx, delivery, d.token, "key-of-"+d.token, time.Minute)
		a = answer{attempts: begun.Number, key: begun.Key, unsure: begun.Ambiguous}
	case "send":
		err = c.w.db.Attempts.Send(ctx, delivery, d.token, "")
	case "finish":
		var ended tasks.Ended
		ended, err = c.w.db.Attempts.Finish(ctx, delivery, d.token, d.outcome, d.unlock)
		a.state = ended.State
	case "give up":
		var ended tasks.Ended
		ended, err = c.w.db.Attempts.GiveUp(ctx, delivery, d.token, time.Minute)
		a.state = ended.State
	case "deliver":
		err = c.w.db.Sweep.Redeliver(ctx, c.job, delivery, func(int) time.Duration { return 0 })
	case "cancel":
		err = c.w.db.Records.Cancel(ctx, c.job.ID, tasks.Actor{})
	case "retry":
		err = c.w.db.Records.Retry(ctx, c.job.ID, d.states, tasks.Actor{})
	case "read":
		var job tasks.Job
		if job, err = c.w.db.Jobs.Job(ctx, c.job.ID); err == nil {
			it := job.Items[0]
			a = answer{state: it.State, attempts: it.Attempts, delivery: it.Delivery}
			c.mu.Lock()
			c.delivery = max(c.delivery, it.Delivery)
			c.mu.Unlock()
		}
	}
	if err == nil {
		return a
	}
	if refusal, ok := errors.AsType[tasks.Refusal](err); ok {
		return answer{refusal: refusal}
	}
	switch {
	case errors.Is(err, tasks.TooEarly):
		return answer{refusal: tasks.TooEarly}
	case tasks.CodeOf(err) == tasks.JobFinal:
		return answer{refusal: nothingDone}
	case err.Error() == "begin: "+tasks.AttemptAlive.Error(), err.Error() == "deliver again: "+tasks.AttemptAlive.Error():
		return answer{refusal: tasks.AttemptAlive}
	}
	panic(err)
}

// work does something and notes when it was asked and answered. Of some answers nobody hears,
// and some of what was asked then is done much later.
func (c *crowd) work(ctx context.Context, r *rand.Rand, client, n int, late *sync.WaitGroup) {
	d := c.draw(r, n)
	op := porcupine.Operation{ClientId: client, Input: d, Call: time.Since(c.start).Nanoseconds()}
	if r.IntN(12) == 0 {
		wait := time.Duration(r.IntN(3)) * time.Millisecond
		late.Add(1)
		time.AfterFunc(wait, func() {
			defer late.Done()
			c.carryOut(ctx, d)
		})
		op.Output, op.Return = answer{lost: true}, math.MaxInt64
		op.ClientId = 1000 + n // who did not hear goes on as somebody else
	} else {
		op.Output = c.carryOut(ctx, d)
		op.Return = time.Since(c.start).Nanoseconds()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ops = append(c.ops, op)
}

// TestARecordIsLinearizable: whatever many do to one record at the same time, it is as if they
// had done it one after the other, as the specification above says.
func TestARecordIsLinearizable(t *testing.T) {
	t.Parallel()
	w := open(t, redisdb.Options{URL: redistest.Start(t).URL()})
	w.rdb.Set(t.Context(), "reset:worker:{"+aliveWorker+"}", "", 0)
	rounds, unclear := 0, 0
	for start := time.Now(); time.Since(start) < 3*time.Second || rounds < 20; rounds++ {
		seed := uint64(rounds)
		c := &crowd{w: w, job: w.submit(t, fmt.Sprintf("phone-%d", rounds)), start: time.Now(), delivery: 1}
		var all, late sync.WaitGroup
		const clients, deeds = 5, 8
		for client := range clients {
			r := rand.New(rand.NewPCG(seed, uint64(client)))
			all.Go(func() {
				for n := range deeds {
					c.work(t.Context(), r, client, client*deeds+n, &late)
				}
			})
		}
		all.Wait()
		late.Wait()
		read := deed{what: "read"}
		call := time.Since(c.start).Nanoseconds()
		c.ops = append(c.ops, porcupine.Operation{
			Input: read, Output: c.carryOut(t.Context(), read), Call: call, Return: time.Since(c.start).Nanoseconds(),
		})
		switch porcupine.CheckOperationsTimeout(lifeModel, c.ops, 10*time.Second) {
		case porcupine.Illegal:
			slices.SortFunc(c.ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
			var story strings.Builder
			for _, op := range c.ops {
				fmt.Fprintf(&story, "%9d to %9d  %+v: %+v\n", op.Call, op.Return, op.Input, op.Output)
			}
			t.Fatalf("round %d: nobody could have done this one after the other:\n%s", rounds, story.String())
		case porcupine.Unknown:
			unclear++
		}
	}
	if unclear > rounds/10 {
		t.Errorf("%d of %d rounds were too hard to check", unclear, rounds)
	}
	t.Logf("%d rounds, %d too hard to check", rounds, unclear)
}
