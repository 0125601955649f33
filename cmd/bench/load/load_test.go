package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// serve starts an HTTP server and returns its address.
func serve(t *testing.T, h http.HandlerFunc) (addr string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func dialTest(t *testing.T, addr string) *Caller {
	t.Helper()
	c, err := Dial(t.Context(), addr, "secret")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestACallerReadsEveryKindOfAnswer(t *testing.T) {
	long := strings.Repeat("0123456789", 10_000)
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		sent, _ := io.ReadAll(r.Body)
		w.Header().Set("ETag", `"7"`)
		switch r.URL.Path {
		case "/echo":
			fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Header.Get("X-Auth-Token"), r.Header.Get("X-More"), sent)
		case "/long": // net/http does not know the length when it begins
			_, _ = io.WriteString(w, long)
		case "/empty":
		case "/same":
			w.WriteHeader(http.StatusNotModified)
		default:
			http.NotFound(w, r)
		}
	})
	c := dialTest(t, addr) // all on one connection: an answer that is not read to its end spoils the next
	for _, row := range []struct {
		path   string
		status int
		body   string
	}{
		{"/echo", http.StatusOK, "POST secret yes body"},
		{"/long", http.StatusOK, long},
		{"/empty", http.StatusOK, ""},
		{"/same", http.StatusNotModified, ""},
		{"/other", http.StatusNotFound, "404 page not found\n"},
		{"/echo", http.StatusOK, "POST secret yes body"},
	} {
		a, err := c.Do(http.MethodPost, row.path, "X-More: yes\r\n", []byte("body"))
		if err != nil {
			t.Fatalf("%s: %v", row.path, err)
		}
		if a.Status != row.status || string(a.Body) != row.body || string(a.ETag) != `"7"` {
			t.Errorf("%s: %d, tag %s, %.100q", row.path, a.Status, a.ETag, a.Body)
		}
	}
}

func TestSubmitPostsFullBatchesWithoutRepeats(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	posts := 0
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var request struct {
			IDs []string `json:"instance_ids"`
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		posts++
		for _, id := range request.IDs {
			seen[id]++
		}
		fmt.Fprintf(w, `{"error_code":"0","data":{"task_id":"%032x"}}`, posts)
	})
	c, err := DialCrowd(t.Context(), addr, "secret", 4)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rate, err := c.Submit(t.Context(), 10*BatchSize-5)
	if err != nil || rate <= 0 {
		t.Fatalf("%v/s, %v", rate, err)
	}
	if posts != 10 || len(seen) != 10*BatchSize {
		t.Errorf("%d posts of %d instances", posts, len(seen))
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was posted %d times", id, n)
		}
	}
}

func TestARefusedSubmitIsAnError(t *testing.T) {
	addr := serve(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusTooManyRequests) })
	if _, err := dialTest(t, addr).Submit(NextBatch(1)); err == nil || !strings.Contains(err.Error(), "429 no") {
		t.Errorf("got %v", err)
	}
}

func TestAwaitPollsUntilTheJobIsFinal(t *testing.T) {
	var polls atomic.Int32
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		state, tag := "running", `"1"`
		if polls.Add(1) > 3 {
			state, tag = "succeeded", `"2"`
		}
		if strings.HasSuffix(r.URL.Path, "bad") {
			state, tag = "partial", `"3"`
		}
		if strings.HasSuffix(r.URL.Path, "slow") {
			state, tag = "running", `"4"`
		}
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprintf(w, `{"error_code":"0","data":{"state":%q}}`, state)
	})
	c := dialTest(t, addr)
	if err := c.Await(t.Context(), "good", time.Minute); err != nil || polls.Load() != 4 {
		t.Errorf("%v after %d polls", err, polls.Load())
	}
	if err := c.Await(t.Context(), "bad", time.Minute); err == nil || !strings.Contains(err.Error(), "ended as partial") {
		t.Errorf("got %v", err)
	}
	if err := c.Await(t.Context(), "slow", 5*time.Millisecond); !errors.Is(err, ErrSlow) {
		t.Errorf("got %v", err)
	}
}

// A generator that waits for answers would send nothing during a stall, and only one
// call would look slow.
func TestAnOpenLoopDoesNotHideAStall(t *testing.T) {
	const stall = 200 * time.Millisecond
	var calls atomic.Int32
	addr := serve(t, func(http.ResponseWriter, *http.Request) {
		if calls.Add(1) == 1 {
			time.Sleep(stall) // what it does to latencies is what is measured
		}
	})
	c := dialTest(t, addr)
	latency, late, err := OpenLoop(t.Context(), 500, 400*time.Millisecond, 1, func(int) error {
		_, err := c.Do(http.MethodGet, "/", "", nil)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := latency.TotalCount(); n != int64(calls.Load()) || n != late.TotalCount() || n < 100 {
		t.Errorf("%d latencies of %d calls", n, calls.Load())
	}
	slow := int64(0)
	for _, bar := range latency.Distribution() {
		if bar.From > (stall / 4).Microseconds() {
			slow += bar.Count
		}
	}
	if slow < 20 { // about 75 fall into the first three quarters of the stall
		t.Errorf("%d calls of %d were slow, during a stall of half of the time", slow, latency.TotalCount())
	}
}

func TestAnOpenLoopEndsWithTheFirstError(t *testing.T) {
	broken := errors.New("broken")
	if _, _, err := OpenLoop(t.Context(), 1000, time.Minute, 2, func(int) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestAClosedLoopCountsCalls(t *testing.T) {
	var calls atomic.Int64
	rate, err := ClosedLoop(t.Context(), 20*time.Millisecond, 2, func(int) error {
		calls.Add(1)
		return nil
	})
	if err != nil || rate <= 0 || calls.Load() == 0 {
		t.Errorf("%v/s after %d calls, %v", rate, calls.Load(), err)
	}
}
