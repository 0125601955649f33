package redisdb

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks/redisdb/redistest"
	"batchreset/tasks/seal"
)

const usersFile = "../../deploy/redis/users.acl"

// documented are the rights of a user in usersFile.
func documented(t *testing.T, user string) []string {
	t.Helper()
	text, err := os.ReadFile(usersFile)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if words := strings.Fields(line); words[1] == user {
			return slices.DeleteFunc(words[2:], func(word string) bool { return strings.HasPrefix(word, ">") })
		}
	}
	t.Fatalf("there is no user %s", user)
	return nil
}

// TestEveryDocumentedRightIsNeededAndMissed takes the rights of api and worker away one by one:
// the process must end, and say which.
func TestEveryDocumentedRightIsNeededAndMissed(t *testing.T) {
	server := redistest.StartWithUsers(t, usersFile)
	admin := server.Client(t)
	opened := func(role Role, rights []string) error {
		words := []any{"ACL", "SETUSER", string(role), "reset", ">" + string(role) + "_password"}
		for _, right := range rights {
			words = append(words, right)
		}
		if err := admin.Do(t.Context(), words...).Err(); err != nil {
			t.Fatal(err)
		}
		db, err := Open(t.Context(), Options{URL: server.URLOf(string(role)), Roles: []Role{role}})
		if err == nil {
			_ = db.Close()
		}
		return err
	}
	missed := func(role Role, what string, rights []string, want string) {
		t.Helper()
		err := opened(role, rights)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s without %s: got %v, want %q", role, what, err, want)
		}
	}
	for _, role := range []Role{RoleAPI, RoleWorker} {
		all := documented(t, string(role))
		if err := opened(role, all); err != nil {
			t.Fatalf("%s: %v", role, err)
		}
		for i, right := range all {
			rest := slices.Delete(slices.Clone(all), i, i+1)
			pattern, ok := strings.CutPrefix(strings.TrimPrefix(right, "%R"), "~")
			if ok {
				before, _, _ := strings.Cut(pattern, "*")
				missed(role, right, rest, "keys like "+before)
			}
			if name, ok := strings.CutPrefix(right, "&"); ok {
				missed(role, right, rest, "subscribe to the channel "+name)
			}
		}
		for _, c := range commands {
			name := strings.ToLower(strings.Fields(c)[0])
			want := "must not run " + strings.ToUpper(name)
			if name == "info" {
				want = "'info'"
			}
			missed(role, name, append(slices.Clone(all), "-"+name), want)
		}
		missed(role, "EVAL", append(slices.Clone(all), "-eval"), "'eval'")
	}
}

// TestWithoutChannels is what Redis 7 gives a new user.
func TestWithoutChannels(t *testing.T) {
	server := redistest.StartWithUsers(t, usersFile)
	if err := server.Client(t).Do(t.Context(), "ACL", "SETUSER", "api", "reset", "on", ">api_password", "~*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Options{URL: server.URLOf("api"), Roles: []Role{RoleAPI}})
	want := `the Redis user "api" must not publish to the channel reset:enqueued, nor subscribe to the channel reset:enqueued, nor publish to the channel reset:finished, nor subscribe to the channel reset:finished, nor publish to the channel reset:runs, nor subscribe to the channel reset:runs, nor publish to the channel asynq:cancel, nor subscribe to the channel asynq:cancel; deploy/redis/users.acl has the rights that it needs`
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if db, err := Open(t.Context(), Options{URL: server.URLOf("api")}); err != nil {
		t.Errorf("without a role: %v", err)
	} else {
		_ = db.Close()
	}
}

// TestWhatAPIAndWorkerMustNotDo tries it.
func TestWhatAPIAndWorkerMustNotDo(t *testing.T) {
	server := redistest.StartWithUsers(t, usersFile)
	for role, barred := range map[Role][]string{
		RoleAPI: {
			"HSET reset:token:{x} tenant acme", "DEL reset:token:{x}", "ZADD reset:tokens 1 x", "HSET reset:operators alice x", "HSET reset:fleet:{phone-1} tenant acme",
			"ZADD reset:fleet 1 phone-1", "HSET reset:webhooks ep acme", "SADD reset:webhook:{acme} ep", "HSET reset:webhook:{acme}:ep url x",
			"DEL reset:lock:{phone-1}", "SET reset:worker:{x} y", "SET reset:sweeper x",
		},
		RoleWorker: {
			"HSET reset:token:{x} tenant acme", "DEL reset:token:{x}", "ZADD reset:tokens 1 x", "HSET reset:operators alice x", "ZADD reset:fleet 1 phone-1",
			"HSET reset:webhooks ep acme", "SADD reset:webhook:{acme} ep", "ZADD reset:runs:{acme} 1 x", "SET reset:pace:{acme} 1",
		},
	} {
		opts, err := redis.ParseURL(server.URLOf(string(role)))
		if err != nil {
			t.Fatal(err)
		}
		rdb := redis.NewClient(opts)
		t.Cleanup(func() { _ = rdb.Close() })
		for _, c := range append(barred, "GET foreign", "FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG GET *", "ACL LIST", "SHUTDOWN", "REPLICAOF NO ONE", "PUBLISH foreign x", "MONITOR") {
			var words []any
			for word := range strings.FieldsSeq(c) {
				words = append(words, word)
			}
			if err := rdb.Do(t.Context(), words...).Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
				t.Errorf("%s may %s: %v", role, c, err)
			}
		}
	}
}

// TestMakeSecrets makes those of docker-compose.yml, and has api, worker and commands log in.
func TestMakeSecrets(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"make-secrets", "users.acl"} {
		text, err := os.ReadFile("../../deploy/redis/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o700); err != nil { //nolint:gosec // it is run
			t.Fatal(err)
		}
	}
	script := filepath.Join(dir, "make-secrets")
	if out, err := exec.CommandContext(t.Context(), script).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	secrets := filepath.Join(dir, "secrets")
	if info, err := os.Stat(secrets); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("secrets: %v, %v", info, err)
	}
	if text, err := os.ReadFile(filepath.Join(secrets, "secret-key")); err != nil {
		t.Error(err)
	} else if _, err := seal.Read(text); err != nil {
		t.Errorf("secret-key %v", err)
	}
	server := redistest.Start(t, "aclfile "+filepath.Join(secrets, "users.acl"))
	for user, role := range map[string][]Role{"api": {RoleAPI}, "worker": {RoleWorker}, "operator": nil} {
		text, err := os.ReadFile(filepath.Join(secrets, user+"-url"))
		if err != nil {
			t.Fatal(err)
		}
		db, err := Open(t.Context(), Options{URL: strings.Replace(strings.TrimSpace(string(text)), "@redis:6379/", "@"+server.Addr+"/", 1), Roles: role})
		if err != nil {
			t.Errorf("%s: %v", user, err)
			continue
		}
		t.Cleanup(func() { _ = db.Close() })
	}
	if _, err := Open(t.Context(), Options{URL: server.URL()}); err == nil || !strings.Contains(err.Error(), "redis answers: NOAUTH") {
		t.Errorf("without a password: %v", err)
	}
	out, err := exec.CommandContext(t.Context(), script).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "is there already") {
		t.Errorf("a second time: %v\n%s", err, out)
	}
}
