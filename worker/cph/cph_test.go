package cph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"batchreset/worker"
	"batchreset/worker/cph/cphtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	project = "0123456789abcdef0123456789abcdef"
	phoneA  = "a7f3a1c5258347d6b6f1def79e11f2bc"
)

// newFake is a CPH with one phone.
func newFake() *cphtest.Server {
	s := cphtest.New(project)
	s.Keys = map[string]string{"AK": "a secret"}
	s.Domain, s.User, s.Password = "account", "robot", "a password"
	s.Questions = 3
	s.AddPhone(phoneA)
	return s
}

// file writes a secret.
func file(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// settings are those for a server.
func settings(t testing.TB, url string) Config {
	t.Helper()
	return Config{
		Endpoint: url, ProjectID: project,
		AccessKeyFile: file(t, "AK\n"), SecretKeyFile: file(t, "a secret\n"),
		PollInterval: time.Millisecond,
	}
}

// serve starts a server.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

func newDriver(t testing.TB, cfg Config) *Driver {
	t.Helper()
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d.locked = time.Millisecond
	t.Cleanup(d.Close)
	return d
}

// driverFor makes a driver for a handler.
func driverFor(t testing.TB, h http.Handler) *Driver {
	t.Helper()
	return newDriver(t, settings(t, serve(t, h)))
}

// notes is what an attempt's record would hold.
type notes struct {
	mu    sync.Mutex
	saved []string
	asked int
}

func (n *notes) checkpoint() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.saved) == 0 {
		return ""
	}
	return n.saved[len(n.saved)-1]
}

// attempt is a first attempt with plenty of time.
func (n *notes) attempt() worker.Attempt {
	return worker.Attempt{
		InstanceID: "instance-1", Address: phoneA, ItemID: "job-0", Number: 1, Key: "key-1", Deadline: time.Now().Add(time.Minute),
		MaySend: func() error {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.asked++
			return nil
		},
		Save: func(_ context.Context, checkpoint string) error {
			n.mu.Lock()
			defer n.mu.Unlock()
			if len(checkpoint) > worker.MaxCheckpoint {
				return errors.New("too long")
			}
			n.saved = append(n.saved, checkpoint)
			return nil
		},
	}
}

// attempt is one whose record nobody looks at.
func attempt() worker.Attempt { return new(notes).attempt() }

// again is an attempt after one that may have sent.
func (n *notes) again() worker.Attempt {
	a := n.attempt()
	a.Number, a.Ambiguous, a.Checkpoint = 2, true, n.checkpoint()
	return a
}

// wantVerdict checks the verdict of an error and returns its account.
func wantVerdict(t testing.TB, err error, want worker.Verdict) worker.DriverError {
	t.Helper()
	e, ok := errors.AsType[*worker.DriverError](err)
	if !ok || e.Verdict != want {
		t.Fatalf("got %v, want it %s", err, want)
	}
	if len(e.Message) > maxMessage || len(e.Code) > maxCode {
		t.Errorf("an account of %d bytes with a code of %d", len(e.Message), len(e.Code))
	}
	return *e
}

func TestAResetIsSentFollowedAndConfirmed(t *testing.T) {
	fake := newFake()
	var n notes
	cfg := settings(t, serve(t, fake))
	cfg.ImageID, cfg.Property = "image-7", `{"sys.prop.writephonenum":"13666666666"}`
	if err := newDriver(t, cfg).Reset(t.Context(), n.attempt()); err != nil {
		t.Fatal(err)
	}
	p := fake.Phone(phoneA)
	if p.Begun != 1 || p.Wiped != 1 || p.Image != "image-7" || p.Property != cfg.Property {
		t.Errorf("the phone is %+v", p)
	}
	if n.asked != 1 {
		t.Errorf("asked for leave %d times", n.asked)
	}
	var m mark
	if err := json.Unmarshal([]byte(n.checkpoint()), &m); err != nil || m.JobID == "" || m.RequestID == "" || m.PhoneID != phoneA {
		t.Errorf("checkpoints %q (%v)", n.saved, err)
	}
}

func TestAnInstanceWithoutAnAddressIsAPhoneID(t *testing.T) {
	fake := newFake()
	d := driverFor(t, fake)
	a := attempt()
	a.InstanceID, a.Address = phoneA, ""
	if err := d.Reset(t.Context(), a); err != nil || fake.Phone(phoneA).Wiped != 1 {
		t.Errorf("%v, %+v", err, fake.Phone(phoneA))
	}
	for _, id := range []string{"a:b", "a/../b", "..", "a b", strings.Repeat("a", 65), "телефон"} {
		a.Address = id
		wantVerdict(t, d.Reset(t.Context(), a), worker.Permanent)
		if _, err := d.Look(t.Context(), a); err == nil {
			t.Errorf("looked at %q", id)
		}
	}
}

func TestARefusedPhoneInsideASuccess(t *testing.T) {
	fake := newFake()
	d := driverFor(t, fake)
	t.Run("does not exist", func(t *testing.T) {
		a := attempt()
		a.Address = "elsewhere"
		if e := wantVerdict(t, d.Reset(t.Context(), a), worker.Permanent); e.Code != "CPS.0005" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("is frozen", func(t *testing.T) {
		fake.Change(phoneA, func(p *cphtest.Phone) { p.Status = 6 })
		if e := wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Permanent); e.Code != "CPS.0053" {
			t.Errorf("%+v", e)
		}
	})
	t.Run("is being reset by somebody else", func(t *testing.T) {
		fake.Change(phoneA, func(p *cphtest.Phone) { p.Status = 3 })
		wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Busy)
	})
	if p := fake.Phone(phoneA); p.Begun != 0 {
		t.Errorf("reset all the same: %+v", p)
	}
}

func TestAFailedResetIsTriedAgain(t *testing.T) {
	fake := newFake()
	fake.Change(phoneA, func(p *cphtest.Phone) { p.Fails = "CPS0003" })
	d := driverFor(t, fake)
	e := wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Retryable)
	if e.Code != "CPS0003" || !e.EndsDoubt {
		t.Errorf("%+v", e)
	}
	fake.Change(phoneA, func(p *cphtest.Phone) { p.Fails = "" })
	if err := d.Reset(t.Context(), attempt()); err != nil {
		t.Error(err)
	}
}

func TestTwoAttemptsOfOnePhoneResetItOnceAtATime(t *testing.T) {
	fake := newFake()
	fake.Questions = 50
	d := driverFor(t, fake)
	var busy, ok atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			err := d.Reset(t.Context(), attempt())
			e, _ := errors.AsType[*worker.DriverError](err)
			switch {
			case err == nil:
				ok.Add(1)
			case e != nil && e.Verdict == worker.Busy:
				busy.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if p := fake.Phone(phoneA); int(ok.Load()) != p.Wiped || p.Begun != p.Wiped || ok.Load()+busy.Load() != 8 {
		t.Errorf("%d ok, %d busy, %+v", ok.Load(), busy.Load(), p)
	}
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	fake := newFake()
	url := serve(t, fake)
	if err := newDriver(t, settings(t, url)).Check(t.Context()); err != nil {
		t.Error(err)
	}
	for name, row := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"a wrong secret":  {func(c *Config) { c.SecretKeyFile = file(t, "another") }, "verify aksk signature fail"},
		"an unknown key":  {func(c *Config) { c.AccessKeyFile = file(t, "XX") }, "ak not exist"},
		"another project": {func(c *Config) { c.ProjectID = "other" }, "Invalid project_id"},
		"nobody there":    {func(c *Config) { c.Endpoint = "http://127.0.0.1:1" }, "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := settings(t, url)
			row.change(&cfg)
			d := newDriver(t, cfg)
			err := d.Check(t.Context())
			if err == nil || !strings.Contains(err.Error(), row.want) || !strings.HasPrefix(err.Error(), "endpoint ") {
				t.Errorf("got %v", err)
			}
			wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Unreachable)
		})
	}
	t.Run("somebody else", func(t *testing.T) {
		d := newDriver(t, settings(t, serve(t, says(200, "<html>"))))
		if err := d.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "not understood") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("a wrong clock", func(t *testing.T) {
		d := newDriver(t, settings(t, serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(20*time.Minute).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusUnauthorized)
		}))))
		if err := d.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "clock") {
			t.Errorf("got %v", err)
		}
	})
}

func TestBadSettingsAreRefusedByName(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"endpoint must be a URL":             func(c *Config) { c.Endpoint = "cph.example.com" },
		"endpoint must be a scheme":          func(c *Config) { c.Endpoint = "https://cph.example.com/v1" },
		"endpoint must be https":             func(c *Config) { c.Endpoint = "http://cph.example.com" },
		"project_id":                         func(c *Config) { c.ProjectID = "a/b" },
		"access_key_file is missing":         func(c *Config) { c.AccessKeyFile = "" },
		"secret_key_file is missing":         func(c *Config) { c.SecretKeyFile = "" },
		"secret_key_file: open":              func(c *Config) { c.SecretKeyFile = "/nowhere" },
		"secret_key_file: ":                  func(c *Config) { c.SecretKeyFile = file(t, "a\nb") },
		"access_key_file: ":                  func(c *Config) { c.AccessKeyFile = file(t, "\ufeffAK\n") },
		"access_key_file and":                func(c *Config) { c.IAMUser = "robot" },
		"image_id":                           func(c *Config) { c.ImageID = "a b" },
		"property":                           func(c *Config) { c.Property = `["a"]` },
		"property must":                      func(c *Config) { c.Property = `{"a":` },
		"poll_interval must not be negative": func(c *Config) { c.PollInterval = -1 },
		"iam_endpoint must": func(c *Config) {
			c.AccessKeyFile, c.SecretKeyFile, c.IAMUser = "", "", "robot"
		},
		"iam_domain is missing": func(c *Config) {
			c.AccessKeyFile, c.SecretKeyFile, c.IAMEndpoint = "", "", "https://iam.example.com"
		},
		"iam_password_file is missing": func(c *Config) {
			c.AccessKeyFile, c.SecretKeyFile, c.IAMEndpoint, c.IAMDomain, c.IAMUser = "", "", "https://iam.example.com", "d", "u"
		},
	} {
		cfg := settings(t, "https://cph.example.com/")
		change(&cfg)
		if _, err := New(cfg); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want it to begin with %s", err, want)
		}
	}
	cfg := settings(t, "https://cph.example.com/")
	cfg.PollInterval = 0
	d := newDriver(t, cfg)
	for range 100 {
		if wait := d.interval(); wait < 10*time.Second || wait > 15*time.Second {
			t.Errorf("asks every %s", wait)
		}
	}
}

// says answers with a status and a body.
func says(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// hangUp ends the connection without an answer.
func hangUp(w http.ResponseWriter, _ *http.Request) {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = c.Close()
	}
}

// script is a CPH that says what a test tells it to.
type script struct {
	post   http.HandlerFunc   // answers the order
	phones []http.HandlerFunc // answer for the phone, one after the other, the last one for ever
	jobs   []http.HandlerFunc

	posts, askedPhone, askedJob atomic.Int32
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	pick := func(steps []http.HandlerFunc, count *atomic.Int32) { steps[min(int(count.Add(1)), len(steps))-1](w, r) }
	switch {
	case r.Method == http.MethodPost:
		_, _ = io.Copy(io.Discard, r.Body) // so all of it was sent
		s.posts.Add(1)
		s.post(w, r)
	case strings.Contains(r.URL.Path, "/jobs/"):
		pick(s.jobs, &s.askedJob)
	default:
		pick(s.phones, &s.askedPhone)
	}
}

// phoneSays is an answer about the phone.
func phoneSays(status int, updated string) http.HandlerFunc {
	return says(200, fmt.Sprintf(`{"request_id":"r","phone_id":%q,"status":%d,"image_id":"i","update_time":%q}`, phoneA, status, updated))
}

const (
	then    = "2026-01-01T00:00:00Z"
	nowLate = "2026-01-01T00:00:05Z"
)

// jobSays is an answer about the job.
func jobSays(status int, code string) http.HandlerFunc {
	return says(200, fmt.Sprintf(`{"job_id":"job-1","phone_id":%q,"status":%d,"error_code":%q,"error_msg":"text"}`, phoneA, status, code))
}

// taken accepts the order.
var taken = says(200, fmt.Sprintf(`{"request_id":"request-1","jobs":[{"phone_id":%q,"job_id":"job-1"}]}`, phoneA))
