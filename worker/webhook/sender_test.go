package webhook

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/goleak"

	"batchreset/tasks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	newSecret = "whsec_bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3"
	oldSecret = "whsec_b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xk"
)

// receiver is an endpoint with what it was sent last.
type receiver struct {
	*httptest.Server
	header http.Header
	body   []byte
	calls  int
}

func newReceiver(t *testing.T, answer http.HandlerFunc) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.calls++
		r.header = req.Header
		r.body, _ = io.ReadAll(req.Body)
		answer(w, req)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) endpoint() tasks.Endpoint {
	return tasks.Endpoint{ID: "ep_1", URL: r.URL + "/hooks?key=s3cret", Secret: newSecret}
}

func newSender(t *testing.T, allowPrivate bool) *Sender {
	t.Helper()
	s := NewSender("batchreset/test", allowPrivate, time.Now)
	t.Cleanup(s.Close)
	return s
}

func verify(t *testing.T, r *receiver, secret string) error {
	t.Helper()
	verifier, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	return verifier.Verify(r.body, r.header)
}

func TestASignedRequest(t *testing.T) {
	r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, "thanks\n"+strings.Repeat("x", 2*maxReply))
	})
	body := []byte(`{"type":"job.finished","data":{"a":"\u003c"}}`)
	got := newSender(t, true).Send(t.Context(), r.endpoint(), "job-finished-1", body)
	if got.Err != nil || got.Status != http.StatusAccepted || got.RetryAfter != 7*time.Second ||
		len(got.Text) != maxReply || !strings.HasPrefix(got.Text, "thanks x") {
		t.Errorf("reply %d %s %v %q", got.Status, got.RetryAfter, got.Err, got.Text)
	}
	if err := verify(t, r, newSecret); err != nil || string(r.body) != string(body) {
		t.Errorf("%v, body %s", err, r.body)
	}
	sent, err := strconv.ParseInt(r.header.Get("webhook-timestamp"), 10, 64)
	if d := time.Since(time.Unix(sent, 0)); err != nil || d < 0 || d > time.Minute {
		t.Errorf("sent %s ago, %v", d, err)
	}
	for name, want := range map[string]string{
		"webhook-id": "job-finished-1", "Content-Type": "application/json", "User-Agent": "batchreset/test",
	} {
		if got := r.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestBothSecretsSignInTheOverlap(t *testing.T) {
	r := newReceiver(t, func(http.ResponseWriter, *http.Request) {})
	s, e := newSender(t, true), r.endpoint()
	e.OldSecret, e.OldUntil = oldSecret, tasks.Time{Time: time.Now().Add(time.Hour)}
	if got := s.Send(t.Context(), e, "id", []byte("{}")); got.Status != http.StatusOK {
		t.Fatalf("reply %+v", got)
	}
	if err := errors.Join(verify(t, r, newSecret), verify(t, r, oldSecret)); err != nil {
		t.Error(err)
	}
	e.OldUntil = tasks.Time{Time: time.Now()}
	if got := s.Send(t.Context(), e, "id", []byte("{}")); got.Status != http.StatusOK {
		t.Fatalf("reply %+v", got)
	}
	if err := verify(t, r, newSecret); err != nil {
		t.Error(err)
	}
	if verify(t, r, oldSecret) == nil {
		t.Error("the old secret signs for ever")
	}
}

// The clock of this machine is hours ahead of Redis's, which the overlap goes by.
func TestTheOldSecretSignsByRedissClock(t *testing.T) {
	r := newReceiver(t, func(http.ResponseWriter, *http.Request) {})
	s, e := newSender(t, true), r.endpoint()
	redis := time.Now().Add(-3 * time.Hour)
	s.now = func() time.Time { return redis }
	e.OldSecret, e.OldUntil = oldSecret, tasks.Time{Time: redis.Add(time.Hour)}
	if got := s.Send(t.Context(), e, "id", []byte("{}")); got.Status != http.StatusOK {
		t.Fatalf("reply %+v", got)
	}
	if n := len(strings.Fields(r.header.Get("webhook-signature"))); n != 2 {
		t.Errorf("%d signatures, want one of each secret", n)
	}
	if got := r.header.Get("webhook-timestamp"); got != strconv.FormatInt(redis.Unix(), 10) {
		t.Errorf("signed at %s, want %d", got, redis.Unix())
	}
}

func TestNothingIsSentToAPrivateAddress(t *testing.T) {
	r := newReceiver(t, func(http.ResponseWriter, *http.Request) {})
	s, e := newSender(t, false), r.endpoint()
	// A name is as good as its address: this one changed after it was checked.
	byName := e
	byName.URL = strings.Replace(e.URL, "127.0.0.1", "localhost", 1)
	for _, e := range []tasks.Endpoint{e, byName} {
		got := s.Send(t.Context(), e, "id", []byte("{}"))
		if got.Err == nil || !strings.Contains(got.Err.Error(), "not a permitted destination") {
			t.Errorf("%s: %+v", e.URL, got)
		}
	}
	// A proxy would resolve the name itself.
	t.Setenv("HTTP_PROXY", r.URL)
	t.Setenv("HTTPS_PROXY", r.URL)
	e.URL = "http://nowhere.invalid/"
	if got := s.Send(t.Context(), e, "id", []byte("{}")); got.Err == nil {
		t.Errorf("through a proxy: %+v", got)
	}
	if r.calls != 0 {
		t.Errorf("%d requests got through", r.calls)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	target := newReceiver(t, func(http.ResponseWriter, *http.Request) {})
	for _, status := range []int{301, 302, 303, 307, 308} {
		r := newReceiver(t, func(w http.ResponseWriter, req *http.Request) { http.Redirect(w, req, target.URL, status) })
		if got := newSender(t, true).Send(t.Context(), r.endpoint(), "id", []byte("{}")); got.Err != nil || got.Status != status {
			t.Errorf("%d: %+v", status, got)
		}
	}
	if target.calls != 0 {
		t.Errorf("%d were followed", target.calls)
	}
}

func TestWhatGoesWrong(t *testing.T) {
	t.Run("a receiver that does not answer is left", func(t *testing.T) {
		release := make(chan struct{})
		r := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-release })
		defer close(release)
		s := newSender(t, true)
		s.timeout = 20 * time.Millisecond
		if got := s.Send(t.Context(), r.endpoint(), "id", []byte("{}")); got.Err == nil || got.Err.Error() != "no answer within 20ms" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("who asks may wait for less", func(t *testing.T) {
		release := make(chan struct{})
		r := newReceiver(t, func(http.ResponseWriter, *http.Request) { <-release })
		defer close(release)
		s := newSender(t, true)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if got := s.Send(ctx, r.endpoint(), "id", []byte("{}")); got.Err == nil || got.Err.Error() != "no answer within 200ms" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("an answer that does not end is an answer", func(t *testing.T) {
		release := make(chan struct{})
		r := newReceiver(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-release
		})
		defer close(release)
		s := newSender(t, true)
		s.timeout = time.Second
		if got := s.Send(t.Context(), r.endpoint(), "id", []byte("{}")); got.Err != nil || got.Status != http.StatusOK {
			t.Errorf("%+v", got)
		}
	})
	t.Run("an error does not tell the URL", func(t *testing.T) {
		r := newReceiver(t, func(http.ResponseWriter, *http.Request) {})
		r.Close()
		got := newSender(t, true).Send(t.Context(), r.endpoint(), "id", []byte("{}"))
		if got.Err == nil || strings.Contains(got.Err.Error(), "s3cret") || !strings.Contains(got.Err.Error(), "refused") {
			t.Errorf("%+v", got)
		}
	})
	t.Run("a caller that goes away ends it", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		release := make(chan struct{})
		r := newReceiver(t, func(http.ResponseWriter, *http.Request) {
			cancel()
			<-release
		})
		defer close(release)
		if got := newSender(t, true).Send(ctx, r.endpoint(), "id", []byte("{}")); !strings.Contains(got.Err.Error(), "canceled") {
			t.Errorf("%+v", got)
		}
	})
}
