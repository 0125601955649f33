package serve

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/worker/notify"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.txt")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// What is wrong with the flags is said by flag and line, and never with a URL.
func TestNotifyFlags(t *testing.T) {
	t.Parallel()
	good, key := "# ours\nhttps://hooks.example/s3cret\n\nhttp://10.0.0.7/mail\n", tasks.NewEndpointSecret()
	for name, row := range map[string]struct{ urls, format, secret, want string }{
		"nothing":             {"", "slack", "", ""},
		"slack":               {good, "slack", "", ""},
		"signed":              {good, "webhook", key, ""},
		"another format":      {good, "email", "", "--notify-format must be"},
		"no secret":           {good, "webhook", "", "needs --notify-secret-file"},
		"a secret for nobody": {good, "teams", key, "is for --notify-format webhook"},
		"a secret alone":      {"", "webhook", key, "needs --notify-url-file"},
		"an odd secret":       {good, "webhook", "whsec_§", "--notify-secret-file: "},
		"no URL":              {"https://hooks.example/s3cret\nhooks.example/s3cret\n", "slack", "", "line 2 is not a URL"},
		"twice":               {"https://hooks.example/s3cret\nhttps://hooks.example/s3cret\n", "slack", "", "line 2 is there twice"},
		"an empty file":       {"\n# none\n", "slack", "", "has no URL in it"},
		"too many":            {"https://hooks.example/s3cret/x" + manyURLs(), "slack", "", "the limit is 10"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := notifyFlags{format: row.format}
			if row.urls != "" {
				f.urls = writeFile(t, row.urls)
			}
			if row.secret != "" {
				f.secret = writeFile(t, row.secret+"\n")
			}
			err := f.check()
			switch {
			case row.want == "" && err != nil, row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "s3cret")):
				t.Errorf("%v, want %q", err, row.want)
			case row.want == "" && row.urls != "" && (len(f.cfg.URLs) != 2 || f.cfg.Secret != row.secret || f.cfg.Format != notify.Format(row.format)):
				t.Errorf("%+v", f.cfg)
			}
		})
	}
}

func manyURLs() (text string) {
	for n := range 10 {
		text += "\nhttps://hooks.example/s3cret/" + strings.Repeat("y", n)
	}
	return text
}

func TestNotifyTest(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer receiver.Close()
	run := func() (string, error) {
		var out bytes.Buffer
		cmd := newNotifyCommand(&terminal.Streams{Out: &out, Err: io.Discard})
		cmd.SetArgs([]string{"test", "--notify-url-file", writeFile(t, receiver.URL+"/s3cret")})
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	if out, err := run(); err != nil || !strings.HasPrefix(out, "1 (127.0.0.1:") || !strings.HasSuffix(out, "): taken\n") {
		t.Errorf("%q, %v", out, err)
	}
	status = http.StatusNotFound
	if out, err := run(); err == nil || !strings.HasSuffix(out, "not taken: it answers 404\n") || strings.Contains(out, "s3cret") {
		t.Errorf("%q, %v", out, err)
	}
}
