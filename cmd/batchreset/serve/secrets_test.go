package serve

import (
	"encoding/base64"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

// Who has the wrong --secret-key-file hears of it at the start, and /readyz says it.
func TestASecretKeyFileThatOpensNothingIsSeenAtTheStart(t *testing.T) {
	url := redistest.Start(t).URL()
	open := func(letter string) (*process, *redisflags.Seals, *strings.Builder) {
		var seals redisflags.Seals
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		seals.Define(flags)
		if letter != "" {
			path := filepath.Join(t.TempDir(), "secret.key")
			if err := os.WriteFile(path, []byte(base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, 32)))), 0o600); err != nil {
				t.Fatal(err)
			}
			mode := map[string]os.FileMode{"a": 0o440, "b": 0o644}[letter] // a: as in a pod
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if err := flags.Set("secret-key-file", path); err != nil {
				t.Fatal(err)
			}
		}
		keys, err := seals.Read()
		if err != nil {
			t.Fatal(err)
		}
		db, err := redisdb.Open(t.Context(), redisdb.Options{URL: url, Seals: keys})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		var log strings.Builder
		return &process{db: db, log: slog.New(slog.NewTextHandler(&log, nil))}, &seals, &log
	}
	right, seals, log := open("a")
	access, secret := tasks.NewAccessKey()
	if _, err := right.db.Tokens.AddKey(t.Context(), access, secret, tasks.Token{Tenant: "acme", Scopes: tasks.DefaultScopes}, 0, tasks.Actor{}); err != nil {
		t.Fatal(err)
	}
	if got := right.secretsText(); got != "not known" {
		t.Errorf("before it looked: %q", got)
	}
	if err := right.lookAtSecrets(seals)(t.Context()); err != nil || right.secretsText() != "ok" || log.String() != "" {
		t.Errorf("the right file: %v, %q, %s", err, right.secretsText(), log)
	}
	for letter, want := range map[string]string{"": "is not given", "b": "others may read"} {
		wrong, seals, log := open(letter)
		if err := wrong.lookAtSecrets(seals)(t.Context()); err != nil || wrong.secretsText() != "unreadable" {
			t.Errorf("%q: %v, %q", letter, err, wrong.secretsText())
		}
		for _, want := range []string{want, "level=ERROR", "--secret-key-file is missing, or is not the one", "unreadable=1", access} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%q: the log does not say %q: %s", letter, want, log)
			}
		}
		if strings.Contains(log.String(), secret) {
			t.Error("the log has the secret")
		}
	}
}
