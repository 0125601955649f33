package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"batchreset/cmd/chaos/history"
	"batchreset/cmd/harness"
)

// someItem is what calls are about.
const someItem = "8c5f0f3e1b2a4d6c9e7f8a0b1c2d3e4f-0"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// buildBinary builds what a run is told to test. Without --binary, a run builds it itself.
func buildBinary(t *testing.T) string {
	t.Helper()
	binary, err := harness.Build(t.Context(), "", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return binary
}

func TestNoPromiseBreaksInAShortRun(t *testing.T) {
	binary := buildBinary(t)
	for _, row := range []struct{ redis, seed, duration, faults string }{
		// Nothing that takes a minute to get over: no worker is killed, and no call
		// stalls until its outcome is unknown and its instance locked.
		{"always", "210", "14s", "api-kill,api-freeze,worker-freeze,lease-age,redis-kill,cut,delay,halt,cancel,retry,run-pause,run-cancel,run-retry"},
		{"sentinel", "20", "14s", "failover,lease-age,api-kill,cancel,run-pause,run-cancel"},
		// A control plane that honours keys: calls in doubt are repeated, and end.
		{"everysec", "424", "14s", "gateway-timeout,gateway-refuse,gateway-page,plane-talk,protect,move,odd-batch,brake,run-pause,run-retry"},
	} {
		t.Run(row.redis, func(t *testing.T) {
			t.Parallel()
			var table, story strings.Builder
			args := []string{"--redis", row.redis, "--first-seed", row.seed, "--duration", row.duration, "--faults", row.faults}
			if row.redis != "everysec" {
				args = append(args, "--binary", binary)
			}
			err := chaos(t.Context(), args, &table, &story)
			t.Logf("\n%s", table.String())
			if err != nil {
				t.Fatalf("%v\n%s", err, story.String())
			}
			for kind := range strings.SplitSeq(row.faults, ",") {
				if !strings.Contains(table.String(), kind) {
					t.Errorf("no %s in the run: choose another seed", kind)
				}
			}
		})
	}
}

// TestAnInterruptedRunEndsAtOnce interrupts a run whose resets take minutes.
func TestAnInterruptedRunEndsAtOnce(t *testing.T) {
	t.Parallel()
	dir, binary := t.TempDir(), buildBinary(t)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	ended := make(chan error, 1)
	go func() {
		ended <- chaos(ctx, []string{
			"--redis", "always", "--faults", "halt", "--duration", "1h", "--burst", "100", "--history-dir", dir, "--binary", binary,
		}, io.Discard, io.Discard)
	}()
	if err := harness.Until(t.Context(), startTimeout, func(ctx context.Context) error {
		select {
		case err := <-ended:
			t.Fatal("it ended by itself: ", err)
		default:
		}
		return resetsUnderWay(ctx, filepath.Join(dir, "seed-1", "redis-1", "redis.conf"))
	}); err != nil {
		t.Fatal(err)
	}
	interrupt()
	interrupted := time.Now()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if d := time.Since(interrupted); d > 15*time.Second {
		t.Errorf("it took %s to end", d)
	}
}

// resetsUnderWay returns an error unless workers have tasks in hand in the Redis with this
// configuration.
func resetsUnderWay(ctx context.Context, conf string) error {
	text, err := os.ReadFile(conf)
	if err != nil {
		return err
	}
	_, port, _ := strings.Cut(string(text), "\nport ")
	port, _, _ = strings.Cut(port, "\n")
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:" + port})
	defer client.Close()
	active, err := client.Keys(ctx, "asynq:{*}:active").Result()
	if err == nil && len(active) == 0 {
		err = errors.New("no worker has a task")
	}
	return err
}

func TestFlagsAreRefusedByName(t *testing.T) {
	for _, row := range []struct{ args, want string }{
		{"--seeds 0", "--seeds must be"},
		{"--duration 0s", "--duration must be"},
		{"--redis none", "--redis must be"},
		{"--parallel 0", "--parallel must be"},
		{"--burst -1", "--burst must be"},
		{"--faults flood", "--faults: "},
		{"more", `unexpected argument "more"`},
	} {
		t.Run(row.args, func(t *testing.T) {
			var out strings.Builder
			err := chaos(t.Context(), strings.Fields(row.args), &out, &out)
			if err == nil || !strings.HasPrefix(err.Error(), row.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// ask calls a plane for a reset and returns the status of the answer.
func ask(ctx context.Context, t *testing.T, url, key string) int {
	t.Helper()
	const instance = "phone-1"
	body := strings.NewReader(`{"instance_id":"` + instance + `","item_id":"` + someItem + `","attempt":1}`)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/worker-1/"+instance, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", key)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	return response.StatusCode
}

func TestTheControlPlane(t *testing.T) {
	rec := &history.Recorder{Start: time.Now()}
	p := newPlane(rec, rand.New(rand.NewPCG(1, 1)), true)
	g := newGateway(rec, p, rand.New(rand.NewPCG(1, 2)))
	mux := http.NewServeMux()
	mux.Handle("POST /{worker}/{instance}", g)
	server := httptest.NewServer(mux)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	t.Cleanup(server.Close)
	p.moods = moods{latency: 200 * time.Millisecond, failing: 0.5, broken: 1 << 31, gone: 1 << 31}

	t.Run("does one reset for calls with one key, and gives them one answer", func(t *testing.T) {
		answers := make([]int, 10)
		var g sync.WaitGroup
		for i := range answers {
			g.Go(func() { answers[i] = ask(t.Context(), t, server.URL, "same") })
		}
		g.Wait()
		for _, status := range answers {
			if status == 0 || status != answers[0] {
				t.Fatalf("answers %v", answers)
			}
		}
		if len(p.resets) != 1 {
			t.Errorf("%d resets", len(p.resets))
		}
	})

	t.Run("does another reset for another key, and records both", func(t *testing.T) {
		g.calls.Wait()
		before := len(rec.Events())
		ask(t.Context(), t, server.URL, "one")
		ask(t.Context(), t, server.URL, "two")
		g.calls.Wait()
		if len(p.resets) != 3 || len(rec.Events())-before != 2 {
			t.Fatalf("%d resets, %d new events", len(p.resets), len(rec.Events())-before)
		}
		if e := rec.Events()[before]; e.Kind != history.Call || e.Worker != "worker-1" || e.Instance != "phone-1" || e.Item != someItem ||
			e.Key != "one" || e.Attempt != 1 || e.End-e.Begin < 100*time.Millisecond || e.Gone {
			t.Errorf("recorded %+v", e)
		}
	})

	t.Run("records a call to its end when the caller has gone", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if status := ask(ctx, t, server.URL, "gone"); status != 0 {
			t.Fatalf("answered %d", status)
		}
		server.Close() // waits for the handler
		g.calls.Wait()
		if e := rec.Events()[len(rec.Events())-1]; e.Key != "gone" || !e.Gone || e.End-e.Begin < 100*time.Millisecond {
			t.Errorf("recorded %+v", e)
		}
	})

	t.Run("refuses what is no reset", func(t *testing.T) {
		for name, r := range map[string]*http.Request{
			"no key":      httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/worker-1/phone-1", strings.NewReader(`{"instance_id":"phone-1"}`)),
			"no JSON":     httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/worker-1/phone-1", strings.NewReader("{")),
			"other phone": httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/worker-1/phone-1", strings.NewReader(`{"instance_id":"phone-2"}`)),
		} {
			if name != "no key" {
				r.Header.Set("Idempotency-Key", "k")
			}
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, r)
			if w.Code != http.StatusBadRequest {
				t.Errorf("%s: answered %d", name, w.Code)
			}
		}
	})
}
