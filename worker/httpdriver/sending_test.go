package httpdriver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"batchreset/worker"
)

// serveTLS starts an upstream with a certificate that nobody vouches for.
func serveTLS(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// trust makes a driver accept a test server's certificate.
func trust(d *Driver, s *httptest.Server) {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	d.sender.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// listen answers each connection with a function of its own.
func listen(t *testing.T, handle func(*net.TCPConn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed with the test
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				handle(c.(*net.TCPConn))
				_ = c.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

// read takes what a client wrote first.
func read(c net.Conn) int {
	n, _ := c.Read(make([]byte, 4096))
	return n
}

func TestNothingSentIsUnreachable(t *testing.T) {
	never := func(http.ResponseWriter, *http.Request) { t.Error("called") }
	t.Run("a refused connection", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once, for its port
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		// Not even where a repeat would be harmless does this use a retry.
		d := newDriver(t, Config{URL: "http://" + l.Addr().String(), Idempotent: true})
		e := wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Unreachable)
		if !strings.Contains(e.Message, "connection refused") {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("a name that does not exist", func(t *testing.T) {
		d := newDriver(t, Config{URL: "http://phones.invalid"})
		d.sender.DialContext = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "phones.invalid", IsNotFound: true}
		}
		wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Unreachable)
	})
	t.Run("a certificate nobody vouches for", func(t *testing.T) {
		d := newDriver(t, Config{URL: serveTLS(t, never).URL})
		wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Unreachable)
	})
	t.Run("a TLS handshake that breaks off", func(t *testing.T) {
		d := newDriver(t, Config{URL: "https://" + listen(t, func(c *net.TCPConn) { read(c) })})
		wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Unreachable)
	})
	t.Run("a TLS handshake that is cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		returned := make(chan struct{})
		defer close(returned)
		d := newDriver(t, Config{URL: "https://" + listen(t, func(c *net.TCPConn) {
			read(c)
			cancel()
			<-returned // without waiting for this end
		})})
		wantVerdict(t, d.Reset(ctx, attempt()), worker.Unreachable)
	})
	t.Run("a proxy that does not connect", func(t *testing.T) {
		var asked atomic.Value
		proxy, err := url.Parse(serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked.Store(r.Method + " " + r.Host)
			w.WriteHeader(http.StatusBadGateway)
		}))
		if err != nil {
			t.Fatal(err)
		}
		d := newDriver(t, Config{URL: "https://phones.invalid"})
		d.sender.Proxy = http.ProxyURL(proxy)
		wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Unreachable)
		if asked.Load() != "CONNECT phones.invalid:443" {
			t.Errorf("the proxy saw %v", asked.Load())
		}
	})
	t.Run("leave that is refused after a TLS handshake", func(t *testing.T) {
		s := serveTLS(t, never)
		d := newDriver(t, Config{URL: s.URL})
		trust(d, s)
		a := attempt()
		a.MaySend = tooLate
		e := wantVerdict(t, d.Reset(t.Context(), a), worker.NotSent)
		if !strings.Contains(e.Message, errTooLate.Error()) {
			t.Errorf("got %+v", e)
		}
	})
}

func TestARequestOverTLSIsSent(t *testing.T) {
	var calls atomic.Int32
	s := serveTLS(t, func(http.ResponseWriter, *http.Request) { calls.Add(1) })
	d := newDriver(t, Config{URL: s.URL})
	trust(d, s)
	if err := d.Reset(t.Context(), attempt()); err != nil || calls.Load() != 1 {
		t.Errorf("%v after %d calls", err, calls.Load())
	}
}

// telling is a connection that tells when something was written.
type telling struct {
	net.Conn
	tell func()
}

func (c *telling) Write(p []byte) (int, error) {
	defer c.tell()
	return c.Conn.Write(p)
}

func TestALostAnswerIsUnknown(t *testing.T) {
	for name, handle := range map[string]func(*net.TCPConn){
		"the connection is reset after the request": func(c *net.TCPConn) {
			read(c)
			_ = c.SetLinger(0)
		},
		"the answer ends in the middle": func(c *net.TCPConn) {
			read(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
		},
		"the answer is not HTTP": func(c *net.TCPConn) {
			read(c)
			_, _ = io.WriteString(c, "SSH-2.0-x\r\n")
		},
		"the answer changes to another protocol and goes on for ever": func(c *net.TCPConn) {
			read(c)
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
			read(c) // until the client hangs up
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, idempotent := range []bool{false, true} {
				var connections atomic.Int32
				d := newDriver(t, Config{Idempotent: idempotent, URL: "http://" + listen(t, func(c *net.TCPConn) {
					connections.Add(1)
					handle(c)
				})})
				e := wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Unknown)
				if e.Repeatable != idempotent {
					t.Errorf("repeatable is %t where the key is honoured: %t", e.Repeatable, idempotent)
				}
				if connections.Load() != 1 {
					t.Errorf("%d connections for one attempt", connections.Load())
				}
			}
		})
	}
	t.Run("the connection is reset before the request is read", func(t *testing.T) {
		written := make(chan struct{})
		d := newDriver(t, Config{URL: "http://" + listen(t, func(c *net.TCPConn) {
			<-written
			_ = c.SetLinger(0)
		})})
		dial := d.sender.DialContext
		d.sender.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			return &telling{conn, sync.OnceFunc(func() { close(written) })}, err
		}
		wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Unknown)
	})
	t.Run("a refusal whose text is cut off is still a refusal", func(t *testing.T) {
		url := "http://" + listen(t, func(c *net.TCPConn) {
			read(c)
			_, _ = io.WriteString(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\n{")
		})
		wantVerdict(t, newDriver(t, Config{URL: url}).Reset(t.Context(), attempt()), worker.Permanent)
	})
}

func TestNoPostIsSentTwice(t *testing.T) {
	// On a reused connection that is dead, net/http would send the request again
	// by itself, because it has an Idempotency-Key.
	var calls atomic.Int32
	url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if calls.Add(1) == 1 {
			return
		}
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = c.Close()
		}
	})
	d := newDriver(t, Config{URL: url})
	if err := d.Reset(t.Context(), attempt()); err != nil {
		t.Fatal(err)
	}
	err := d.Reset(t.Context(), attempt())
	if calls.Load() != 2 {
		t.Errorf("%d calls for two attempts", calls.Load())
	}
	wantVerdict(t, err, worker.Unknown)
}

func TestMaySendIsAskedOnceWhenTheRequestIsReady(t *testing.T) {
	// Neither a handshake nor a long request, which is written in parts, asks again.
	var calls, asked atomic.Int32
	s := serveTLS(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		calls.Add(1)
	})
	d := newDriver(t, Config{URL: s.URL})
	trust(d, s)
	a := attempt()
	a.ItemID = strings.Repeat("x", 1<<20)
	a.MaySend = func() error {
		if asked.Add(1); calls.Load() > 0 {
			t.Error("asked after it was sent")
		}
		return nil
	}
	if err := d.Reset(t.Context(), a); err != nil || calls.Load() != 1 || asked.Load() != 1 {
		t.Errorf("%v after %d calls, asked %d times", err, calls.Load(), asked.Load())
	}

	a.ItemID = attempt().ItemID // who answers without reading all of a long one closes the connection
	a.MaySend = func() error { asked.Add(1); return nil }
	url, _ := accepting(t, "/operations/7", says(202, ""), says(200, over))
	if err := newDriver(t, Config{URL: url}).Reset(t.Context(), a); err != nil || asked.Load() != 2 {
		t.Errorf("%v, asked %d times: polls destroy nothing", err, asked.Load())
	}
	a.Checkpoint = url + "/operations/7"
	if err := newDriver(t, Config{URL: url}).Reset(t.Context(), a); err != nil || asked.Load() != 2 {
		t.Errorf("%v, asked %d times: polls destroy nothing", err, asked.Load())
	}
}

func TestALongWayToRedisDoesNotHoldTheDriver(t *testing.T) {
	release := make(chan struct{})
	answered := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	a := attempt()
	a.MaySend = func() error {
		defer close(answered)
		cancel() // the attempt's time ends while it asks
		<-release
		return nil
	}
	d := newDriver(t, Config{URL: serve(t, func(http.ResponseWriter, *http.Request) { t.Error("called") })})
	wantVerdict(t, d.Reset(ctx, a), worker.NotSent)
	close(release) // leave comes late
	<-answered
}

// counter is a connection that only counts.
type counter struct {
	net.Conn
	writes atomic.Int32
}

func (c *counter) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return len(p), nil
}

func TestGuard(t *testing.T) {
	guarded := func(maySend func() error) (*guard, *counter) {
		c := &counter{}
		return &guard{c, newSend(t.Context(), maySend)}, c
	}
	yes := func() error { return nil }
	t.Run("lets handshakes pass, which are not the request", func(t *testing.T) {
		g, _ := guarded(tooLate)
		if _, err := g.Write(nil); err != nil {
			t.Error(err)
		}
		g.send.connect()
		if g.send.drop() == sent {
			t.Error("counted as sent")
		}
	})
	t.Run("stops a request whose time is over", func(t *testing.T) {
		g, c := guarded(tooLate)
		g.send.connect()
		for range 2 {
			if _, err := g.Write(nil); err == nil {
				t.Error("written")
			}
		}
		if phase := g.send.drop(); phase != late || c.writes.Load() != 0 {
			t.Errorf("phase %d after %d writes", phase, c.writes.Load())
		}
	})
	t.Run("asks once for a request in parts", func(t *testing.T) {
		asked := 0
		g, c := guarded(func() error { asked++; return nil })
		g.send.connect()
		for range 3 {
			if _, err := g.Write(nil); err != nil {
				t.Error(err)
			}
		}
		if asked != 1 || c.writes.Load() != 3 {
			t.Errorf("asked %d times for %d writes", asked, c.writes.Load())
		}
	})
	t.Run("stops the rest of a request that was given up", func(t *testing.T) {
		g, c := guarded(yes)
		g.send.connect()
		if _, err := g.Write(nil); err != nil {
			t.Error(err)
		}
		if g.send.drop() != sent {
			t.Error("counted as not sent")
		}
		if _, err := g.Write(nil); !errors.Is(err, errDropped) || c.writes.Load() != 1 {
			t.Errorf("%v after %d writes", err, c.writes.Load())
		}
	})
	t.Run("sends nothing when leave comes after it was given up", func(t *testing.T) {
		var g *guard
		g, c := guarded(func() error {
			if phase := g.send.drop(); phase != asking {
				t.Errorf("phase %d", phase)
			}
			return nil
		})
		g.send.connect()
		if _, err := g.Write(nil); !errors.Is(err, errDropped) || c.writes.Load() != 0 {
			t.Errorf("%v after %d writes", err, c.writes.Load())
		}
	})
	t.Run("sends nothing when the attempt has ended while it was asked", func(t *testing.T) {
		for range 20_000 { // answer and end are there at the same time
			ctx, cancel := context.WithCancel(t.Context())
			c := &counter{}
			g := &guard{c, newSend(ctx, func() error { cancel(); return nil })}
			g.send.connect()
			if _, err := g.Write(nil); err == nil || c.writes.Load() > 0 {
				t.Fatalf("%v after %d writes", err, c.writes.Load())
			}
		}
	})
	t.Run("never sends what was reported as not sent", func(t *testing.T) {
		for range 1000 {
			g, c := guarded(yes)
			g.send.connect()
			var writer sync.WaitGroup
			writer.Go(func() { _, _ = g.Write(nil) })
			nothing := g.send.drop() != sent
			writer.Wait()
			if nothing != (c.writes.Load() == 0) {
				t.Fatalf("reported %t after %d writes", nothing, c.writes.Load())
			}
		}
	})
}

var errTooLate = errors.New("too late")

func tooLate() error { return errTooLate }
