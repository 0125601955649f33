package call

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io/fs"
	"maps"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"batchreset/cmd/batchreset/call/calltest"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

// login keeps a context of the service, in the environment's directory.
func login(t *testing.T, s *fakeService, environment map[string]string, token string, args ...string) terminaltest.Result {
	t.Helper()
	return terminaltest.Run(t.Context(), newRootCommand, &terminal.Streams{In: strings.NewReader(token), Environment: environment}, append([]string{"login", s.URL}, args...)...)
}

// configDir is a directory for contexts, and the environment that names it.
func configDir(t *testing.T) (string, map[string]string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "config")
	return dir, map[string]string{"BATCHRESET_CONFIG_DIR": dir}
}

func TestLogin(t *testing.T) {
	s := newFakeService(t)
	dir, environment := configDir(t)
	if errs := login(t, s, environment, calltest.Token+"\n", "--name", "lab").OK(t).Errs; !strings.Contains(errs, "logged in to "+s.URL+" as tenant acme; the context lab is the current one now") {
		t.Errorf("says %q", errs)
	}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		info, _ := os.Stat(path)
		if mode := info.Mode().Perm(); err == nil && mode&0o077 != 0 {
			t.Errorf("%s has the mode %04o", path, mode)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	command(t, environment, "jobs").OK(t)
	var me map[string]any
	if err := json.Unmarshal([]byte(command(t, environment, "whoami", "-o", "json").OK(t).Out), &me); err != nil {
		t.Fatal(err)
	}
	if me["server"] != s.URL || me["context"] != "lab" || me["tenant"] != "acme" || me["expires_at"] == nil {
		t.Errorf("whoami says %v", me)
	}
	if out := command(t, environment, "whoami").OK(t).Out; !strings.Contains(out, "Tenant   acme") || strings.Contains(out, calltest.Token) {
		t.Errorf("whoami says\n%s", out)
	}

	t.Run("names a context after the host", func(t *testing.T) {
		login(t, s, environment, calltest.Token).OK(t)
		want := strings.ReplaceAll(strings.TrimPrefix(s.URL, "http://"), ":", "-")
		if out := command(t, environment, "context", "list").OK(t).Out; !strings.Contains(out, "*        "+want+" ") || !strings.Contains(out, " lab ") || strings.Contains(out, calltest.Token) {
			t.Errorf("contexts\n%s", out)
		}
		command(t, environment, "context", "use", "lab").OK(t)
	})
	t.Run("refuses", func(t *testing.T) {
		for name, row := range map[string]struct {
			token string
			args  []string
			want  string
		}{
			"a token that the server refuses": {"wrong", nil, "APIGW.0301"},
			"no token":                        {"\n", nil, "there is no token"},
			"a bad name":                      {calltest.Token, []string{"--name", "../x"}, `--name: "../x" is not a name`},
			"a token of two words":            {"a b", nil, "token has spaces"},
		} {
			t.Run(name, func(t *testing.T) {
				login(t, s, environment, row.token, row.args...).WantError(t, row.want)
			})
		}
		for url, want := range map[string]string{
			"reset.example": "is not a URL", "http://user:hunter2@127.0.0.1:1": "has a user or a password", "http://127.0.0.1:1": "no answer",
		} {
			command(t, environment, "login", url, "--token-file", terminaltest.File(t, calltest.Token), "--name", "new").WantError(t, want)
		}
		if names, err := (contexts{dir: dir}).names(); err != nil || len(names) != 2 {
			t.Errorf("contexts %v, %v", names, err)
		}
	})
	t.Run("does not lead a context to another server", func(t *testing.T) {
		other := newFakeService(t)
		login(t, other, environment, calltest.Token, "--name", "lab").WantError(t, "the context lab is of "+s.URL)
		login(t, s, environment, calltest.Token, "--name", "lab").OK(t) // another token for the same is fine
	})
	t.Run("forgets", func(t *testing.T) {
		command(t, environment, "logout").OK(t)
		command(t, environment, "whoami").WantError(t, "or keep one with 'batchreset login'")
		command(t, environment, "logout").WantError(t, "there is no current context")
		command(t, environment, "context", "use", "lab").WantError(t, "there is no context lab")
		command(t, environment, "context", "remove", "lab").WantError(t, "there is no context lab")
		if out := command(t, environment, "context", "list", "-o", "jsonl").OK(t).Out; strings.Count(out, "\n") != 1 || strings.Contains(out, "token") {
			t.Errorf("contexts %s", out)
		}
	})
	t.Run("needs a place", func(t *testing.T) {
		login(t, s, nil, calltest.Token).WantError(t, "--config-dir is missing")
	})
}

// TestWhoWins has two services, of which a context, the environment and the command line
// mean one or the other.
// Who had to name a private authority to log in does not have to again, wherever the next command is started.
func TestLoginKeepsWhereCertificatesAre(t *testing.T) {
	plain := newFakeService(t)
	server := httptest.NewTLSServer(plain.Config.Handler)
	defer server.Close()
	_, environment := configDir(t)
	t.Chdir(t.TempDir())
	if err := os.WriteFile("ca.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	terminaltest.Run(t.Context(), newRootCommand, &terminal.Streams{In: strings.NewReader(calltest.Token), Environment: environment},
		"login", server.URL, "--ca-file", "ca.crt").OK(t)
	t.Chdir(t.TempDir())
	command(t, environment, "jobs").OK(t)
	command(t, environment, "jobs", "--ca-file", "none.crt").WantError(t, "none.crt") // a flag wins
	command(t, environment, "jobs", "--server", plain.URL, "--token", calltest.Token).OK(t)
}

func TestWhoWins(t *testing.T) {
	here, there := newFakeService(t), newFakeService(t)
	here.Add("phone-1")
	_, environment := configDir(t)
	login(t, there, environment, calltest.Token, "--name", "there").OK(t)
	login(t, here, environment, calltest.Token, "--name", "here").OK(t)
	const job = `"job_id"`
	for _, row := range []struct {
		name, args string
		more       map[string]string
		jobs       bool
		want       string
	}{
		{"the current context", "jobs", nil, true, ""},
		{"a variable over the current one", "jobs", map[string]string{"CONTEXT": "there"}, false, ""},
		{"a flag over the variable", "jobs --context here", map[string]string{"CONTEXT": "there"}, true, ""},
		{"a context on the command line over what the environment says", "jobs --context here", map[string]string{"SERVER": there.URL, "TOKEN": "wrong"}, true, ""},
		{"the environment over the context", "jobs", map[string]string{"SERVER": there.URL, "TOKEN": calltest.Token}, false, ""},
		{"a wrong token of the environment", "jobs", map[string]string{"TOKEN": "wrong"}, false, "APIGW.0301"},
		{"a token on the command line", "jobs --token " + calltest.Token, map[string]string{"TOKEN": "wrong"}, true, ""},
		{"the server of the context, spelled otherwise", "jobs --server " + here.URL + "/", nil, true, ""},
		{"another server has not the context's token", "jobs --server " + there.URL, nil, false, "is not sent to another server"},
		{"nor by a variable", "jobs", map[string]string{"SERVER": there.URL}, false, "is not sent to another server"},
		{"a context that is not there", "jobs --context nowhere", nil, false, "--context: there is no context nowhere"},
		{"a context whose name is a path", "jobs --context ../x", nil, false, "is not a name of a context"},
	} {
		t.Run(row.name, func(t *testing.T) {
			with := maps.Clone(environment)
			for name, value := range row.more {
				with["BATCHRESET_"+name] = value
			}
			r := command(t, with, append(strings.Fields(row.args), "-o", "json")...)
			if row.want != "" {
				r.WantError(t, row.want)
			} else if r.OK(t); strings.Contains(r.Out, job) != row.jobs {
				t.Errorf("it asked the other service: %s", r.Out)
			}
		})
	}
}

func TestAContextThatIsNotPrivate(t *testing.T) {
	s := newFakeService(t)
	dir, environment := configDir(t)
	login(t, s, environment, calltest.Token, "--name", "lab").OK(t)
	path := contexts{dir: dir}.path("lab")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	command(t, environment, "jobs").WantError(t, "can be read or changed by others (mode 0640)")
	command(t, environment, "context", "list").WantError(t, "chmod 600")
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, environment, "jobs").OK(t)
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	command(t, environment, "jobs").WantError(t, "is not a context; 'batchreset login' makes it anew")
	// What names a server and a token needs none.
	command(t, environment, "jobs", "--server", s.URL, "--token", calltest.Token).OK(t)
}

func TestLoginsAtTheSameTime(t *testing.T) {
	s := newFakeService(t)
	dir, environment := configDir(t)
	names := []string{"a", "b", "c", "d", "a", "b", "c", "d"}
	var logins sync.WaitGroup
	for _, name := range names {
		logins.Go(func() { login(t, s, environment, calltest.Token, "--name", name) })
	}
	logins.Wait()
	kept, err := contexts{dir: dir}.list()
	current := 0
	for _, c := range kept {
		if c.Server != s.URL {
			t.Errorf("context %+v", c)
		}
		if c.Current {
			current++
		}
	}
	if err != nil || len(kept) != 4 || current != 1 {
		t.Errorf("%d contexts, %d current, %v", len(kept), current, err)
	}
	files, err := os.ReadDir(filepath.Join(dir, "contexts"))
	if err != nil || len(files) != 4 {
		t.Errorf("%v, %v", files, err)
	}
}

func TestQuietIsQuiet(t *testing.T) {
	s := newFakeService(t)
	r := s.callWith(context.Background(), strings.NewReader(""), "submit", "phone-1", "--wait", "-q")
	r.Wants(t, 0, job1+"\n")
	if r.Said != "" {
		t.Errorf("it says %q", r.Said)
	}
	s.call(t, "status", job2, "--quiet").Wants(t, terminal.ExitRefused, "", "RESET.0001")
}

func TestWhereContextsAreKept(t *testing.T) {
	for _, row := range []struct {
		environment map[string]string
		want        string
	}{
		{map[string]string{"HOME": "/home/x"}, "/home/x/.config/batchreset"},
		{map[string]string{"HOME": "/home/x", "XDG_CONFIG_HOME": "/xdg"}, "/xdg/batchreset"},
		{map[string]string{"HOME": "/home/x", "XDG_CONFIG_HOME": "relative"}, "/home/x/.config/batchreset"},
		{map[string]string{"XDG_CONFIG_HOME": "relative"}, ""},
		{nil, ""},
	} {
		if got := defaultConfigDir(row.environment); got != row.want {
			t.Errorf("%v: %s, want %s", row.environment, got, row.want)
		}
	}
	if _, err := os.Stat("/home/x"); err == nil {
		t.Error("asking makes a directory")
	}
}
