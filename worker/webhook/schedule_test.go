package webhook

import (
	"errors"
	"testing"
	"time"
)

func TestWhatFollowsFromAReply(t *testing.T) {
	for _, row := range []struct {
		name   string
		reply  Reply
		before int
		want   result // without jitter
	}{
		{"200 is taken", Reply{Status: 200}, 0, result{verdict: delivered}},
		{"299 is taken", Reply{Status: 299}, 3, result{verdict: delivered}},
		{"no answer", Reply{Err: errors.New("no answer within 15s")}, 0, result{failed, 5 * time.Second, 0, "no answer within 15s"}},
		{"the second failure", Reply{Status: 500}, 1, result{failed, 5 * time.Minute, 0, "status 500"}},
		{"the ninth", Reply{Status: 500}, 8, result{failed, 24 * time.Hour, 0, "status 500"}},
		{"the tenth is the last", Reply{Status: 500}, 9, result{givenUp, 0, 0, "status 500"}},
		{"one that is run from the dashboard after that", Reply{Status: 404}, 12, result{givenUp, 0, 0, "status 404"}},
		{"410", Reply{Status: 410}, 0, result{gone, 0, 0, "status 410"}},
		{"a redirect", Reply{Status: 307}, 0, result{failed, 5 * time.Second, 0, "status 307: redirects are not followed"}},
		{"429 leaves the endpoint alone", Reply{Status: 429}, 0, result{failed, 5 * time.Second, throttled, "status 429"}},
		{"429 that says for how long", Reply{Status: 429, RetryAfter: time.Minute}, 0, result{failed, time.Minute, time.Minute, "status 429"}},
		{"502", Reply{Status: 502}, 1, result{failed, 5 * time.Minute, throttled, "status 502"}},
		{"504", Reply{Status: 504}, 1, result{failed, 5 * time.Minute, throttled, "status 504"}},
		{"503 says nothing of the others", Reply{Status: 503}, 0, result{failed, 5 * time.Second, 0, "status 503"}},
		{"unless it says when", Reply{Status: 503, RetryAfter: 10 * time.Second}, 0, result{failed, 10 * time.Second, 10 * time.Second, "status 503"}},
		{"a short Retry-After does not hasten", Reply{Status: 503, RetryAfter: time.Second}, 1, result{failed, 5 * time.Minute, time.Second, "status 503"}},
		{"a long one holds up the others as well", Reply{Status: 429, RetryAfter: time.Hour}, 0, result{failed, time.Hour, time.Hour, "status 429"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := judge(row.reply, row.before)
			if jittered := got.delay - row.want.delay; jittered < 0 || jittered > 24*time.Hour/jitterPart || row.want.delay == 0 && jittered != 0 {
				t.Errorf("delay %s, want %s and a bit", got.delay, row.want.delay)
			}
			got.delay = row.want.delay
			if got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
		})
	}
}

func TestGates(t *testing.T) {
	now := time.Now()
	enter := func(g *gates, at time.Time) bool {
		wait, ok := g.enter("ep", at)
		if ok != (wait == 0) {
			t.Errorf("let in %t, and to wait %s", ok, wait)
		}
		return ok
	}
	t.Run("let a share of the process through", func(t *testing.T) {
		g := newGates()
		for range endpointShare {
			if !enter(g, now) {
				t.Fatal("closed too early")
			}
		}
		if enter(g, now) {
			t.Error("open to more")
		}
		g.leave("ep", delivered, 0, now)
		if !enter(g, now) {
			t.Error("closed though one has left")
		}
	})
	t.Run("let one at a time through to an endpoint that fails", func(t *testing.T) {
		g := newGates()
		enter(g, now)
		enter(g, now)
		g.leave("ep", failed, 0, now)
		if enter(g, now) {
			t.Error("a second")
		}
		g.leave("ep", "", 0, now)
		if !enter(g, now) || enter(g, now) {
			t.Error("not one")
		}
		g.leave("ep", delivered, 0, now)
		if one, two := enter(g, now), enter(g, now); !one || !two {
			t.Error("closed after a success")
		}
	})
	t.Run("stay closed for a pause", func(t *testing.T) {
		g := newGates()
		enter(g, now)
		g.leave("ep", failed, time.Minute, now)
		if enter(g, now.Add(59*time.Second)) || !enter(g, now.Add(time.Minute)) {
			t.Error("wrong time")
		}
	})
	t.Run("are forgotten", func(t *testing.T) {
		g := newGates()
		enter(g, now)
		g.leave("ep", delivered, 0, now)
		if len(g.endpoints) != 0 {
			t.Errorf("%d are left", len(g.endpoints))
		}
	})
}
