package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/api/client"
	"batchreset/cmd/harness"
	"batchreset/tasks/redisdb/redistest"
)

// yesterday is a Redis of the version before: testdata/upgrade/make.go says how it came to
// be and what is in it.
type yesterday struct {
	At     int64
	Plane  string
	Tokens map[string]string
	Jobs   map[string]string
	TTL    map[string]int64
}

// stood is how long the service stood still between the two versions, as far as the test
// is concerned: longer than a lock lives, than the hour that some items wait, and than an
// item may be busy.
const stood = 61 * time.Minute

// loadYesterday starts a Redis with the file, as if it had been saved that long ago.
// Records have their times relative to their creation, so it is enough to move that, the
// end, and what is sorted by time. Otherwise the time of every item would be over.
func loadYesterday(t *testing.T, planeURL string) (saved yesterday, url string, rdb *redis.Client) {
	t.Helper()
	const dir = "testdata/upgrade"
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(dir, "saved.json"))), &saved); err != nil {
		t.Fatal(err)
	}
	server := redistest.StartFrom(t, filepath.Join(dir, "dump.rdb"))
	rdb = server.Client(t)
	ctx := t.Context()
	later := time.Since(time.UnixMilli(saved.At)) - stood
	for _, id := range saved.Jobs {
		key := "reset:{" + id + "}"
		record := rdb.HGetAll(ctx, key).Val()
		if len(record) == 0 {
			t.Fatalf("%s is not in the file", key)
		}
		for _, field := range []string{"created", "end", "started"} {
			times := strings.Fields(record[field])
			for i, at := range times {
				times[i] = shift(t, at, later)
			}
			if len(times) > 0 {
				rdb.HSet(ctx, key, field, strings.Join(times, " "))
			}
		}
		for field, value := range record { // the poll's address is of a port that somebody else has now
			if strings.Contains(value, "operations") {
				rdb.HSet(ctx, key, field, strings.ReplaceAll(value, strings.TrimPrefix(saved.Plane, "http://"), strings.TrimPrefix(planeURL, "http://")))
			}
		}
	}
	for _, key := range rdb.Keys(ctx, "*").Val() {
		unit := time.Millisecond
		switch {
		case strings.HasPrefix(key, "asynq:"):
			unit = time.Second
		case key != "reset:open" && !strings.HasPrefix(key, "reset:jobs"):
			continue
		}
		if rdb.Type(ctx, key).Val() != "zset" {
			continue
		}
		for _, z := range rdb.ZRangeWithScores(ctx, key, 0, -1).Val() {
			rdb.ZIncrBy(ctx, key, float64(later/unit), z.Member.(string))
		}
	}
	for key, ttl := range saved.TTL { // what is over by now goes
		rdb.PExpire(ctx, key, time.Duration(ttl)*time.Millisecond-stood)
	}
	return saved, server.URL(), rdb
}

func shift(t *testing.T, at string, by time.Duration) string {
	t.Helper()
	ms, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatInt(ms+by.Milliseconds(), 10)
}

// planeOfToday resets whatever it is asked to, and knows that the reset which the version
// before had begun to poll is done.
type planeOfToday struct {
	mu     sync.Mutex
	resets map[string][]time.Time // by instance
	polls  int
}

func (p *planeOfToday) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Method == http.MethodGet {
		p.polls++
		_, _ = io.WriteString(w, `{"status":"succeeded"}`)
		return
	}
	instance := strings.TrimPrefix(r.URL.Path, "/")
	p.resets[instance] = append(p.resets[instance], time.Now())
}

// counts says how often each instance was reset.
func (p *planeOfToday) counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := map[string]int{}
	for instance, times := range p.resets {
		counts[instance] = len(times)
	}
	return counts
}

// upgraded is what runs after the upgrade.
type upgraded struct {
	yesterday
	t   *testing.T
	api string
}

func (u upgraded) call(tenant, method, path, body string) json.RawMessage {
	u.t.Helper()
	r, err := http.NewRequestWithContext(u.t.Context(), method, u.api+path, strings.NewReader(body))
	if err != nil {
		u.t.Fatal(err)
	}
	r.Header.Set("X-Auth-Token", u.Tokens[tenant])
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		u.t.Fatal(err)
	}
	defer func() { _ = a.Body.Close() }()
	text, err := io.ReadAll(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		u.t.Fatalf("%s %s: %s %s, %v", method, path, a.Status, text, err)
	}
	return text
}

// tenant is whose job that is.
func tenantOf(name string) string {
	if slices.Contains([]string{"limited", "halted", "stopped"}, name) {
		return name
	}
	return "acme"
}

func (u upgraded) job(name string) (job client.Job) {
	u.t.Helper()
	if err := json.Unmarshal(u.call(tenantOf(name), http.MethodGet, "/v1/jobs/"+u.Jobs[name], ""), &struct{ Data *client.Job }{&job}); err != nil {
		u.t.Fatal(err)
	}
	return job
}

// states are those of the job's items, by their first letters.
func (u upgraded) states(name string) string {
	u.t.Helper()
	letters := ""
	for _, it := range u.job(name).Items {
		letters += it.State[:1]
	}
	return letters
}

func (u upgraded) retry(name string, states ...string) {
	u.t.Helper()
	body, err := json.Marshal(map[string]any{"states": states})
	if err != nil {
		u.t.Fatal(err)
	}
	u.call(tenantOf(name), http.MethodPost, "/v1/jobs/"+u.Jobs[name]+"/retry", string(body))
}

// become waits until every job's items have these states.
func (u upgraded) become(want map[string]string) {
	u.t.Helper()
	got := map[string]string{}
	if harness.Until(u.t.Context(), patience, func(ctx context.Context) error {
		for name := range want {
			if got[name] != want[name] {
				got[name] = u.states(name)
			}
		}
		if !maps.Equal(got, want) {
			harness.Pause(ctx, 200*time.Millisecond) // a tenant may ask 100 times a second
			return errors.New("not yet")
		}
		return nil
	}) == nil {
		return
	}
	for name := range want {
		if got[name] != want[name] {
			u.t.Errorf("%s is %s, want %s: %s", name, got[name], want[name], u.job(name).Record)
		}
	}
	u.t.FailNow()
}

// Everything that the version before left behind, in whatever state it was when its last
// worker was killed, is finished as it should be: no instance is reset that may have been
// reset already, and none is forgotten.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	plane := &planeOfToday{resets: map[string][]time.Time{}}
	phones := httptest.NewServer(plane)
	defer phones.Close()
	saved, url, rdb := loadYesterday(t, phones.URL)
	unknown := "reset:{" + saved.Jobs["version1"] + "}" // what nobody understands is left as it is
	before := rdb.HGetAll(t.Context(), unknown).Val()
	delete(saved.Jobs, "version1")
	// The reset of lost-1 is in doubt, and may go on for as long as its lock.
	const lock = 40 * time.Second
	lockOver := time.Now().Add(lock)
	if err := rdb.Set(t.Context(), "reset:lock:{lost-1}", saved.Jobs["unknown"]+"-0 token", lock).Err(); err != nil {
		t.Fatal(err)
	}
	api := start(t, "api", "--redis", url, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	worker := start(t, "worker", "--redis", url, "--ops-listen", "127.0.0.1:0", "--driver", "http",
		"--driver-url", phones.URL+"/{instance_id}", "--max-attempts", "2")
	u := upgraded{yesterday: saved, t: t}
	u.api, _ = api.logged("api started")["api"].(string)
	worker.logged("worker started")

	u.become(map[string]string{
		"succeeded": "ss", "failed": "f", "unknown": "u", "cancelled": "c", // as they were
		"pending": "ss", "scheduled": "s", "retrying": "s", "busy": "s",
		"dead": "u", "checkpoint": "s", "mixed": "suf", "limited": "su", "negative": "sus",
		"halted": "p", "stopped": "p",
	})
	want := map[string]int{"ok-9": 1, "ok-10": 1, "ok-11": 1, "later-1": 1, "hang-1": 1, "later-7": 1}
	if got := plane.counts(); !maps.Equal(got, want) {
		t.Errorf("resets %v, want %v", got, want)
	}
	if plane.polls == 0 {
		t.Error("the reset that was accepted was not asked after")
	}
	for name := range saved.Jobs {
		job := u.job(name)
		for _, it := range job.Items {
			for _, at := range []time.Time{job.StartedAt, job.FinishedAt, it.StartedAt, it.FinishedAt} {
				if !at.IsZero() && at.Before(job.CreatedAt) {
					t.Errorf("%s began or ended at %s, before its job was created: %s", it.ItemID, at, job.Record)
				}
			}
		}
	}

	// A retry waits until the lock is over that the last attempt has left behind, doubt and all.
	for _, instance := range []string{"hang-1", "hang-2", "hang-4", "hang-7"} {
		rdb.Del(t.Context(), "reset:lock:{"+instance+"}")
	}
	// What was asked for in the version before still holds, and can be ended.
	environment := map[string]string{"BATCHRESET_REDIS": url}
	command(t, environment, "resume", "--tenant", "stopped").OK(t)
	command(t, environment, "resume", "--tenant", "halted").OK(t)
	for name, states := range map[string][]string{
		"failed": {"failed"}, "unknown": {"unknown"}, "cancelled": {"cancelled"}, "dead": {"unknown"},
		"mixed": {"failed", "unknown"}, "limited": {"unknown"}, "negative": {"unknown"},
	} {
		u.retry(name, states...)
	}
	u.become(map[string]string{
		"failed": "s", "unknown": "s", "cancelled": "s", "dead": "s", "mixed": "sss", "limited": "ss", "negative": "sss",
		"halted": "s", "stopped": "s",
	})
	for _, instance := range []string{"bad-1", "lost-1", "ok-8", "hang-1", "hang-2", "bad-2", "hang-4", "hang-7", "ok-5", "ok-6"} {
		want[instance]++
	}
	if got := plane.counts(); !maps.Equal(got, want) {
		t.Errorf("resets %v, want %v", got, want)
	}
	if at := plane.resets["lost-1"][0]; at.Before(lockOver) {
		t.Errorf("the reset that is in doubt was joined by another one, %s before its lock was over", lockOver.Sub(at))
	}
	if history := u.job("failed").Items[0].History; len(history) != 2 {
		t.Errorf("the history has become %+v", history)
	}
	if after := rdb.HGetAll(t.Context(), unknown).Val(); len(before) == 0 || !maps.Equal(after, before) {
		t.Errorf("the record of a version that nobody knows was %v and is %v", before, after)
	}
	worker.stop()
	api.stop()
}
