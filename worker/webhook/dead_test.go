package webhook

import (
	"io"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/api/relaytest"
	"batchreset/cmd/harness/faketime"
	"batchreset/tasks"
)

// throughRelay gives f, in a bubble whose time is not real, a sender with kept connections
// that have gone dead.
func throughRelay(t *testing.T, http2 bool, f func(send func() Reply, relay *relaytest.Relay)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		relay := relaytest.Start(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { faketime.Pass(time.Second) }))
		s := newSender(t, true)
		relay.Carry(s.client.Transport.(*http.Transport), http2)
		send := func() Reply {
			return s.Send(t.Context(), tasks.Endpoint{ID: "ep_1", URL: "http://receiver.example", Secret: newSecret}, "job-finished-1", []byte(`{}`))
		}
		var sending sync.WaitGroup
		for range 3 { // side by side, for which HTTP/1.1 needs three
			sending.Go(func() {
				if got := send(); got.Err != nil {
					t.Error(got.Err)
				}
			})
		}
		sending.Wait()
		relay.Swallow()
		f(send, relay)
		s.Close()
	})
}

// The next try but one may be minutes away.
func TestTheSecondTryDoesNotMeetADeadConnectionAgain(t *testing.T) {
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			throughRelay(t, http2, func(send func() Reply, _ *relaytest.Relay) {
				if got := send(); got.Err == nil {
					t.Errorf("a dead connection answered %d", got.Status)
				}
				faketime.Pass(5 * time.Second)
				if got := send(); got.Status != http.StatusOK {
					t.Errorf("the second try: %+v", got)
				}
			})
		})
	}
}

func TestADeadConnectionIsNoticedWhileNothingIsSent(t *testing.T) {
	throughRelay(t, true, func(send func() Reply, _ *relaytest.Relay) {
		faketime.Pass(2*pingAfter + time.Second)
		if got := send(); got.Status != http.StatusOK {
			t.Errorf("sent into a dead connection: %+v", got)
		}
	})
}

func TestASlowReceiverCostsOthersNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		relay := relaytest.Start(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.Host == "slow.example" {
				_, _ = io.Copy(io.Discard, r.Body) // then the server notices that the sender hangs up
				<-r.Context().Done()
			}
		}))
		s := newSender(t, true)
		relay.Carry(s.client.Transport.(*http.Transport), false)
		send := func(host string) Reply {
			return s.Send(t.Context(), tasks.Endpoint{ID: "ep_1", URL: "http://" + host, Secret: newSecret}, "job-finished-1", []byte(`{}`))
		}
		for range 3 {
			if got := send("quick.example"); got.Err != nil {
				t.Error(got.Err)
			}
			if got := send("slow.example"); got.Err == nil {
				t.Errorf("answered %d", got.Status)
			}
		}
		if n := relay.Connections(); n != 4 {
			t.Errorf("%d connections, want 1 for the quick one and 3 for the slow one", n)
		}
		s.Close()
	})
}
