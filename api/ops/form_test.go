package ops_test

import (
	"bytes"
	"errors"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"batchreset/tasks"
)

// form is the kind of forms that are read.
const form = "application/x-www-form-urlencoded"

// post sends a body. A kind of body without a length is sent in chunks.
func (g guarded) post(t *testing.T, path, kind string, body io.Reader, session *http.Cookie) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	if session != nil {
		r.AddCookie(&http.Cookie{Name: session.Name, Value: session.Value})
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return answer{status: response.StatusCode, header: response.Header, body: string(text)}
}

// withFile is a form with a file, as browsers send it.
func withFile(t *testing.T, size int) (kind string, body io.Reader) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	file, err := w.CreateFormFile("name", "name.txt")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.WriteField("password", password), w.Close()); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), &b
}

func TestAFormIsShortAndWithoutFiles(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator})
	alice := g.login(t, "alice")
	long := "reason=" + strings.Repeat("a", 9<<20)
	for _, path := range []string{"/jobs/" + g.job + "/cancel", "/runs/" + g.job + "/approve", "/runs/" + g.job + "/retry", "/jobs/" + g.job + "/retry", "/tenants/halt", "/tenants/resume", "/first-operator", "/login"} {
		t.Run(path, func(t *testing.T) {
			g.want(t, g.post(t, path, form, strings.NewReader(long), alice), http.StatusRequestEntityTooLarge, `"path":"`+path+`"`)
			g.want(t, g.post(t, path, form, io.MultiReader(strings.NewReader(long)), alice), http.StatusRequestEntityTooLarge, "")
			g.want(t, g.post(t, path, form, io.MultiReader(strings.NewReader("reason="+strings.Repeat("a", 16<<10))), alice), http.StatusRequestEntityTooLarge, "")
			for _, size := range []int{10, 1 << 20} {
				kind, body := withFile(t, size)
				g.want(t, g.post(t, path, kind, io.MultiReader(body), alice), http.StatusUnsupportedMediaType, "")
			}
			g.want(t, g.post(t, path, "text/plain", strings.NewReader("reason=x"), alice), http.StatusUnsupportedMediaType, "")
			g.want(t, g.post(t, path, "", strings.NewReader("reason=x"), alice), http.StatusUnsupportedMediaType, "")
		})
	}
	// What is sent to asynq's dashboard, and to where nothing is read, is no longer either.
	g.want(t, g.post(t, pause, "application/json", strings.NewReader(long), alice), http.StatusRequestEntityTooLarge, "")
	g.want(t, g.post(t, "/logout", form, strings.NewReader(long), alice), http.StatusRequestEntityTooLarge, "")
	if g.paused(t) || len(g.trail(t)) != 0 {
		t.Errorf("paused %t, trail %+v", g.paused(t), g.trail(t))
	}
	reason := strings.Repeat("x", 200)
	g.want(t, g.post(t, "/tenants/halt", form+"; charset=utf-8", strings.NewReader("tenant=acme&reason="+reason), alice), http.StatusSeeOther, "")
}

// Tries to log in leave nothing behind, however much they bring.
func TestALoginKeepsNothing(t *testing.T) {
	g := newProxied(t)
	before := heap()
	for n := range 20 {
		letter := string(rune('a' + n))
		g.want(t, g.post(t, "/login", form, strings.NewReader("name="+strings.Repeat(letter, 9<<20)), nil), http.StatusRequestEntityTooLarge, "")
		g.want(t, g.post(t, "/login", form, strings.NewReader("name="+strings.Repeat(letter, 15<<10)), nil), http.StatusUnauthorized, "")
	}
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("the heap has grown by %d MB", grown>>20)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // not that much
}

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (b unread) Read([]byte) (int, error) {
	b.t.Error("the body was read")
	return 0, io.EOF
}

func TestWhoMayNotTryIsNotRead(t *testing.T) {
	g := newProxied(t, "alice")
	for range 20 {
		g.try(t, "203.0.113.1", "alice", "short")
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/login", unread{t})
	r.RemoteAddr = "127.0.0.1:4711"
	r.Header.Set("X-Forwarded-For", "203.0.113.1")
	r.Header.Set("Content-Type", form)
	w := httptest.NewRecorder()
	g.Config.Handler.ServeHTTP(w, r)
	if w.Code != http.StatusTooManyRequests {
		t.Errorf("answer %d", w.Code)
	}
}

func TestANameThatIsNoneIsNotRepeated(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator})
	for _, name := range []string{"<script>", "", "al ice", strings.Repeat("a", 65), "alice\u202e"} {
		a := g.ask(t, http.MethodPost, "/login", nil, url.Values{"name": {name}, "password": {password}, "next": {"//evil.example"}})
		g.want(t, a, http.StatusUnauthorized, `"operator":"","remote"`)
		if a.cookie != nil || !strings.Contains(a.body, `required autofocus value=""`) || strings.Contains(a.body, "evil.example") {
			t.Errorf("%q: answer %s", name, a.body)
		}
	}
}

// What strangers send does not fill the log.
func TestARefusalIsAShortLine(t *testing.T) {
	g := newGuarded(t, map[string]tasks.Role{"alice": tasks.RoleOperator})
	long := strings.Repeat("x", 50<<10)
	g.want(t, g.ask(t, http.MethodPost, "/jobs/"+long+"/cancel", nil, url.Values{"reason": {"r"}}), http.StatusUnauthorized, "Log in first")
	g.want(t, g.ask(t, "X"+long, "/"+long, nil, nil, "Sec-Fetch-Site", "cross-site"), http.StatusForbidden, "from another site")
	for line := range strings.Lines(g.log.String()) {
		if len(line) > 2000 {
			t.Errorf("a line of %d bytes: %.300s", len(line), line)
		}
	}
}
