package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"batchreset/api"
	"batchreset/cmd/harness"
	"batchreset/tasks"
)

// Many wait and stream; all are told, over one subscription, and nothing of them stays.
func TestManyWaitForOneProcess(t *testing.T) {
	l := newLive(t)
	l.Client().Transport.(*http.Transport).MaxIdleConnsPerHost = 2000 //nolint:forcetypeassert // httptest's
	id := l.submit(t, "phone-1")
	warm := l.get(t, "/v1/jobs/"+id)
	_ = warm.Body.Close()
	before := goleak.IgnoreCurrent()
	const each = 500
	var told sync.WaitGroup
	errs := make(chan error, 2*each)
	for n := 1; n <= each; n++ {
		told.Go(func() { errs <- l.longPoll(t, id) })
		told.Go(func() { errs <- l.lastEvent(t, id) })
		if n%50 == 0 { // so that nobody's time for Redis is over before its turn
			l.wait(t, 2*n)
		}
	}
	if n := l.rdb.PubSubNumSub(t.Context(), "reset:finished").Val()["reset:finished"]; n != 1 {
		t.Errorf("%d subscriptions, want 1 for all", n)
	}
	if n := strings.Count(l.rdb.ClientList(t.Context()).Val(), " sub=1 "); n != 1 {
		t.Errorf("%d connections subscribe, want 1", n)
	}
	l.rdb.ConfigResetStat(t.Context())
	l.end(t, id, tasks.Outcome{Transition: tasks.Succeed})
	ended := time.Now()
	told.Wait()
	if took := time.Since(ended); took > 5*time.Second {
		t.Errorf("the last was told %s after the end", took)
	}
	for range 2 * each {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	// One reads for all who were told at the same time; a few rounds may be needed.
	if n := calls(t, l.service, "hmget"); n > each {
		t.Errorf("%d looks at the record for %d who were told of its end", n, 2*each)
	}
	l.Client().CloseIdleConnections()
	if err := goleak.Find(before, goleak.IgnoreAnyFunction("net/http.(*conn).serve"), goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead")); err != nil {
		t.Error(err)
	}
	l.wait(t, 0)
}

// wait waits until n requests wait.
func (l *live) wait(t *testing.T, n int) {
	t.Helper()
	if err := harness.Until(t.Context(), 20*time.Second, func(context.Context) error {
		if waiting := metric(t, l.api, "batchreset_waiting_requests"); waiting != float64(n) {
			return fmt.Errorf("%v wait, want %d", waiting, n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func (l *live) longPoll(t *testing.T, id string) error {
	r := l.get(t, "/v1/jobs/"+id, "Prefer", "wait=50")
	body, err := io.ReadAll(r.Body)
	if err == nil && !strings.Contains(string(body), `"state":"succeeded"`) {
		err = fmt.Errorf("poll was told %s", body)
	}
	return errors.Join(err, r.Body.Close())
}

func (l *live) lastEvent(t *testing.T, id string) (err error) {
	r := l.get(t, "/v1/jobs/"+id+"/events")
	last := ""
	readEvents(t, r.Body, func(e event) { last = e.data })
	if !strings.Contains(last, `"state":"succeeded"`) {
		err = fmt.Errorf("stream was told %s", last)
	}
	return errors.Join(err, r.Body.Close())
}

// calls is how often Redis was sent a command since its statistics were reset.
func calls(t *testing.T, s service, command string) (n int) {
	t.Helper()
	text, err := s.rdb.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	if _, after, found := strings.Cut(text, "cmdstat_"+command+":calls="); found {
		_, err = fmt.Sscanf(after, "%d", &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A process that has never read the record answers 304 without reading it.
func TestA304CostsTwoSmallReads(t *testing.T) {
	l := newLive(t)
	id := l.submit(t, "phone-1", "phone-2")
	first := l.do(t, http.MethodGet, "/v1/jobs/"+id, "acme", nil)
	tag := first.header.Get("ETag")
	l.stop() // whose loop looks at tokens, too
	other := service{api.New(api.Config{}, storeOf(l.db), slog.New(slog.DiscardHandler)), l.db, l.rdb}
	for prefer, want := range map[string]int{"": 1, "wait=0": 2} {
		asked := other
		if prefer != "" {
			asked = l.service // which holds the record
		}
		// The token is read with HGETALL. A wait looks again once it is on. What a process looks at
		// now and then, such as limits, may come between; not each time.
		versions, whole := math.MaxInt, math.MaxInt
		for range 3 {
			l.rdb.ConfigResetStat(t.Context())
			got := asked.do(t, http.MethodGet, "/v1/jobs/"+id, "acme", nil, "If-None-Match", tag, "Prefer", prefer)
			if got.status != http.StatusNotModified || got.header.Get("ETag") != tag {
				t.Errorf("Prefer %q: %+v", prefer, got)
			}
			versions, whole = min(versions, calls(t, l.service, "hmget")), min(whole, calls(t, l.service, "hgetall"))
		}
		if versions != want || whole != 1 {
			t.Errorf("Prefer %q: %d HMGET and %d HGETALL", prefer, versions, whole)
		}
	}
	// After a change it is no 304.
	l.end(t, id, tasks.Outcome{Transition: tasks.Succeed})
	if got := other.do(t, http.MethodGet, "/v1/jobs/"+id, "acme", nil, "If-None-Match", tag); got.status != http.StatusOK || got.Code != tasks.OK {
		t.Errorf("after a change: %+v", got)
	}
}
