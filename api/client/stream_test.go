package client

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/cmd/harness/faketime"
)

// streaming is a service whose nth stream (from 0) is written by streams[n]; what comes
// after that, and every look, is answered by look.
type streaming struct {
	streams []func(w http.ResponseWriter, r *http.Request)
	look    func(w http.ResponseWriter, r *http.Request)

	mu    sync.Mutex
	lasts []string // Last-Event-ID of each stream
	looks int
}

func (s *streaming) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	n := -1
	if strings.HasSuffix(r.URL.Path, "/events") {
		n = len(s.lasts)
		s.lasts = append(s.lasts, r.Header.Get("Last-Event-ID"))
	} else {
		s.looks++
	}
	s.mu.Unlock()
	if n >= 0 && n < len(s.streams) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		s.streams[n](w, r)
		return
	}
	s.look(w, r)
}

// write sends text now.
func write(w http.ResponseWriter, text string) {
	_, _ = fmt.Fprint(w, text)
	_ = http.NewResponseController(w).Flush()
}

func jobEvent(tag, data string) string { return "id: " + tag + "\nevent: job\ndata: " + data + "\n\n" }

func wait(t *testing.T, s *streaming) (states string, n *naps) {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	c, n := connect(t, server.URL)
	job, err := c.Wait(t.Context(), jobID, func(j Job) { states += j.State + " " })
	if err != nil || job.State != "succeeded" || string(job.Record) != done {
		t.Fatalf("%+v, %v", job, err)
	}
	return states, n
}

func TestWait(t *testing.T) {
	unchanged := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }
	never := func(http.ResponseWriter, *http.Request) { t.Error("asked although there is a stream") }
	t.Run("reads the stream to its end, and asks nothing", func(t *testing.T) {
		s := &streaming{look: never, streams: []func(http.ResponseWriter, *http.Request){func(w http.ResponseWriter, _ *http.Request) {
			write(w, "retry: 2000\n\n"+jobEvent("1", running)+":\n\n")
			write(w, "event: news\ndata: {}\n\n"+jobEvent("2", done))
		}}}
		if states, n := wait(t, s); states != "running succeeded " || n.waits != nil {
			t.Errorf("told %q after the waits %v", states, n.waits)
		}
	})
	for _, row := range []struct {
		name string
		cut  string
	}{
		{"between two events", ""},
		{"in the middle of an event", "id: 2\nevent: job\ndata: " + done[:30]},
		{"before the end of an event", "id: 2\nevent: job\ndata: " + done + "\n"},
	} {
		t.Run("goes on where a stream was cut "+row.name, func(t *testing.T) {
			s := &streaming{look: unchanged, streams: []func(http.ResponseWriter, *http.Request){
				func(w http.ResponseWriter, _ *http.Request) {
					write(w, "retry: 3000\n\n"+jobEvent("1", running)+row.cut)
					panic(http.ErrAbortHandler)
				},
				func(w http.ResponseWriter, _ *http.Request) { write(w, "retry: 2000\n\n"+jobEvent("2", done)) },
			}}
			states, n := wait(t, s)
			if states != "running succeeded " || strings.Join(s.lasts, ",") != ",1" {
				t.Errorf("told %q over streams from %q", states, s.lasts)
			}
			n.expect(t, 3*time.Second)
		})
	}
	t.Run("finds the end that fell between two streams", func(t *testing.T) {
		s := &streaming{
			look:    func(w http.ResponseWriter, _ *http.Request) { write(w, okay(done)) },
			streams: []func(http.ResponseWriter, *http.Request){func(w http.ResponseWriter, _ *http.Request) { write(w, jobEvent("1", running)) }},
		}
		if states, _ := wait(t, s); states != "running succeeded " || s.looks != 1 {
			t.Errorf("told %q after %d looks", states, s.looks)
		}
	})
	t.Run("does not ask hotly where streams are cut at once, again and again", func(t *testing.T) {
		short := func(w http.ResponseWriter, _ *http.Request) { write(w, "retry: 1\n\n") }
		s := &streaming{look: unchanged}
		for range 9 {
			s.streams = append(s.streams, short)
		}
		s.streams = append(s.streams, func(w http.ResponseWriter, _ *http.Request) { write(w, jobEvent("2", done)) })
		s.look = func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"1"`)
			if r.Header.Get("If-None-Match") != "" {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			write(w, okay(running))
		}
		_, n := wait(t, s)
		n.expect(t, 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond,
			200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond)
	})
}

// TestWaitBehindAProxyThatBuffers has a proxy that gives nothing of a stream before its
// end. The time in the bubble is not real.
func TestWaitBehindAProxyThatBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c, _ := connect(t, "http://proxy.example")
		c.sleep = sleep
		prefer := ""
		transport := handlerTransport(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/events"):
				<-r.Context().Done()
			case time.Since(began) > time.Minute:
				write(w, okay(done))
			default:
				if prefer = r.Header.Get("Prefer"); prefer != "" {
					faketime.Pass(longPoll)
				}
				w.Header().Set("ETag", `"1"`)
				write(w, okay(running))
			}
		})
		c.http.Transport, c.streams.Transport = transport, transport
		job, err := c.Wait(t.Context(), jobID, nil)
		if err != nil || job.State != "succeeded" || prefer != "wait=10" {
			t.Fatalf("%+v, %v, Prefer: %q", job, err, prefer)
		}
		if took := time.Since(began); took > time.Minute+longPoll+firstLine {
			t.Errorf("took %s", took)
		}
	})
}

// handlerTransport answers requests without a network.
type handlerTransport http.HandlerFunc

func (h handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h(w, r)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

func TestReadEvents(t *testing.T) {
	var got []event
	lines := 0
	readEvents(bytes.NewBufferString(":hello\r\nid: a:b\r\nevent:job\r\ndata: 1\r\ndata:2\r\n\r\nid: c\n\nretry: soon\nretry: 5000\n\ndata: cut"),
		func() { lines++ }, func(e event) { got = append(got, e) })
	want := []event{{id: "a:b", name: "job", data: "1\n2"}, {retry: 5 * time.Second}}
	if fmt.Sprint(got) != fmt.Sprint(want) || lines != 12 {
		t.Errorf("got %+v over %d lines", got, lines)
	}
}
