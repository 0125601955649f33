package httpdriver

import (
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/api/relaytest"
	"batchreset/cmd/harness/faketime"
)

// TestPollingOverConnectionsThatGoDead has more of them than there are polls.
func TestPollingOverConnectionsThatGoDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Bool
		relay := relaytest.Start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			faketime.Pass(time.Second)
			if r.URL.Path == "/short" || ended.Load() {
				says(http.StatusOK, over)(w, r)
				return
			}
			says(http.StatusOK, `{"status":"running"}`)(w, r)
		}))
		d, err := New(Config{URL: "http://phones.example/{instance_id}"})
		if err != nil {
			t.Fatal(err)
		}
		relay.Carry(d.poller, false)
		follow := func(path string) {
			a := attempt()
			a.Checkpoint = "http://phones.example/" + path
			if err := d.Reset(t.Context(), a); err != nil {
				t.Error(err)
			}
		}
		var all, short sync.WaitGroup
		all.Go(func() { follow("long") })
		for range 5 {
			short.Go(func() { follow("short") })
		}
		short.Wait()
		relay.Swallow()
		ended.Store(true)
		began := time.Now()
		all.Wait()
		if took := time.Since(began); took > time.Minute {
			t.Errorf("heard of the end after %s", took)
		}
		d.Close()
	})
}
