package api_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/api"
	"batchreset/cmd/harness/faketime"
	"batchreset/tasks"
)

// lookInterval is how old what is known of a token may be.
const lookInterval = 250 * time.Millisecond

// endings are what can become of a token while somebody waits with it.
var endings = []struct {
	name    string
	change  func(*tasks.Token)
	status  int
	code    tasks.Code
	message string
}{
	{"revoked", func(k *tasks.Token) { k.RevokedAt = tasks.Time{Time: time.Now()} }, http.StatusUnauthorized, tasks.TokenExpired, "The token must be updated: it was revoked, get a new one"},
	{"expired", func(k *tasks.Token) { k.ExpiresAt = tasks.Time{Time: time.Now().Add(time.Millisecond)} }, http.StatusUnauthorized, tasks.TokenExpired, "The token must be updated: it has expired, get a new one"},
	{"gone", func(k *tasks.Token) { k.Tenant = "" }, http.StatusUnauthorized, tasks.BadToken, "X-Auth-Token is no longer valid"},
	{"another tenant's", func(k *tasks.Token) { k.Tenant = "other" }, http.StatusUnauthorized, tasks.BadToken, "X-Auth-Token is another tenant's now"},
	{"not for reading", func(k *tasks.Token) { k.Scopes = []tasks.Scope{tasks.ScopeSubmit} }, http.StatusForbidden, tasks.Forbidden, `the token does not have the scope "read"`},
}

func TestAStreamEndsWithItsToken(t *testing.T) {
	for _, row := range endings {
		t.Run(row.name, func(t *testing.T) {
			streaming(t, false, func(t *testing.T, s *streamed) {
				faketime.Pass(time.Minute + lookInterval/2) // between two looks
				begin := time.Now()
				s.setToken(row.change)
				s.change(tasks.JobSucceeded) // which is not told any more
				s.ended.Wait()
				if late := time.Since(begin); late > lookInterval {
					t.Errorf("it ends %s late", late)
				}
				want := fmt.Sprintf("event: error\ndata: {\"error_code\":%q,\"error_msg\":%q}\n\n", row.code, row.message)
				if got := s.String(); !strings.HasSuffix(got, "\n\n"+want) || strings.Contains(got, "succeeded\",\"request_id") {
					t.Errorf("the stream says %q", got)
				}
			})
		})
	}
}

func TestALongPollEndsWithItsToken(t *testing.T) {
	for _, row := range endings {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBoard(1)
				a, stop := runOn(t, b, roomy, slog.New(slog.DiscardHandler))
				defer stop()
				begin := time.Now()
				time.AfterFunc(10*time.Second, func() { b.setToken(row.change) })
				got := service{Handler: a}.do(t, http.MethodGet, b.path(), "acme", nil, "Prefer", "wait=50")
				if got.status != row.status || got.Code != row.code || got.Message != row.message {
					t.Errorf("answer %+v", got)
				}
				if late := time.Since(begin) - 10*time.Second; late > lookInterval {
					t.Errorf("it ends %s late", late)
				}
			})
		})
	}
}

// What cannot be checked is not told; a stream is not cut off for that.
func TestNothingIsToldWhileTokensCannotBeLookedAt(t *testing.T) {
	streaming(t, false, func(t *testing.T, s *streamed) {
		away := func(is bool) {
			s.board.mu.Lock()
			defer s.board.mu.Unlock()
			s.tokenAway = is
		}
		faketime.Pass(time.Second)
		before := s.String()
		away(true)
		faketime.Pass(time.Second)
		s.change(tasks.JobSucceeded)
		faketime.Pass(10 * time.Second)
		if got := s.String(); got != before {
			t.Errorf("the stream goes on with %q", strings.TrimPrefix(got, before))
		}
		away(false)
		begin := time.Now()
		s.ended.Wait()
		if late := time.Since(begin); late > time.Second || !strings.Contains(s.String(), `"state":"succeeded"`) {
			t.Errorf("%s late the stream says %q", late, s.String())
		}
	})
}

func TestManyWhoWaitWithOneTokenCostOneLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(1)
		a, stop := runOn(t, b, api.Config{MaxWaiters: 10_000}, slog.New(slog.DiscardHandler))
		defer stop()
		done := make(chan struct{})
		for range 1000 {
			go func() {
				watching(t.Context(), a, b, &window{})
				done <- struct{}{}
			}()
		}
		faketime.Pass(10 * time.Second)
		b.mu.Lock()
		looks := b.tokens
		b.mu.Unlock()
		if looks < 38 || looks > 42 {
			t.Errorf("%d looks at the token in 10 s, want 4 a second", looks)
		}
		b.change(tasks.JobSucceeded)
		for range 1000 {
			<-done
		}
		faketime.Pass(time.Second) // nobody is left
		b.mu.Lock()
		looks = b.tokens
		b.mu.Unlock()
		faketime.Pass(10 * time.Second)
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.tokens != looks {
			t.Errorf("%d looks while nobody waits", b.tokens-looks)
		}
	})
}

// On a real Redis, with what 'batchreset token revoke' and 'token add' do.
func TestRevokedAndChangedTokensEndStreamsAndPolls(t *testing.T) {
	l := newLive(t)
	id := l.submit(t, "phone-1")
	for _, row := range []struct {
		name string
		end  func(token tasks.Token) error
		code tasks.Code
	}{
		{"revoked", func(k tasks.Token) error {
			_, err := l.db.Tokens.Revoke(t.Context(), k.ID, tasks.Actor{})
			return err
		}, tasks.TokenExpired},
		{"made again for less", func(tasks.Token) error {
			_, err := l.db.Tokens.Add(t.Context(), "made again for less", tasks.Token{Tenant: "acme", Scopes: []tasks.Scope{tasks.ScopeSubmit}}, 0, tasks.Actor{})
			return err
		}, tasks.Forbidden},
		{"made again for a moment", func(tasks.Token) error {
			_, err := l.db.Tokens.Add(t.Context(), "made again for a moment", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, 100*time.Millisecond, tasks.Actor{})
			return err
		}, tasks.TokenExpired},
	} {
		t.Run(row.name, func(t *testing.T) {
			token, err := l.db.Tokens.Add(t.Context(), row.name, tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, 0, tasks.Actor{})
			if err != nil {
				t.Fatal(err)
			}
			stream := l.getAs(t, row.name, "/v1/jobs/"+id+"/events")
			polled := make(chan reply, 1)
			go func() {
				polled <- l.do(t, http.MethodGet, "/v1/jobs/"+id, row.name, nil, "Prefer", "wait=50")
			}()
			l.wait(t, 2)
			begin := time.Now()
			if err := row.end(token); err != nil {
				t.Fatal(err)
			}
			var last event
			readEvents(t, stream.Body, func(e event) { last = e })
			_ = stream.Body.Close()
			if last.name != "error" || !strings.Contains(last.data, string(row.code)) {
				t.Errorf("the last event is %+v", last)
			}
			if got := <-polled; got.Code != row.code {
				t.Errorf("the poll is answered %+v", got)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("they end %s late", took)
			}
			l.wait(t, 0)
		})
	}
}
