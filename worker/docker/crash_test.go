//go:build engine

package docker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"batchreset/worker"
)

// removesItself is how redroid's own documentation starts phones: docker run --rm.
func removesItself(_, host fields) {
	host["AutoRemove"] = true
	delete(host, "RestartPolicy")
}

// kinds are the phones of the tables below.
var kinds = map[string]func(config, host fields){stays: nil, removed: removesItself}

const (
	stays   = "a phone that stays"
	removed = "a phone that removes itself"
)

// eachStep runs a test for each call of a reset that changes something.
func eachStep(t *testing.T, kind string, test func(t *testing.T, p *phone, step int)) {
	for step := range stepsOf(t, kind) {
		t.Run(fmt.Sprintf("%s, step %d", kind, step+1), func(t *testing.T) {
			t.Parallel()
			test(t, newPhone(t, kinds[kind]), step+1)
		})
	}
}

var steps = map[string]int{}

// stepsOf counts the calls of a whole reset that change something.
func stepsOf(t *testing.T, kind string) int {
	t.Helper()
	if steps[kind] == 0 {
		p := newPhone(t, kinds[kind])
		d := p.e.driver(t, nil)
		var f fault
		f.into(d)
		p.mustReset(d, p.attempt("KEY"))
		steps[kind] = f.calls()
	}
	return steps[kind]
}

// asked counts how often MaySend was asked, and lets the attempt send.
func asked(a *worker.Attempt) *atomic.Int32 {
	var times atomic.Int32
	a.MaySend = func() error { times.Add(1); return nil }
	return &times
}

// TestAResetGoesOnWhereACrashHasLeftIt is for the phone that has more steps. The contract of all
// drivers has the one that stays.
func TestAResetGoesOnWhereACrashHasLeftIt(t *testing.T) {
	eachStep(t, removed, func(t *testing.T, p *phone, step int) {
		d := p.e.driver(t, nil)
		died := dies(d, step)
		a := p.attempt("KEY1")
		times := asked(&a)
		err := d.Reset(t.Context(), a)
		if !died() {
			t.Fatalf("the reset has no step %d, and ended with %v", step, err)
		}
		if e, ok := errors.AsType[*worker.DriverError](err); !ok || (e.Verdict == worker.Unknown) != (times.Load() > 0) {
			t.Fatalf("asked %d times, ended with %v", times.Load(), err)
		}
		next := p.attempt("KEY2") // nothing was sent: the worker takes another key
		if times.Load() > 0 {
			next = again(a)
		}
		times = asked(&next)
		resumed := p.e.driver(t, nil)
		p.mustReset(resumed, next)
		if times.Load() > 1 {
			t.Errorf("MaySend was asked %d times", times.Load())
		}
		p.mustBeFresh()
		t.Log(mustLook(t, resumed, next, worker.Initial))
	})
}

func TestAWorkerThatThawsTooLateHarmsNobody(t *testing.T) {
	// This phone has all the steps of the other one, and more.
	eachStep(t, removed, func(t *testing.T, p *phone, step int) {
		late, inTime := p.e.driver(t, nil), p.e.driver(t, nil)
		frozen, thaw := freezes(late, step)
		defer thaw()
		a := p.attempt("KEY1")
		var gone atomic.Bool
		a.MaySend = func() error {
			if gone.Load() {
				return errors.New("the item is another worker's")
			}
			return nil
		}
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { ended <- late.Reset(ctx, a) }()
		select {
		case <-frozen:
		case err := <-ended:
			t.Fatalf("the reset has no step %d, and ended with %v", step, err)
		}
		gone.Store(true)
		p.mustReset(inTime, p.attempt("KEY2"))
		fresh := p.mustRun("KEY2")
		p.use()
		thaw()
		t.Log("the late one ended with", <-ended)
		if now := p.now(); now.ID != fresh.ID || now.State.StartedAt != fresh.State.StartedAt || !exists(p.photo()) {
			t.Error("the phone of the next user was touched")
		}
	})
}

// mustRun makes sure that the phone's container is that of a key, and runs. Another worker may have
// left a twin.
func (p *phone) mustRun(key string) *container {
	p.t.Helper()
	for _, c := range p.containers(p.t.Context()) {
		if c.name() == p.name && c.Labels[labelReset] == key && c.State == "running" {
			return p.e.inspect(p.t, c.ID)
		}
	}
	p.t.Fatalf("the phone has the containers %v", names(p.containers(p.t.Context())))
	return nil
}

func TestTwoWorkersAtOnce(t *testing.T) {
	for name, keys := range map[string][2]string{"under one key": {"KEY1", "KEY1"}, "under two keys": {"KEY1", "KEY2"}} {
		for kind, change := range kinds {
			t.Run(name+" "+kind, func(t *testing.T) {
				t.Parallel()
				p := newPhone(t, change)
				var errs [2]error
				var both sync.WaitGroup
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				for n := range errs {
					d := p.e.driver(t, nil)
					both.Go(func() { errs[n] = d.Reset(ctx, p.attempt(keys[n])) })
				}
				both.Wait()
				t.Log(errs)
				if errs[0] != nil && errs[1] != nil {
					t.Error("neither of them did it")
				}
				p.mustReset(p.e.driver(t, nil), p.attempt("KEY3"))
				p.mustBeFresh()
			})
		}
	}
}

func TestNothingIsSentOnceTheAttemptIsOver(t *testing.T) {
	eachStep(t, stays, func(t *testing.T, p *phone, step int) {
		d := p.e.driver(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		a := p.attempt("KEY1")
		times := asked(&a)
		after := ends(d, step, cancel)
		began := time.Now()
		err := d.Reset(ctx, a)
		e, _ := errors.AsType[*worker.DriverError](err)
		if err != nil && (e == nil || (e.Verdict == worker.Unknown) != (times.Load() > 0) || e.Verdict == worker.Unknown && !e.Repeatable) {
			t.Errorf("asked %d times, ended with %v", times.Load(), err)
		}
		if ctx.Err() == nil {
			t.Errorf("the reset has no step %d, and ended with %v", step, err)
		}
		if after.calls() > 1 { // the one that found the context ended
			t.Errorf("%d calls after the end", after.calls())
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("returned after %s", took)
		}
	})
}

func TestARefusalAfterThePhoneWasTouchedLeavesDoubt(t *testing.T) {
	t.Parallel()
	p := newPhone(t, removesItself)
	image := func(c *Config) { c.Image = otherImage }
	d := p.e.driver(t, image)
	a := p.attempt("KEY")
	times := asked(&a)
	real := d.client.Transport
	d.client.Transport = trip(func(r *http.Request) (*http.Response, error) {
		if times.Load() > 0 && strings.HasSuffix(r.URL.Path, "/images/"+otherImage+"/json") { // somebody has removed it
			return says(http.StatusNotFound, `{"message":"no such image"}`)(r)
		}
		return real.RoundTrip(r)
	})
	if e := mustFail(t, d.Reset(t.Context(), a), worker.Unknown, "half-way: the engine has no image "+otherImage); !e.Repeatable {
		t.Error("it is not to be repeated")
	}
	p.mustReset(p.e.driver(t, image), again(a))
	if exists(p.photo()) {
		t.Error("the data of the last user is there")
	}
}

func TestAnswersAfterThePhoneWasTouchedLeaveDoubt(t *testing.T) {
	for name, test := range map[string]struct {
		call   string // the end of its path
		answer trip
		want   string
	}{
		"a list that is garbage":          {"/containers/json", says(http.StatusOK, "<html>"), "the list of containers: the answer is not understood"},
		"an end that is refused":          {"/stop", says(http.StatusInternalServerError, `{"message":"cannot kill it"}`), "500: cannot kill it"},
		"an exit status that is missing":  {"/wait", says(http.StatusOK, "{}"), "the answer has no exit status"},
		"an archive that is cut off":      {"/archive", says(http.StatusOK, ""), "the answer is not understood"},
		"a start that is forbidden":       {"/start", says(http.StatusForbidden, "policy"), "403: policy"},
		"a name that cannot be given":     {"/rename", says(http.StatusBadGateway, ""), "the renaming of container"},
		"a container that is another one": {"/json", says(http.StatusOK, `{"Id":"x","Config":{},"HostConfig":{}}`), "not"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPhone(t, nil)
			d := p.e.driver(t, nil)
			a := p.attempt("KEY")
			times := asked(&a)
			real := d.client.Transport
			d.client.Transport = trip(func(r *http.Request) (*http.Response, error) {
				if times.Load() > 0 && strings.HasSuffix(r.URL.Path, test.call) {
					return test.answer(r)
				}
				return real.RoundTrip(r)
			})
			if e := mustFail(t, d.Reset(t.Context(), a), worker.Unknown, test.want); !e.Repeatable {
				t.Error("it is not to be repeated")
			}
			p.mustReset(p.e.driver(t, nil), again(a))
			p.mustBeFresh()
		})
	}
}

// has says whether the phone's name is with a container of the reset under this key.
func (p *phone) has(key string) bool {
	p.t.Helper()
	return slices.ContainsFunc(p.containers(p.t.Context()), func(c listed) bool { return c.name() == p.name && c.Labels[labelReset] == key })
}

// TestATwinThatSomebodyStartsIsNotThePhone: 'docker compose up' starts whatever has its labels, a twin whose reset is half-way
// among it. That one has run with the data of the last user, and would answer that it has booted.
func TestATwinThatSomebodyStartsIsNotThePhone(t *testing.T) {
	for kind := range kinds {
		eachStep(t, kind, func(t *testing.T, p *phone, step int) {
			a := p.attempt("KEY1")
			times := asked(&a)
			dead := p.e.driver(t, nil)
			died := dies(dead, step)
			if err := dead.Reset(t.Context(), a); !died() {
				t.Fatalf("the reset has no step %d, and ended with %v", step, err)
			}
			used := exists(p.photo())
			var started, spares []string
			for _, c := range p.containers(t.Context()) {
				if c.State != "created" || c.Labels[labelReset] == "" {
					continue
				}
				if err := p.e.engine.start(t.Context(), c.ID); err != nil {
					t.Fatal(err)
				}
				eventually(t, "the twin boots", func() bool {
					booted, _ := p.e.engine.booted(t.Context(), p.e.inspect(t, c.ID))
					return booted
				})
				started = append(started, c.ID)
				if c.name() != p.name && p.has(a.Key) {
					spares = append(spares, c.ID)
				}
			}
			next := p.attempt("KEY2")
			if times.Load() > 0 {
				next = again(a)
			}
			d := p.e.driver(t, nil)
			for _, spare := range spares { // the data is the new phone's
				mustFail(t, d.Reset(t.Context(), next), worker.Unknown, "runs beside it with the same data")
				mustLook(t, d, next, worker.Unclear)
				if err := p.e.engine.stop(t.Context(), spare); err != nil {
					t.Fatal(err)
				}
			}
			p.mustReset(d, next)
			now := p.mustBeFresh()
			mustLook(t, d, next, worker.Initial)
			if used && slices.Contains(started, now.ID) {
				t.Error("the phone has run with the data of its last user")
			}
		})
	}
}
