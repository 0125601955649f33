package serve

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// startInside starts an embedded Redis.
func startInside(t *testing.T) embedded {
	t.Helper()
	e, err := startEmbedded()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// ask does a command in it.
func ask(t *testing.T, e embedded, args ...string) any {
	t.Helper()
	c, err := e.connect()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.do(args...)
	if err != nil {
		t.Fatalf("%v: %v", args, err)
	}
	return answer
}

func taken(t *testing.T, e embedded) snapshot {
	t.Helper()
	s, err := e.take()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// throughAFile is a snapshot as it is read again.
func throughAFile(t *testing.T, s snapshot) snapshot {
	t.Helper()
	content, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	s, err = decodeSnapshot(content)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// work has dev work on an embedded Redis that it takes for a real one, with every kind of thing that is kept.
func work(t *testing.T, redis embedded) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		root := terminaltest.Root(Commands)(&terminal.Streams{In: strings.NewReader(""), Out: in, Err: io.Discard})
		ended <- errors.Join(terminal.Execute(ctx, root, []string{
			"dev", "--redis", redis.url, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--simulator-latency", "50ms",
		}), in.Close())
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	greets := regexp.MustCompile(`API +(http://\S+) +tenant demo, token (\S+)`)
	var greeting []string
	for lines := bufio.NewScanner(out); greeting == nil && lines.Scan(); {
		greeting = greets.FindStringSubmatch(lines.Text())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	if greeting == nil {
		t.Fatal("dev does not greet")
	}

	db, err := redisdb.Open(t.Context(), redisdb.Options{URL: redis.url, Roles: []redisdb.Role{redisdb.RoleAPI}, Embedded: true, Queues: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	actor := terminal.Actor("test")
	if _, err := db.Endpoints.Add(t.Context(), tasks.NewEndpoint(demoTenant, "http://127.0.0.1:9/hook", tasks.Topics), actor); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Tokens.Add(t.Context(), "another", tasks.Token{Tenant: "acme", Scopes: tasks.Scopes}, time.Hour, actor); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(greeting[1], greeting[2])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, key := range []string{"one", ""} {
		job, err := c.Submit(t.Context(), client.Batch{InstanceIDs: []string{"phone-1", "phone-2", "phone-3"}, IdempotencyKey: key})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Wait(t.Context(), job.JobID, nil); err != nil {
			t.Fatal(err)
		}
	}
	later := client.Batch{InstanceIDs: []string{"phone-4"}, NotBefore: time.Now().Add(time.Hour)}
	if _, err := c.Submit(t.Context(), later); err != nil {
		t.Fatal(err)
	}
}

// TestASnapshotHasAll compares all that real work leaves in a Redis, and what it may leave one day, with what is read from a snapshot.
func TestASnapshotHasAll(t *testing.T) {
	t.Parallel()
	first := startInside(t)
	work(t, first)
	hour := strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10)
	binary := "\x00\xff\r\n$-1\r\n"
	for _, args := range [][]string{
		{"SET", "a string", binary},
		{"SET", "empty", ""},
		{"SET", "short-lived", "x", "PXAT", hour},
		{"HSET", "hash", binary, "1", "", "2"},
		{"RPUSH", "list", "b", "a", "b", binary},
		{"SADD", "set", "a", binary},
		{"ZADD", "zset", "inf", "a", "-inf", "b", "0.1", "c", "1764547200000.25", "d", strconv.FormatFloat(math.Pi, 'g', -1, 64), binary},
		{"XADD", "stream", "5-1", "f", "1", "f", binary},
		{"XADD", "stream", "7-0", "g", ""},
		{"PEXPIREAT", "stream", hour},
		{"XADD", "empty stream", "5-1", "f", "1"},
		{"XTRIM", "empty stream", "MAXLEN", "0"},
		{"SET", binary, "a key"},
	} {
		ask(t, first, args...)
	}
	want := taken(t, first)
	kinds := map[string]int{}
	for _, k := range want.Keys {
		if strings.HasPrefix(k.Name, "reset:") || strings.HasPrefix(k.Name, "asynq:") {
			kinds[k.Type]++
		}
	}
	for _, kind := range []string{"string", "hash", "set", "zset", "stream"} { // asynq's lists are gone once the work is done
		if kinds[kind] == 0 {
			t.Errorf("the work left no %s: %v", kind, kinds)
		}
	}
	second := startInside(t)
	if err := second.put(throughAFile(t, want)); err != nil {
		t.Fatal(err)
	}
	compare(t, want, taken(t, second))
	if got := ask(t, second, "XLEN", "empty stream"); got != 0 {
		t.Errorf("the empty stream has %v entries", got)
	}
}

// compare wants the same keys. When one expires is rounded twice, and what was about to may be gone.
func compare(t *testing.T, want, got snapshot) {
	t.Helper()
	have := map[string]keptKey{}
	for _, k := range got.Keys {
		have[k.Name] = k
	}
	for _, k := range want.Keys {
		other, found := have[k.Name]
		delete(have, k.Name)
		soon := k.Expires >= 0 && k.Expires <= time.Now().UnixMilli()
		switch {
		case !found && soon:
		case !found:
			t.Errorf("%s %q is missing", k.Type, k.Name)
		case other.Type != k.Type || !reflect.DeepEqual(slices.Clone(other.Values), slices.Clone(k.Values)):
			t.Errorf("%q is %+v, and was %+v", k.Name, other, k)
		case (k.Expires < 0) != (other.Expires < 0), math.Abs(float64(k.Expires-other.Expires)) > 50:
			t.Errorf("%q expires at %d, and did at %d", k.Name, other.Expires, k.Expires)
		}
	}
	for name := range have {
		t.Errorf("%q was not there", name)
	}
}

func TestWhatHasExpiredStaysAway(t *testing.T) {
	e := startInside(t)
	past := time.Now().Add(-time.Second).UnixMilli()
	if err := e.put(snapshot{Keys: []keptKey{{"late", "string", past, []string{"x"}}, {"lasting", "string", -1, []string{"x"}}}}); err != nil {
		t.Fatal(err)
	}
	if keys := e.Keys(); !slices.Equal(keys, []string{"lasting"}) {
		t.Errorf("there are %v", keys)
	}
}

func TestASnapshotIsOfOneMoment(t *testing.T) {
	t.Parallel()
	e := startInside(t)
	done := make(chan struct{})
	writer, err := e.connect()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		for n := range 3000 { // both keys change in one step
			if _, err := writer.do("EVAL", `redis.call('SET', 'a', ARGV[1]) redis.call('SET', 'z', ARGV[1])`, "0", strconv.Itoa(n)); err != nil {
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if keys := taken(t, e).Keys; len(keys) == 2 && keys[0].Values[0] != keys[1].Values[0] {
			t.Fatalf("half of a step: %v", keys)
		}
	}
}

func stateIn(t *testing.T, dir string, redis embedded) (*state, error) {
	t.Helper()
	s, err := openState(dir, redis, newLogger(io.Discard))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.lock.Close() })
	return s, s.load()
}

func TestAStateThatCannotBeReadIsRefused(t *testing.T) {
	good, err := snapshot{Taken: time.Now(), Keys: []keptKey{{"k", "string", -1, []string{"some value"}}}}.encode()
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := snapshot{Keys: []keptKey{{"k", "vectorset", -1, nil}}}.encode()
	if err != nil {
		t.Fatal(err)
	}
	odd := bytes.Clone(good)
	odd[len(odd)-3] ^= 1
	for name, row := range map[string]struct {
		content []byte
		want    string
	}{
		"empty":         {nil, "is no state of dev"},
		"another file":  {[]byte("REDIS0011\n"), "is no state of dev"},
		"of the future": {[]byte("batchreset dev state, format 2\nwhatever"), `has the format "2", and this version of batchreset knows 1`},
		"cut off":       {good[:40], "is cut off"},
		"half":          {good[:len(good)-5], "is broken"},
		"one bit":       {odd, "is broken"},
		"a new type":    {unknown, "has the type vectorset"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "redis.state")
			if err := os.WriteFile(file, row.content, 0o600); err != nil {
				t.Fatal(err)
			}
			got := command(t, nil, "dev", "--state", dir, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
			got.WantError(t, row.want)
			got.WantError(t, "nothing was changed. To begin anew, move it away: mv "+file+" "+file+".old")
			got.Exits(t, terminal.ExitOther)
			if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, row.content) {
				t.Errorf("the file was changed: %v", err)
			}
		})
	}
}

func TestTwoDevsDoNotShareAState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there yet")
	first, err := stateIn(t, dir, startInside(t))
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"dev", "--state", dir, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}
	command(t, nil, args...).WantError(t, "--state: another dev uses "+dir)
	command(t, nil, append(args, "--redis", "redis://127.0.0.1:1")...).WantError(t, "--redis and --state do not go together")
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := stateIn(t, dir, startInside(t)); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, first.file(): 0o600, filepath.Join(dir, "lock"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
}

// A dev that is killed while it writes leaves a file that is not whole beside the last one.
func TestASnapshotThatWasNotFinished(t *testing.T) {
	dir := t.TempDir()
	redis := startInside(t)
	s, err := stateIn(t, dir, redis)
	if err != nil {
		t.Fatal(err)
	}
	ask(t, redis, "SET", "k", "good")
	if err := s.save(false); err != nil {
		t.Fatal(err)
	}
	if err := s.lock.Close(); err != nil { // as the kernel does
		t.Fatal(err)
	}
	half := filepath.Join(dir, "redis.state.new-1")
	if err := os.WriteFile(half, []byte(stateTitle), 0o600); err != nil {
		t.Fatal(err)
	}
	next := startInside(t)
	if _, err := stateIn(t, dir, next); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, next, "GET", "k"); got != "good" {
		t.Errorf("it is %v", got)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", half, err)
	}
}

// Signs of life alone are not worth a write.
func TestAStateIsWrittenWhenSomethingHasChanged(t *testing.T) {
	redis := startInside(t)
	s, err := stateIn(t, t.TempDir(), redis)
	if err != nil {
		t.Fatal(err)
	}
	var last os.FileInfo
	for _, row := range []struct {
		args    string
		written bool
	}{
		{"SET k 1", true},
		{"SET k 1", false},
		{"SET alive 1 EX 5", false},
		{"PEXPIRE alive 9000", false},
		{"SET k 2", true},
		{"PEXPIRE k 7200000", true},
		{"GET k", false},
		{"PERSIST k", true},
		{"DEL k", true},
	} {
		ask(t, redis, strings.Fields(row.args)...)
		if err := s.save(false); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(s.file())
		if err != nil {
			t.Fatal(err)
		}
		if written := last == nil || !os.SameFile(last, info); written != row.written {
			t.Errorf("%s: written %v", row.args, written)
		}
		last = info
	}
}

// When the directory cannot be written to, the last state stays, and dev goes on.
func TestAStateThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	redis := startInside(t)
	s, err := stateIn(t, dir, redis)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s.log = newLogger(&log)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := s.keep(ctx); err != nil {
		t.Errorf("it ended dev: %v", err)
	}
	if !strings.Contains(log.String(), "the state was not saved; trying again") {
		t.Errorf("the log is %s", log.String())
	}
	if err := s.close(); err == nil || !strings.Contains(err.Error(), "--state") {
		t.Errorf("the last one: %v", err)
	}
}
