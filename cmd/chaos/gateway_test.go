package main

import (
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"batchreset/cmd/chaos/fault"
	"batchreset/cmd/chaos/history"
)

// upstream is a gateway and a plane whose resets take 50 to 150 ms and do not fail.
func upstream(t *testing.T, repeatable bool) (g *gateway, url string) {
	t.Helper()
	rec := &history.Recorder{Start: time.Now()}
	p := newPlane(rec, rand.New(rand.NewPCG(1, 1)), repeatable)
	p.moods = moods{latency: 100 * time.Millisecond, broken: 1 << 31, gone: 1 << 31}
	g = newGateway(rec, p, rand.New(rand.NewPCG(1, 2)))
	server := httptest.NewServer(routes(g))
	t.Cleanup(func() {
		server.Close()
		g.calls.Wait()
		p.under.Wait()
		http.DefaultClient.CloseIdleConnections()
	})
	return g, server.URL
}

// recorded is the last call, once it is recorded.
func (g *gateway) recorded() history.Event {
	g.mu.Lock()
	g.mu.Unlock() //nolint:staticcheck // after the call that is to be waited for has begun
	g.calls.Wait()
	events := g.rec.Events()
	return events[len(events)-1]
}

// struck asks until the gateway's mood meets a call.
func struck(t *testing.T, g *gateway, url string, kind fault.Kind, met func(history.Event) bool) history.Event {
	t.Helper()
	defer g.be(kind)()
	for n := range 200 {
		ask(t.Context(), t, url, "key-"+string(kind)+strings.Repeat("x", n))
		if e := g.recorded(); met(e) {
			return e
		}
	}
	t.Fatalf("no call met %s", kind)
	return history.Event{}
}

func TestTheGateway(t *testing.T) {
	t.Run("gives up on a slow reset, which goes on", func(t *testing.T) {
		g, url := upstream(t, true)
		g.plane.moods.latency = 3 * time.Second // at least 1.5 s
		defer g.be(fault.GatewayTimeout)()
		status := ask(t.Context(), t, url, "slow")
		told := g.rec.Now()
		if e := g.recorded(); status < 500 || e.Status != status || e.Answer != history.Success || e.End <= told {
			t.Errorf("told %d at %s, recorded %+v", status, told, e)
		}
	})
	t.Run("turns calls away, and nothing is reset", func(t *testing.T) {
		g, url := upstream(t, true)
		g.plane.moods.latency = time.Millisecond
		for _, kind := range []fault.Kind{fault.GatewayRefuse, fault.GatewayPage} {
			e := struck(t, g, url, kind, func(e history.Event) bool { return e.Answer == history.TurnedAway })
			if _, known := g.plane.resets[e.Key]; known || (e.Status == http.StatusOK) != (kind == fault.GatewayPage) {
				t.Errorf("%s: recorded %+v", kind, e)
			}
		}
	})
	t.Run("hangs up after the reset has begun", func(t *testing.T) {
		g, url := upstream(t, true)
		g.plane.moods.latency = time.Millisecond
		e := struck(t, g, url, fault.GatewayLose, func(e history.Event) bool { return e.Status == 0 })
		if e.Answer != history.Success {
			t.Errorf("recorded %+v", e)
		}
	})
}

func TestAPlaneThatDoesNotHonourKeysResetsForEachCall(t *testing.T) {
	g, url := upstream(t, false)
	ask(t.Context(), t, url, "same")
	ask(t.Context(), t, url, "same")
	if len(g.plane.resets) != 2 {
		t.Errorf("%d resets", len(g.plane.resets))
	}
}

func TestEachDialectTellsOfAResetToItsEnd(t *testing.T) {
	g, url := upstream(t, true)
	get := func(id string) (status int, body string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/poll/"+id, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		raw, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(raw)
	}
	for n, d := range polled {
		for answer, last := range map[string]string{history.Success: d.done, history.Failure: d.failed} {
			one := &reset{id: strings.Repeat("x", n+1) + answer, dialect: &polled[n], done: make(chan struct{})}
			g.plane.resets[one.id] = one
			if r := one.reply(); r.status != http.StatusAccepted || r.location != "/poll/"+one.id {
				t.Errorf("accepted with %+v", r)
			}
			if status, body := get(one.id); status != http.StatusOK || body != d.running {
				t.Errorf("while it runs: %d %s", status, body)
			}
			one.answer = answer
			close(one.done)
			if status, body := get(one.id); status != http.StatusOK || body != last {
				t.Errorf("after a %s: %d %s", answer, status, body)
			}
		}
	}
	if status, _ := get("nobody"); status != http.StatusNotFound {
		t.Errorf("a reset that is not there: %d", status)
	}
}
