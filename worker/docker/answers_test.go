package docker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"batchreset/worker"
	"batchreset/worker/docker/enginetest"
)

// says answers every call with this.
func says(status int, body string) trip {
	return func(r *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
}

// fake is a driver whose engine is a function.
func fake(t *testing.T, engine trip) *Driver {
	t.Helper()
	d, err := New(Config{Host: "unix:///nowhere.sock"})
	if err != nil {
		t.Fatal(err)
	}
	d.client.Transport = engine
	d.pause = time.Millisecond
	return d
}

// unsent is an attempt that must not ask whether it may send.
func unsent(t *testing.T) worker.Attempt {
	return worker.Attempt{InstanceID: "one", Key: "KEY", MaySend: func() error {
		t.Error("MaySend was asked")
		return nil
	}}
}

const version = `{"Version":"20.10.24","ApiVersion":"1.41"}`

// after answers the question for the version well, and everything else in another way.
func after(then trip) trip {
	return func(r *http.Request) (*http.Response, error) {
		if r.URL.Path == "/version" {
			return says(http.StatusOK, version)(r)
		}
		return then(r)
	}
}

func TestAnswersBeforeThePhoneIsTouched(t *testing.T) {
	for name, test := range map[string]struct {
		engine trip
		want   worker.Verdict
		text   string
	}{
		"nobody listens":           {func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }, worker.Unreachable, "connection refused"},
		"the connection is lost":   {after(func(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }), worker.Unreachable, "unexpected EOF"},
		"401":                      {after(says(http.StatusUnauthorized, `{"message":"who are you?"}`)), worker.Unreachable, "401: who are you?"},
		"403 of a proxy":           {after(says(http.StatusForbidden, "<h1>403</h1>")), worker.Unreachable, "<h1>403</h1>"},
		"400":                      {after(says(http.StatusBadRequest, `{"message":"client version 1.41 is too old"}`)), worker.Permanent, "too old"},
		"500":                      {after(says(http.StatusInternalServerError, `{"message":"disk full"}`)), worker.Retryable, "500: disk full"},
		"502 of a proxy":           {after(says(http.StatusBadGateway, "")), worker.Retryable, "502"},
		"a redirect":               {after(says(http.StatusFound, "")), worker.Retryable, "302"},
		"no JSON":                  {after(says(http.StatusOK, "<html>")), worker.Retryable, "not understood"},
		"JSON that is cut off":     {after(says(http.StatusOK, `[{"Id":"ab`)), worker.Retryable, "not understood"},
		"JSON of another shape":    {after(says(http.StatusOK, `{"Id":"ab"}`)), worker.Retryable, "not understood"},
		"an ID that is none":       {after(says(http.StatusOK, `[{"Id":"../x","Names":["/one"],"Labels":{"batchreset.instance":"one"}}]`)), worker.Retryable, "is not the ID of a container"},
		"no container":             {after(says(http.StatusOK, `[]`)), worker.Permanent, "no container has the label batchreset.instance=one"},
		"no container, as null":    {after(says(http.StatusOK, `null`)), worker.Permanent, "no container has the label batchreset.instance=one"},
		"an API that is too old":   {says(http.StatusOK, `{"ApiVersion":"1.40"}`), worker.Unreachable, `version "1.40"`},
		"an API of another kind":   {says(http.StatusOK, `{"ApiVersion":"4.0/../x"}`), worker.Unreachable, `version "4.0/../x"`},
		"something else's version": {says(http.StatusOK, `{"version":"3"}`), worker.Unreachable, `version ""`},
	} {
		t.Run(name, func(t *testing.T) {
			d := fake(t, test.engine)
			_ = mustFail(t, d.Reset(t.Context(), unsent(t)), test.want, test.text)
			if _, err := d.Look(t.Context(), unsent(t)); err == nil {
				t.Error("there is something to see")
			}
		})
	}
}

func TestWhatComesAfterTheEndOfTheAttemptIsNotSent(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(context.Context) (context.Context, context.CancelFunc)
		want worker.Verdict
	}{
		"stopped": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}, worker.NotSent},
		"too late": {func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, -time.Second)
		}, worker.Unreachable},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := test.end(t.Context())
			defer cancel()
			d := fake(t, func(r *http.Request) (*http.Response, error) { return nil, r.Context().Err() })
			_ = mustFail(t, d.Reset(ctx, unsent(t)), test.want, "nothing was done to the phone")
		})
	}
}

func TestAnEngineThatKnowsNoFilters(t *testing.T) {
	list := `[{"Id":"` + strings.Repeat("a", 64) + `","Names":["/other"],"Labels":{"batchreset.instance":"other"}},
		{"Id":"` + strings.Repeat("b", 64) + `","Names":["/none"],"Labels":{}}]`
	d := fake(t, after(says(http.StatusOK, list)))
	_ = mustFail(t, d.Reset(t.Context(), unsent(t)), worker.Permanent, "no container has the label batchreset.instance=one")
}

// TestAPhoneThatOthersWorkAtIsBusy has the attempt's time end in the middle of a call. That is no
// sign that the engine cannot be reached.
func TestAPhoneThatOthersWorkAtIsBusy(t *testing.T) {
	id := strings.Repeat("a", 64)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	moved := false
	d := fake(t, after(func(r *http.Request) (*http.Response, error) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/"+id+"/json"):
			moved = true
			return says(http.StatusOK, `{"Id":"`+id+`","Name":"/renamed","Config":{},"HostConfig":{}}`)(r)
		case moved:
			<-r.Context().Done()
			return nil, r.Context().Err()
		}
		return says(http.StatusOK, `[{"Id":"`+id+`","Names":["/one"],"Labels":{}}]`)(r)
	}))
	a := unsent(t)
	a.Address = "one"
	_ = mustFail(t, d.Reset(ctx, a), worker.Busy, "changed by somebody else")
}

// endless is an answer that never ends.
type endless struct{ piece string }

func (e endless) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		n += copy(p[n:], e.piece)
	}
	return n, nil
}

func TestAnEndlessAnswerIsCutOff(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		start  string
		piece  string
	}{
		"a list":    {http.StatusOK, "[", `{"Id":"x","Names":["/one"]},`},
		"a text":    {http.StatusOK, `"`, "x"},
		"a refusal": {http.StatusInternalServerError, "", "no "},
	} {
		t.Run(name, func(t *testing.T) {
			d := fake(t, after(func(r *http.Request) (*http.Response, error) {
				body := io.MultiReader(strings.NewReader(test.start), endless{test.piece})
				return &http.Response{StatusCode: test.status, Header: http.Header{}, Body: io.NopCloser(body), Request: r}, nil
			}))
			var before, now runtime.MemStats
			runtime.ReadMemStats(&before)
			e := mustFail(t, d.Reset(t.Context(), unsent(t)), worker.Retryable, "")
			runtime.ReadMemStats(&now)
			if used := now.TotalAlloc - before.TotalAlloc; used > 16*maxAnswer {
				t.Errorf("%d bytes were used", used)
			}
			if len(e.Message) > maxMessage {
				t.Errorf("the message has %d bytes", len(e.Message))
			}
		})
	}
}

func TestTheFirstThingInAnArchive(t *testing.T) {
	root, err := enginetest.Root([]byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	folder := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	header := root[2*512 : 3*512] // of data/, after init and its content
	zeros := make([]byte, tarEnd)
	for name, test := range map[string]struct {
		archive []byte
		want    string
		broken  bool
	}{
		"an empty folder":          {folder(header, zeros), "", false},
		"a folder with a file":     {folder(header, root[:1024], zeros), "init", false},
		"cut off after the folder": {folder(header), "", true},
		"cut off in the end":       {folder(header, zeros[:512]), "", true},
		"cut off in the file":      {folder(header, root[:300]), "", true},
		"a file":                   {folder(root[:1024], zeros), "", true},
		"nothing":                  {nil, "", true},
		"no archive":               {[]byte(strings.Repeat("garbage ", 200)), "", true},
	} {
		t.Run(name, func(t *testing.T) {
			first, err := firstIn(bytes.NewReader(test.archive))
			if first != test.want || (err != nil) != test.broken {
				t.Errorf("%q, %v", first, err)
			}
		})
	}
}

func TestTheOutputOfAProgramIsJoined(t *testing.T) {
	frame := func(text string) string { return "\x01\x00\x00\x00\x00\x00\x00" + string(rune(len(text))) + text }
	for name, test := range map[string]struct{ body, want string }{
		"two frames":     {frame("a b") + frame(" c\n"), "a b c"},
		"nothing":        {"", ""},
		"cut off":        {frame("a") + frame("bcd")[:10], "abc"},
		"cut in a frame": {frame("a") + "\x01\x00\x00", "a"},
		"a huge frame":   {"\x01\x00\x00\x00\xff\xff\xff\xff" + strings.Repeat("x", 3*maxOutput), strings.Repeat("x", maxOutput-8)},
	} {
		t.Run(name, func(t *testing.T) {
			response, _ := says(http.StatusOK, test.body)(nil) //nolint:bodyclose // output does
			if got := output(response); got != test.want {
				t.Errorf("got %d bytes: %.40q", len(got), got)
			}
		})
	}
}
