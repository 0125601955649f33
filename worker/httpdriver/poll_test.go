package httpdriver

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"batchreset/worker"
)

// accepting is an upstream that accepts with 202 and then answers polls with
// one step after the other, the last one for ever.
func accepting(t *testing.T, location string, steps ...http.HandlerFunc) (url string, posts *atomic.Int32) {
	t.Helper()
	posts = new(atomic.Int32)
	var polls atomic.Int32
	url = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			posts.Add(1)
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusAccepted)
			return
		}
		steps[min(int(polls.Add(1)), len(steps))-1](w, r)
	})
	return url, posts
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// over ends a poll.
const over = `{"status":"done"}`

func TestAnAcceptedResetIsPolled(t *testing.T) {
	for _, row := range []struct {
		name    string
		steps   []http.HandlerFunc
		verdict worker.Verdict
		message string
	}{
		{"until it is done", []http.HandlerFunc{says(202, ""), says(202, ""), says(200, over)}, "", ""},
		{"until it leads to the result", []http.HandlerFunc{says(202, ""), says(303, "")}, "", ""},
		{"while it is running", []http.HandlerFunc{says(200, `{"status":"InProgress"}`), says(200, `{"done":false}`), says(200, `{"status":"Succeeded"}`)}, "", ""},
		{"while a numeric status is running", []http.HandlerFunc{says(200, `{"status":1,"error_code":0}`), says(200, `{"status":2}`)}, "", ""},
		{"through trouble of the upstream", []http.HandlerFunc{says(503, ""), says(429, ""), says(500, "<html>"), says(200, over)}, "", ""},
		{"through what says nothing", []http.HandlerFunc{says(204, ""), says(200, ""), says(200, "{}"), says(200, "<html>Log in</html>"), says(200, `{"status":"wiping"}`), says(200, over)}, "", ""},
		{"through refusals, which are not the reset's", []http.HandlerFunc{says(401, ""), says(403, ""), says(404, ""), says(410, ""), says(302, ""), says(200, over)}, "", ""},
		{"through a lost connection", []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, says(200, over)}, "", ""},
		{"through an answer that is cut off", []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, over)
		}, says(200, over)}, "", ""},
		{"until it failed", []http.HandlerFunc{says(200, `{"status":-1,"error_code":"CPS.0054","error_msg":"job timed out"}`)}, worker.Retryable, "job timed out"},
		{"until it was cancelled", []http.HandlerFunc{says(200, `{"status":"Canceled"}`)}, worker.Retryable, ""},
		{"until it has an error code", []http.HandlerFunc{says(200, `{"error_code":"CPS.0054"}`)}, worker.Retryable, "failed: 200 OK"},
	} {
		t.Run(row.name, func(t *testing.T) {
			url, posts := accepting(t, "/operations/7", row.steps...)
			a := attempt()
			saved := ""
			a.Save = func(_ context.Context, checkpoint string) error {
				saved = checkpoint
				return nil
			}
			err := newDriver(t, Config{URL: url}).Reset(t.Context(), a)
			if row.verdict == "" && err != nil {
				t.Errorf("got %v", err)
			} else if row.verdict != "" {
				if e := wantVerdict(t, err, row.verdict); !strings.Contains(e.Message, row.message) || !e.EndsDoubt {
					t.Errorf("got %+v", e)
				}
			}
			if saved != url+"/operations/7" {
				t.Errorf("saved %q", saved)
			}
			if posts.Load() != 1 {
				t.Errorf("%d POSTs", posts.Load())
			}
		})
	}
}

func TestAnAcceptedResetThatNothingUnderstandableIsHeardOfIsUnknown(t *testing.T) {
	for _, row := range []struct {
		name    string
		step    http.HandlerFunc
		code    string
		message string
	}{
		{"a word that is not known", says(200, `{"status":"wiping"}`), worker.NotUnderstood, `its state "wiping" is not known`},
		{"a log-in page", says(200, "<html>"), worker.NotUnderstood, "not a JSON object"},
		{"nothing", says(204, ""), worker.NotUnderstood, "204 No Content"},
		{"it is forgotten", says(404, ""), worker.NotUnderstood, "404 Not Found"},
		{"it leads elsewhere", says(302, ""), worker.NotUnderstood, "302 Found"},
		{"a refusal of the token", says(401, ""), worker.NotUnderstood, "--driver-token-file"},
		{"it is running", says(200, `{"status":"running"}`), "", "200 OK"},
		{"a gateway's page", says(502, "<html>"), "", "502 Bad Gateway"},
		{"nobody", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "", "could not be asked"},
	} {
		t.Run(row.name, func(t *testing.T) {
			asked := make(chan struct{}, 1000)
			url, posts := accepting(t, "/operations/7", func(w http.ResponseWriter, r *http.Request) {
				select {
				case asked <- struct{}{}:
				default:
				}
				row.step(w, r)
			})
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				for range 3 {
					<-asked
				}
				cancel() // the attempt's time is over
			}()
			e := wantVerdict(t, newDriver(t, Config{URL: url}).Reset(ctx, attempt()), worker.Unknown)
			if e.Code != row.code || !strings.Contains(e.Message, row.message) || !e.Repeatable || e.EndsDoubt {
				t.Errorf("got %+v", e)
			}
			if posts.Load() != 1 {
				t.Errorf("%d POSTs", posts.Load())
			}
		})
	}
}

func TestAFailureEndsTheDoubt(t *testing.T) {
	const failed = `{"status":"failed"}`
	url := serve(t, says(200, failed))
	a := attempt()
	a.Ambiguous, a.Checkpoint = true, url+"/operations/7"
	if e := wantVerdict(t, newDriver(t, Config{URL: url}).Reset(t.Context(), a), worker.Retryable); !e.EndsDoubt {
		t.Errorf("a poll of its own location: %+v", e)
	}
	a.Checkpoint = ""
	if e := wantVerdict(t, newDriver(t, Config{URL: url, Idempotent: true}).Reset(t.Context(), a), worker.Retryable); !e.EndsDoubt {
		t.Errorf("the answer to a repeat under the same key: %+v", e)
	}
	for _, status := range []int{400, 401, 403, 404, 409, 429, 500, 503} {
		url := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Retry-After", "1")
			says(status, failed)(w, r)
		})
		err := newDriver(t, Config{URL: url, Idempotent: true, Definite: []int{500}}).Reset(t.Context(), a)
		if e, ok := errors.AsType[*worker.DriverError](err); !ok || e.EndsDoubt {
			t.Errorf("a refusal of the repeat: %+v", e)
		}
	}
}

func TestAPollThatHangsIsGivenUp(t *testing.T) {
	url, _ := accepting(t, "/operations/7", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, says(200, over))
	d := newDriver(t, Config{URL: url})
	d.pollTimeout = 50 * time.Millisecond
	if err := d.Reset(t.Context(), attempt()); err != nil {
		t.Error(err)
	}
}

func TestAnAcceptedResetIsSavedBeforeTheFirstPoll(t *testing.T) {
	var saved atomic.Bool
	url, _ := accepting(t, "/operations/7", func(w http.ResponseWriter, _ *http.Request) {
		if !saved.Load() {
			t.Error("polled before it was saved")
		}
		_, _ = io.WriteString(w, over)
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	a := attempt()
	a.Save = func(ctx context.Context, _ string) error {
		cancel() // what was accepted in the last moment is saved all the same
		saved.Store(true)
		return ctx.Err()
	}
	if e := wantVerdict(t, newDriver(t, Config{URL: url}).Reset(ctx, a), worker.Unknown); !e.Repeatable {
		t.Error("cannot be resumed")
	}
	a.Save = func(context.Context, string) error { saved.Store(true); return nil }
	saved.Store(false)
	if err := newDriver(t, Config{URL: url}).Reset(t.Context(), a); err != nil {
		t.Error(err)
	}
}

func TestAnAcceptedResetIsPolledThoughItsAnswerIsCutOff(t *testing.T) {
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.Header().Set("Operation-Location", "operations/7")
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusAccepted)
			return
		}
		if r.URL.Path != "/phones/phone-1/operations/7" {
			t.Errorf("polled %s", r.URL)
		}
		_, _ = io.WriteString(w, over)
	})
	if err := newDriver(t, Config{URL: url}).Reset(t.Context(), attempt()); err != nil {
		t.Error(err)
	}
}

func TestPollsWaitAsLongAsTheyAreAsked(t *testing.T) {
	polled := make(chan struct{}, 10)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			polled <- struct{}{}
		}
		w.Header().Set("Location", "/operations/7")
		w.Header().Set("Retry-After", "3600")
		w.WriteHeader(http.StatusAccepted)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	a := attempt()
	a.Checkpoint = url + "/operations/7" // asked at once, then not for an hour
	wantVerdict(t, newDriver(t, Config{URL: url}).Reset(ctx, a), worker.Unknown)
	if len(polled) != 1 {
		t.Errorf("polled %d times", len(polled))
	}
}

func TestRunningOutOfTimeWhilePolling(t *testing.T) {
	for name, row := range map[string]struct {
		save       error
		repeatable bool
	}{
		"can be resumed where the checkpoint was saved": {nil, true},
		"cannot be resumed where it could not be saved": {errors.New("Redis is away"), false},
	} {
		t.Run(name, func(t *testing.T) {
			url, _ := accepting(t, "/operations/7", says(202, ""))
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			a := attempt()
			a.Save = func(context.Context, string) error { return row.save }
			if e := wantVerdict(t, newDriver(t, Config{URL: url}).Reset(ctx, a), worker.Unknown); e.Repeatable != row.repeatable {
				t.Errorf("repeatable is %t", e.Repeatable)
			}
		})
	}
}

func TestOrigins(t *testing.T) {
	target, err := url.Parse("https://phones.example/phones/1/reset")
	if err != nil {
		t.Fatal(err)
	}
	for location, want := range map[string]string{
		"/operations/7":                           "https://phones.example/operations/7",
		"../7?x=1#part":                           "https://phones.example/phones/7?x=1",
		"https://Phones.Example:443/7":            "https://Phones.Example:443/7",
		"https://user:password@phones.example/7":  "https://phones.example/7",
		"http://phones.example/7":                 "",
		"https://phones.example:8443/7":           "",
		"https://phones.example.evil.example/7":   "",
		"https://phones.example@evil.example/7":   "",
		"//evil.example/7":                        "",
		"file:///etc/passwd":                      "",
		"https://phones.example/%zz":              "",
		"https://phones.example\\@evil.example/7": "",
	} {
		got, err := sameOrigin(target, location)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s leads to %q, %v", location, got, err)
		}
	}
}

func TestTheTokenDoesNotFollowALocationToAnotherHost(t *testing.T) {
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("another host was asked") })
	url, _ := accepting(t, elsewhere+"/operations/7", says(200, ""))
	e := wantVerdict(t, newDriver(t, Config{URL: url, Token: "secret"}).Reset(t.Context(), attempt()), worker.Unknown)
	if !strings.Contains(e.Message, "another host") {
		t.Errorf("got %+v", e)
	}
	a := attempt()
	a.Checkpoint = elsewhere + "/operations/7"
	wantVerdict(t, newDriver(t, Config{URL: url, Token: "secret"}).Reset(t.Context(), a), worker.Unknown)
}
