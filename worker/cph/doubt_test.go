package cph

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/api/relaytest"
	"batchreset/cmd/harness/faketime"
	"batchreset/worker"
)

var errNo = errors.New("somebody has halted it")

func TestACheckpointOfWhatWasNotSentIsNone(t *testing.T) {
	fake := newFake()
	a := attempt() // not in doubt: the earlier attempt saved it and never asked for leave
	a.Checkpoint = `{"phone_id":"` + phoneA + `","status":2}`
	if err := driverFor(t, fake).Reset(t.Context(), a); err != nil || fake.Phone(phoneA).Begun != 1 {
		t.Errorf("%v, %+v", err, fake.Phone(phoneA))
	}
}

func TestDoubtWithoutACheckpointIsForThePhoneToEnd(t *testing.T) {
	for _, row := range []struct {
		name   string
		phones []http.HandlerFunc
		want   worker.Verdict
		ends   bool
	}{
		{"it is being reset", []http.HandlerFunc{phoneSays(3, then), phoneSays(2, then)}, "", false},
		{"it runs", []http.HandlerFunc{phoneSays(2, then)}, worker.Unknown, false},
		{"its reset has failed", []http.HandlerFunc{phoneSays(-5, then)}, worker.Retryable, true},
		{"its reset fails", []http.HandlerFunc{phoneSays(3, then), phoneSays(-5, then)}, worker.Retryable, true},
		{"it is not there any more", []http.HandlerFunc{says(400, wrong("CPS.0005")), phoneSays(2, then)}, worker.Unknown, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := &script{phones: row.phones}
			a := attempt()
			a.Ambiguous = true
			err := driverFor(t, s).Reset(t.Context(), a)
			if s.posts.Load() != 0 {
				t.Error("reset again")
			}
			if row.want == "" && err != nil {
				t.Error(err)
			}
			if row.want != "" {
				if e := wantVerdict(t, err, row.want); e.EndsDoubt != row.ends || e.Repeatable {
					t.Errorf("%+v", e)
				}
			}
		})
	}
}

func TestACheckpointThatCannotBeUsedLeavesDoubt(t *testing.T) {
	for name, checkpoint := range map[string]string{
		"of another driver":          "https://phones.example/operations/7",
		"without a phone":            "{}",
		"with a job that is a path":  `{"phone_id":"` + phoneA + `","job_id":"../phones"}`,
		"of the phone before a move": `{"phone_id":"another","job_id":"job-1"}`,
	} {
		t.Run(name, func(t *testing.T) {
			fake := newFake()
			a := attempt()
			a.Ambiguous, a.Checkpoint = true, checkpoint
			if e := wantVerdict(t, driverFor(t, fake).Reset(t.Context(), a), worker.Unknown); e.Repeatable {
				t.Errorf("%+v", e)
			}
			if fake.Phone(phoneA).Begun != 0 {
				t.Error("reset")
			}
		})
	}
}

func TestAnAnswerThatIsLostOrCutOffLeavesDoubt(t *testing.T) {
	for name, lose := range map[string]http.HandlerFunc{
		"cut off": func(w http.ResponseWriter, _ *http.Request) {
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
				_ = c.Close()
			}
		},
		"not HTTP": func(w http.ResponseWriter, _ *http.Request) {
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_, _ = io.WriteString(c, "SSH-2.0-x\r\n")
				_ = c.Close()
			}
		},
		"another protocol": func(w http.ResponseWriter, r *http.Request) {
			if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
				_, _ = c.Read(make([]byte, 1)) // until the client hangs up
				_ = c.Close()
			}
		},
	} {
		for _, arrived := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				fake := newFake()
				d := driverFor(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method != http.MethodPost {
						fake.ServeHTTP(w, r)
						return
					}
					if arrived {
						fake.ServeHTTP(httptest.NewRecorder(), r)
					}
					_, _ = io.Copy(io.Discard, r.Body) // so all of it was sent
					lose(w, r)
				}))
				err := d.Reset(t.Context(), attempt())
				if !arrived {
					wantVerdict(t, err, worker.Unknown)
					return
				}
				if p := fake.Phone(phoneA); err != nil || p.Begun != 1 || p.Wiped != 1 {
					t.Errorf("%v, %+v", err, p)
				}
			})
		}
	}
}

func TestNothingIsSentThatMayNotBe(t *testing.T) {
	for name, row := range map[string]struct {
		change func(a *worker.Attempt, cancel context.CancelFunc)
		says   string
	}{
		"the checkpoint cannot be saved": {func(a *worker.Attempt, _ context.CancelFunc) {
			a.Save = func(context.Context, string) error { return errNo }
		}, errNo.Error()},
		"time is over after the checkpoint": {func(a *worker.Attempt, cancel context.CancelFunc) {
			a.Save = func(context.Context, string) error { cancel(); return nil }
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			fake := newFake()
			d := driverFor(t, fake)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			a := attempt()
			row.change(&a, cancel)
			if e := wantVerdict(t, d.Reset(ctx, a), worker.NotSent); !strings.Contains(e.Message, row.says) {
				t.Errorf("%+v", e)
			}
			if p := fake.Phone(phoneA); p.Begun != 0 {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestALongWayToRedisDoesNotHoldTheDriver(t *testing.T) {
	fake := newFake()
	d := driverFor(t, fake)
	release, answered := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	a := attempt()
	a.MaySend = func() error {
		defer close(answered)
		cancel() // the attempt's time ends while it asks
		<-release
		return nil
	}
	wantVerdict(t, d.Reset(ctx, a), worker.NotSent)
	close(release) // leave comes late
	<-answered
	if p := fake.Phone(phoneA); p.Begun != 0 {
		t.Errorf("%+v", p)
	}
}

func TestTimeThatEndsBetweenQuestionsLeavesDoubtThatALaterAttemptEnds(t *testing.T) {
	fake := newFake()
	ctx, cancel := context.WithCancel(t.Context())
	d := driverFor(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/jobs/") && ctx.Err() == nil {
			cancel()
			<-r.Context().Done()
			return
		}
		fake.ServeHTTP(w, r)
	}))
	var n notes
	if e := wantVerdict(t, d.Reset(ctx, n.attempt()), worker.Unknown); !e.Repeatable {
		t.Errorf("%+v", e)
	}
	if err := d.Reset(t.Context(), n.again()); err != nil || fake.Phone(phoneA).Begun != 1 {
		t.Errorf("%v, %+v", err, fake.Phone(phoneA))
	}
}

func TestNothingSentIsUnreachable(t *testing.T) {
	fake := newFake()
	d := driverFor(t, fake)
	for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){
		"a refused connection": func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:1")
		},
		"a name that does not exist": func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "cph.invalid", IsNotFound: true}
		},
	} {
		t.Run(name, func(t *testing.T) {
			d.client.sender.DialContext = dial
			var n notes
			wantVerdict(t, d.Reset(t.Context(), n.attempt()), worker.Unreachable)
			if n.asked != 0 {
				t.Error("asked for leave without a connection")
			}
		})
	}
}

// roundTripper is a function that answers requests.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestAnAnswerToWhatWasNotSentLeavesNoDoubt(t *testing.T) {
	for name, row := range map[string]struct {
		says http.HandlerFunc
		want worker.Verdict
	}{
		"a success":         {taken, worker.Retryable},
		"an internal error": {says(500, ""), worker.Retryable},
		"a refusal":         {says(403, ""), worker.Permanent},
		"a locked door":     {says(401, ""), worker.Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			s := &script{phones: []http.HandlerFunc{phoneSays(2, then)}}
			d := driverFor(t, s)
			// Somebody on the way answers without having read the request.
			d.client.sender.RegisterProtocol("http", roundTripper(func(*http.Request) (*http.Response, error) {
				w := httptest.NewRecorder()
				row.says(w, nil)
				return w.Result(), nil
			}))
			var n notes
			wantVerdict(t, d.Reset(t.Context(), n.attempt()), row.want)
			if n.asked != 0 || s.askedJob.Load() != 0 || s.askedPhone.Load() != 1 {
				t.Errorf("asked for leave %d times, for the job %d times, for the phone %d times", n.asked, s.askedJob.Load(), s.askedPhone.Load())
			}
		})
	}
}

func TestTheGateAsksOnceAndStaysShutOnceDropped(t *testing.T) {
	yes := func() error { return nil }
	t.Run("asks once for a request in parts", func(t *testing.T) {
		asked := 0
		g := newGate(t.Context(), []byte("abc"), func() error { asked++; return nil })
		for range 3 {
			if n, err := g.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		}
		if asked != 1 || g.drop() != sent {
			t.Errorf("asked %d times", asked)
		}
	})
	t.Run("stays shut after it was dropped", func(t *testing.T) {
		g := newGate(t.Context(), []byte("abc"), func() error { t.Error("asked"); return nil })
		if g.drop() != closed {
			t.Error("not closed")
		}
		if _, err := g.Read(make([]byte, 1)); !errors.Is(err, errDropped) {
			t.Error(err)
		}
	})
	t.Run("stays shut when leave comes after it was dropped", func(t *testing.T) {
		var g *gate
		g = newGate(t.Context(), []byte("abc"), func() error {
			if g.drop() != asking {
				t.Error("not asking")
			}
			return nil
		})
		if n, err := g.Read(make([]byte, 1)); n != 0 || !errors.Is(err, errDropped) {
			t.Errorf("%d, %v", n, err)
		}
	})
	t.Run("never sends what was reported as not sent", func(t *testing.T) {
		for range 1000 {
			g := newGate(t.Context(), []byte("abc"), yes)
			var read int
			var reader sync.WaitGroup
			reader.Go(func() { read, _ = g.Read(make([]byte, 3)) })
			nothing := g.drop() != sent
			reader.Wait()
			if nothing && read > 0 {
				t.Fatal("sent")
			}
		}
	})
}

// TestQuestionsAreApart lends the driver a clock.
func TestQuestionsAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		var mu sync.Mutex
		s := &script{
			post:   taken,
			phones: []http.HandlerFunc{phoneSays(2, then)},
			jobs: []http.HandlerFunc{
				jobSays(1, ""), says(429, wrong("APIGW.0308")), says(503, "", "Retry-After", "40"), says(401, wrong("APIGW.0301")), jobSays(1, ""), jobSays(2, ""),
			},
		}
		relay := relaytest.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			at = append(at, time.Now())
			mu.Unlock()
			s.ServeHTTP(w, r)
		}))
		cfg := settings(t, "http://127.0.0.1")
		cfg.PollInterval = 0
		d := newDriver(t, cfg)
		d.locked = time.Minute
		relay.Carry(d.client.reader, false)
		relay.Carry(d.client.sender, false)
		if err := d.Reset(t.Context(), attempt()); err != nil {
			t.Fatal(err)
		}
		d.Close()
		// The look before, the order, six questions about the job, and the phone at the end.
		least := []time.Duration{0, 10 * time.Second, 10 * time.Second, time.Minute, 40 * time.Second, time.Minute, 10 * time.Second, 0}
		for i, want := range least {
			if got := at[i+1].Sub(at[i]); got < want || got > want+6*time.Second {
				t.Errorf("question %d came after %s, want %s", i+1, got, want)
			}
		}
	})
}

// TestFollowingOverConnectionsThatGoDead has a relay swallow what is kept.
func TestFollowingOverConnectionsThatGoDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFake()
		relay := relaytest.Start(t, fake)
		cfg := settings(t, "http://127.0.0.1")
		cfg.PollInterval = 0
		d := newDriver(t, cfg)
		relay.Carry(d.client.reader, false)
		relay.Carry(d.client.sender, false)
		var n notes
		a := n.attempt()
		save := a.Save
		a.Save = func(ctx context.Context, checkpoint string) error {
			if strings.Contains(checkpoint, "job_id") {
				relay.Swallow()
			}
			return save(ctx, checkpoint)
		}
		began := time.Now()
		if err := d.Reset(t.Context(), a); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 3*time.Minute {
			t.Errorf("heard of the end after %s", took)
		}
		d.Close()
	})
}

// TestACallThatIsNotAnsweredIsFollowed: the attempt's time is not spent on waiting for it.
func TestACallThatIsNotAnsweredIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFake()
		release := make(chan struct{})
		relay := relaytest.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				fake.ServeHTTP(httptest.NewRecorder(), r)
				<-release
				return
			}
			fake.ServeHTTP(w, r)
		}))
		cfg := settings(t, "http://127.0.0.1")
		cfg.PollInterval = 0
		d := newDriver(t, cfg)
		relay.Carry(d.client.reader, false)
		relay.Carry(d.client.sender, false)
		began := time.Now()
		if err := d.Reset(t.Context(), attempt()); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < sendTimeout || took > 3*time.Minute {
			t.Errorf("took %s", took)
		}
		if p := fake.Phone(phoneA); p.Begun != 1 || p.Wiped != 1 {
			t.Errorf("%+v", p)
		}
		close(release)
		d.Close()
		faketime.Pass(time.Second)
	})
}
