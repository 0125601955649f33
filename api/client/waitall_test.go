package client

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// crowd is a service with many jobs, each of which is final from its nth mention on.
type crowd struct {
	final   func(id string) int
	looks   map[string]*atomic.Int64
	reading func(w http.ResponseWriter) bool
	streams atomic.Int64
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	record := func(id string, count int64) string {
		state := "running"
		if c.final(id) <= int(count) {
			state = "succeeded"
		}
		return fmt.Sprintf(`{"job_id":%q,"state":%q,"total":2,"counts":{%q:2}}`, id, state, state)
	}
	path := strings.TrimPrefix(r.URL.Path, "/v1/jobs")
	if strings.HasSuffix(path, "/events") {
		c.streams.Add(1)
		w.Header().Set("Content-Type", "text/event-stream")
		id := strings.Trim(strings.TrimSuffix(path, "/events"), "/")
		if c.looks[id] == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		write(w, jobEvent("9", record(id, 9)))
		return
	}
	if path != "" {
		if c.reading != nil && c.reading(w) {
			return
		}
		id := strings.Trim(path, "/")
		if c.looks[id] == nil {
			w.WriteHeader(http.StatusNotFound)
			write(w, `{"error_code":"RESET.0001","error_msg":"no such job"}`)
			return
		}
		write(w, okay(record(id, c.looks[id].Load())))
		return
	}
	var jobs, missing []string
	for id := range strings.SplitSeq(r.URL.Query().Get("ids"), ",") {
		if c.looks[id] == nil {
			missing = append(missing, fmt.Sprintf("%q", id))
			continue
		}
		jobs = append(jobs, record(id, c.looks[id].Add(1)))
	}
	write(w, okay(fmt.Sprintf(`{"jobs":[%s],"missing":[%s]}`, strings.Join(jobs, ","), strings.Join(missing, ","))))
}

func newCrowd(t *testing.T, n int, final func(id string) int) (*crowd, *Client, *naps, []string) {
	t.Helper()
	s := &crowd{final: final, looks: map[string]*atomic.Int64{}}
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprintf("%032x", i))
		s.looks[ids[i]] = &atomic.Int64{}
	}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	c, naps := connect(t, server.URL)
	return s, c, naps, ids
}

func TestWaitAll(t *testing.T) {
	late := func(id string) int { return 1 + len(strings.TrimLeft(id, "0")) } // 1 to 4
	t.Run("asks about many by the hundred, and reads each that ended once", func(t *testing.T) {
		s, c, n, ids := newCrowd(t, 300, late)
		reads := atomic.Int64{}
		s.reading = func(http.ResponseWriter) bool { reads.Add(1); return false }
		told := map[string]string{}
		missing, err := c.WaitAll(t.Context(), append(slices.Clone(ids), "gone"), func(j Job) { told[j.ID] += j.State + " " })
		if err != nil || !slices.Equal(missing, []string{"gone"}) {
			t.Fatalf("missing %v, %v", missing, err)
		}
		for _, id := range ids {
			want := "running succeeded "
			if late(id) == 1 {
				want = "succeeded "
			}
			if told[id] != want {
				t.Errorf("job %s: told %q, want %q", id, told[id], want)
			}
			if got := s.looks[id].Load(); int(got) != late(id) {
				t.Errorf("job %s was named %d times, want %d", id, got, late(id))
			}
		}
		if reads.Load() != 300 || s.streams.Load() != 0 {
			t.Errorf("%d reads and %d streams", reads.Load(), s.streams.Load())
		}
		n.expect(t, 2*time.Second, 2*time.Second, 2*time.Second)
	})
	t.Run("streams few", func(t *testing.T) {
		s, c, n, ids := newCrowd(t, maxStreams-1, late)
		told := 0
		missing, err := c.WaitAll(t.Context(), append(ids, "gone"), func(Job) { told++ })
		if err != nil || !slices.Equal(missing, []string{"gone"}) || told != len(ids) || int(s.streams.Load()) != maxStreams {
			t.Errorf("missing %v, %v, told of %d over %d streams", missing, err, told, s.streams.Load())
		}
		n.expect(t)
	})
	t.Run("bears with an outage", func(t *testing.T) {
		s, c, _, ids := newCrowd(t, 20, func(string) int { return 1 })
		bad := atomic.Int64{}
		s.reading = func(w http.ResponseWriter) bool {
			if bad.Add(1) > 10 {
				return false
			}
			w.WriteHeader(http.StatusBadGateway)
			return true
		}
		told := 0
		if missing, err := c.WaitAll(t.Context(), ids, func(Job) { told++ }); err != nil || missing != nil || told != len(ids) {
			t.Errorf("missing %v, %v, told of %d", missing, err, told)
		}
	})
	t.Run("ends at once when the token is refused", func(t *testing.T) {
		s, c, _, ids := newCrowd(t, 20, func(string) int { return 1 })
		s.reading = func(w http.ResponseWriter) bool {
			w.WriteHeader(http.StatusUnauthorized)
			write(w, `{"error_code":"APIGW.0307","error_msg":"revoked"}`)
			return true
		}
		_, err := c.WaitAll(t.Context(), ids, func(Job) { t.Error("told") })
		wantError(t, err, "APIGW.0307")
	})
}
