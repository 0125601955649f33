package api_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/api"
	"batchreset/cmd/harness"
	"batchreset/cmd/harness/faketime"
	"batchreset/tasks"
)

var roomy = api.Config{MaxWaiters: 10}

// window is a reader of a stream who takes what is written when the test lets it.
type window struct {
	*httptest.ResponseRecorder
	let  chan struct{} // nil: at once
	mu   sync.Mutex
	sent strings.Builder
}

func (w *window) Write(p []byte) (int, error) {
	if w.let != nil {
		<-w.let
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent.Write(p)
}

func (w *window) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent.String()
}

// watching streams a board's job into a window; it returns when the stream has ended.
func watching(ctx context.Context, a http.Handler, b *board, w *window) {
	watchingAt(ctx, a, b.path(), w)
}

func watchingAt(ctx context.Context, a http.Handler, path string, w *window) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute) // of the fake clock
	defer cancel()
	w.ResponseRecorder = httptest.NewRecorder()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, path+"/events", nil)
	r.Header.Set("X-Auth-Token", "acme")
	a.ServeHTTP(w, r)
}

// streamed is a board's job that one reader streams under a fake clock.
type streamed struct {
	*board
	window
	stop  func() // ends the telling
	ended sync.WaitGroup
}

func streaming(t *testing.T, slow bool, test func(t *testing.T, s *streamed)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &streamed{board: newBoard(1)}
		if slow {
			s.let = make(chan struct{})
		}
		a, stop := runOn(t, s.board, roomy, slog.New(slog.DiscardHandler))
		s.stop = stop
		defer stop()
		s.ended.Go(func() { watching(t.Context(), a, s.board, &s.window) })
		test(t, s)
		s.ended.Wait()
	})
}

func TestAQuietStreamHasAHeartbeatEvery15Seconds(t *testing.T) {
	streaming(t, false, func(t *testing.T, s *streamed) {
		faketime.Pass(14 * time.Second)
		quiet := s.String()
		if !regexp.MustCompile(`^retry: [123]\d{3}\n\nid: \S+\nevent: job\ndata: \{.*\}\n\n$`).MatchString(quiet) {
			t.Errorf("at first the stream says %q", quiet)
		}
		faketime.Pass(32 * time.Second)
		if got := strings.TrimPrefix(s.String(), quiet); got != ":\n\n:\n\n:\n\n" {
			t.Errorf("in 46 s of silence the stream says %q", got)
		}
		s.change(tasks.JobSucceeded)
		s.ended.Wait()
	})
}

func TestAStreamSaysThatItsProcessStops(t *testing.T) {
	streaming(t, false, func(t *testing.T, s *streamed) {
		faketime.Pass(time.Second)
		s.stop()
		s.ended.Wait()
		if !strings.HasSuffix(s.String(), "\n\n: this process stops, another one goes on\n\n") {
			t.Errorf("the stream says %q", s.String())
		}
	})
}

func TestAStreamSaysThatItsRecordHasExpired(t *testing.T) {
	streaming(t, false, func(t *testing.T, s *streamed) {
		faketime.Pass(time.Second)
		s.board.mu.Lock()
		s.gone = true
		s.board.mu.Unlock()
		s.change("")
		s.ended.Wait()
		if !strings.HasSuffix(s.String(), "\n\n: the record has expired\n\n") {
			t.Errorf("the stream says %q", s.String())
		}
	})
}

func TestAStreamGoesOnWhenRedisIsBack(t *testing.T) {
	streaming(t, false, func(t *testing.T, s *streamed) {
		faketime.Pass(time.Second)
		s.board.mu.Lock()
		s.away = 3
		s.board.mu.Unlock()
		s.change(tasks.JobSucceeded) // the last change that there is
		begin := time.Now()
		s.ended.Wait()
		if late := time.Since(begin); late > 5*time.Second || !strings.Contains(s.String(), `"state":"succeeded"`) {
			t.Errorf("%s late the stream says %q", late, s.String())
		}
	})
}

// What a reader has no time for is not queued: the reader has the newest record next.
func TestASlowReaderHasTheNewestRecordNext(t *testing.T) {
	streaming(t, true, func(t *testing.T, s *streamed) {
		for range 20 {
			faketime.Pass(time.Second)
			s.change(tasks.JobRunning)
		}
		close(s.let) // the reader had not even read the first
		faketime.Pass(5 * time.Second)
		s.change(tasks.JobSucceeded)
		s.ended.Wait()
		if n := strings.Count(s.String(), "event: job"); n != 3 {
			t.Errorf("%d events for 22 versions, want the first, the newest and the last", n)
		}
	})
}

func TestMoreThanMayWaitAreToldToPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(1)
		// Half of them are for one tenant.
		a, stop := runOn(t, b, api.Config{MaxWaiters: 4}, slog.New(slog.DiscardHandler))
		defer stop()
		var ended sync.WaitGroup
		for range 2 {
			ended.Go(func() { watching(t.Context(), a, b, &window{}) })
		}
		synctest.Wait()
		s := service{Handler: a}
		begin := time.Now()
		got := s.do(t, http.MethodGet, b.path(), "acme", nil, "Prefer", "wait=30")
		if got.status != http.StatusOK || got.header.Get("Preference-Applied") != "" || got.header.Get("Retry-After") == "" || time.Since(begin) != 0 {
			t.Errorf("a poll is answered %+v after %s", got, time.Since(begin))
		}
		got = s.do(t, http.MethodGet, b.path()+"/events", "acme", nil)
		if got.status != http.StatusTooManyRequests || got.Code != tasks.TooManyRequests || got.header.Get("Retry-After") != "10" {
			t.Errorf("a stream is answered %+v", got)
		}
		if waiting, refused := metric(t, a, "batchreset_waiting_requests"), metric(t, a, "batchreset_waits_refused_total"); waiting != 2 || refused != 2 {
			t.Errorf("%v wait, %v refused", waiting, refused)
		}
		b.change(tasks.JobSucceeded)
		ended.Wait()
		if waiting := metric(t, a, "batchreset_waiting_requests"); waiting != 0 {
			t.Errorf("%v still wait", waiting)
		}
	})
}

// narrow is a listener whose connections have little room in the kernel.
type narrow struct{ net.Listener }

func (n narrow) Accept() (net.Conn, error) {
	conn, err := n.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(4096)
	}
	return conn, err
}

func TestAReaderWhoDoesNotReadIsCutOff(t *testing.T) {
	b := newBoard(100)
	var log lockedLog
	a, _ := runOn(t, b, roomy, slog.New(slog.NewTextHandler(&log, nil)))
	a.SetSendTimeout(200 * time.Millisecond)
	srv := httptest.NewUnstartedServer(a)
	srv.Listener = narrow{srv.Listener}
	srv.Start()
	defer srv.Close()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.(*net.TCPConn).SetReadBuffer(4096); err != nil { //nolint:forcetypeassert // it is one
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET %s/events HTTP/1.1\r\nHost: h\r\nX-Auth-Token: acme\r\nx-request-id: sleepy\r\n\r\n", b.path()); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 10*time.Second, "the reader is cut off", func() bool { return metric(t, a, "batchreset_streams_cut_off_total") > 0 })
	// The reader finds the connection broken, in the middle of the record.
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	if err == nil || len(body) >= 100_000 || !strings.HasPrefix(string(body), "retry: ") {
		t.Errorf("the reader gets %d bytes, %v", len(body), err)
	}
	if text := log.String(); !strings.Contains(text, "its reader does not read") || !strings.Contains(text, "request_id=sleepy") {
		t.Errorf("the log says %s", text)
	}
	harness.Eventually(t, 10*time.Second, "the reader does not count as one who waits", func() bool { return metric(t, a, "batchreset_waiting_requests") == 0 })
}

// secure is a server that speaks HTTP/2, and a client that does.
func secure(t *testing.T, h http.Handler) (url string, c *http.Client) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.URL, srv.Client()
}

// openEvents opens the stream of a job at a URL. The caller closes it.
func openEvents(t *testing.T, c *http.Client, job string) *http.Response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, job+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Auth-Token", "acme")
	response, err := c.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

// Over HTTP/2 the time for an event must not end a stream that has none to send.
func TestAQuietStreamLastsOverHTTP2(t *testing.T) {
	b := newBoard(10)
	a, _ := runOn(t, b, roomy, slog.New(slog.DiscardHandler))
	const patience = 300 * time.Millisecond
	a.SetSendTimeout(patience)
	url, c := secure(t, a)
	response := openEvents(t, c, url+b.path())
	defer func() { _ = response.Body.Close() }()
	if response.ProtoMajor != 2 {
		t.Fatalf("it is %s", response.Proto)
	}
	type read struct {
		body []byte
		err  error
	}
	ended := make(chan read, 1)
	go func() {
		body, err := io.ReadAll(response.Body)
		ended <- read{body, err}
	}()
	select {
	case early := <-ended:
		t.Fatalf("the stream ends with %q, %v", early.body, early.err)
	case <-time.After(4 * patience):
	}
	b.change(tasks.JobSucceeded)
	if last := <-ended; last.err != nil || !strings.Contains(string(last.body), string(tasks.JobSucceeded)) {
		t.Errorf("the stream ends with %q, %v", last.body, last.err)
	}
}

// Nor does it leave a stream open whose reader does not read.
func TestAReaderWhoDoesNotReadIsCutOffOverHTTP2(t *testing.T) {
	b := newBoard(8000) // 8 MB, which is more than a client takes that nobody reads from
	var log lockedLog
	a, _ := runOn(t, b, roomy, slog.New(slog.NewTextHandler(&log, nil)))
	a.SetSendTimeout(300 * time.Millisecond)
	url, c := secure(t, a)
	response := openEvents(t, c, url+b.path())
	defer func() { _ = response.Body.Close() }()
	harness.Eventually(t, 10*time.Second, "the reader is cut off", func() bool { return metric(t, a, "batchreset_streams_cut_off_total") > 0 })
	if text := log.String(); !strings.Contains(text, "its reader does not read") {
		t.Errorf("the log says %s", text)
	}
	if _, err := io.ReadAll(response.Body); err == nil {
		t.Error("the reader takes a part for the whole")
	}
}

// lockedLog is written to while a test may read it.
type lockedLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
