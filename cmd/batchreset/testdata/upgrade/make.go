// Command make wrote dump.rdb and saved.json, the Redis that TestUpgrade starts from, with the
// api and the worker of the version before issue 13:
//
//	git worktree add /tmp/old 610f59e && (cd /tmp/old && go build -o batchreset-old ./cmd/batchreset)
//	go run ./cmd/batchreset/testdata/upgrade/make.go /tmp/old/batchreset-old cmd/batchreset/testdata/upgrade
//
// It is kept to say how they came to be; the files are not made anew.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// saved is what the test must know of the file.
type saved struct {
	At     int64             `json:"at"`     // ms since 1970
	Plane  string            `json:"plane"`  // URL of the control plane, which is in checkpoints
	Tokens map[string]string `json:"tokens"` // by tenant; of this file alone
	Jobs   map[string]string `json:"jobs"`   // by what they are
	TTL    map[string]int64  `json:"ttl"`    // ms, by key: the file has none, for it would be empty in a week
}

var (
	ctx    = context.Background()
	old    string
	redis0 string
	out    = saved{Tokens: map[string]string{}, Jobs: map[string]string{}, TTL: map[string]int64{}}
	api    string
	rdb    *redis.Client
)

func must[T any](v T, err error) T {
	if err != nil {
		log.Panic(err)
	}
	return v
}

func free() string {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	return l.Addr().String()
}

func run(args ...string) string {
	cmd := exec.Command(old, args...)
	cmd.Env = append(os.Environ(), "BATCHRESET_REDIS="+redis0)
	cmd.Stderr = os.Stderr
	lines := strings.Split(strings.TrimSpace(string(must(cmd.Output()))), "\n")
	return lines[len(lines)-1]
}

func background(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "BATCHRESET_REDIS="+redis0)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		log.Panic(err)
	}
	return cmd
}

func call(tenant, method, path, body string) map[string]any {
	r := must(http.NewRequest(method, api+path, strings.NewReader(body)))
	r.Header.Set("X-Auth-Token", out.Tokens[tenant])
	a := must(http.DefaultClient.Do(r))
	defer a.Body.Close()
	text := must(io.ReadAll(a.Body))
	if a.StatusCode != http.StatusOK {
		log.Panicf("%s %s: %s", method, path, text)
	}
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		log.Panic(err)
	}
	if data, ok := answer["data"].(map[string]any); ok {
		return data
	}
	return answer
}

func submit(name, tenant, options string, instances ...string) {
	list := must(json.Marshal(instances))
	out.Jobs[name], _ = call(tenant, http.MethodPost, "/v1/instances/batch-reset", fmt.Sprintf(`{"instance_ids":%s%s}`, list, options))["task_id"].(string)
}

func key(name string) string { return "reset:{" + out.Jobs[name] + "}" }

// wait waits until item n of the job begins with one of the letters.
func wait(name string, n int, letters string) {
	for range 600 {
		if raw := rdb.HGet(ctx, key(name), fmt.Sprint(n)).Val(); raw != "" && strings.ContainsAny(raw[:1], letters) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	log.Panicf("%s, item %d: %s", name, n, rdb.HGet(ctx, key(name), fmt.Sprint(n)).Val())
}

func main() {
	old = os.Args[1]
	target := os.Args[2]
	dir := must(os.MkdirTemp("", "upgrade"))
	defer os.RemoveAll(dir)
	address := free()
	redis0 = "redis://" + address
	_, port, _ := net.SplitHostPort(address)
	server := background("redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no")
	defer server.Process.Kill()
	rdb = redis.NewClient(&redis.Options{Addr: address, Protocol: 2})
	for rdb.Ping(ctx).Err() != nil {
		time.Sleep(50 * time.Millisecond)
	}

	// What an instance does is in its name.
	plane := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // so that the server sees the connection end
		switch does, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "-"); does {
		case "ok":
		case "bad":
			w.WriteHeader(http.StatusInternalServerError)
		case "later":
			w.Header().Set("Retry-After", "3600")
			w.WriteHeader(http.StatusTooManyRequests)
		case "lost":
			panic(http.ErrAbortHandler)
		case "poll":
			w.Header().Set("Location", "/operations"+r.URL.Path)
			w.WriteHeader(http.StatusAccepted)
		case "operations/poll":
			w.WriteHeader(http.StatusAccepted)
		default:
			<-r.Context().Done()
		}
	}))
	out.Plane = plane.URL

	for _, tenant := range []string{"acme", "halted", "stopped", "limited"} {
		out.Tokens[tenant] = run("token", "add", "--tenant", tenant, "--scope", "submit,read,cancel,operate")
	}
	run("tenant", "limit", "--tenant", "limited", "--instances-per-hour", "3", "--open-instances", "2", "--requests-per-second", "50", "--max-failures", "1")
	apiAt := free()
	api = "http://" + apiAt
	apiProcess := background(old, "api", "--listen", apiAt, "--ops-listen", "127.0.0.1:0", "--fleet", "open")
	defer apiProcess.Process.Kill()
	for {
		if a, err := http.Get(api + "/readyz"); err == nil && a.StatusCode == http.StatusOK {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	// One halt by the tenant itself, one by an operator.
	call("halted", http.MethodPost, "/v1/halt", `{"reason":"wrong list"}`)
	run("halt", "--tenant", "stopped", "--reason", "asked by the owner")

	w := background(old, "worker", "--ops-listen", "127.0.0.1:0", "--driver", "http", "--driver-url", plane.URL+"/{instance_id}", "--max-attempts", "2")
	submit("succeeded", "acme", "", "ok-1", "ok-2")
	submit("failed", "acme", "", "bad-1")
	submit("unknown", "acme", "", "lost-1")
	submit("retrying", "acme", "", "later-1")
	submit("dead", "acme", "", "hang-1")
	submit("checkpoint", "acme", `,"labels":{"wave":"2"},"reason":"upgrade"`, "poll-1")
	submit("mixed", "acme", "", "ok-3", "hang-2", "bad-2")
	submit("limited", "limited", "", "ok-4", "hang-4")
	submit("halted", "halted", "", "ok-5")
	submit("stopped", "stopped", "", "ok-6")
	submit("negative", "acme", "", "ok-7", "hang-7", "later-7")
	submit("cancelled", "acme", `,"not_before":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"`, "ok-8")
	call("acme", http.MethodPost, "/v1/jobs/"+out.Jobs["cancelled"]+"/cancel", "")
	wait("succeeded", 1, "s")
	wait("failed", 0, "f")
	wait("mixed", 2, "f")
	wait("mixed", 0, "s")
	wait("unknown", 0, "u")
	wait("retrying", 0, "w")
	wait("dead", 0, "r")
	wait("mixed", 1, "r")
	wait("limited", 1, "r")
	wait("negative", 1, "r")
	wait("negative", 2, "w")
	for !strings.Contains(rdb.HGet(ctx, key("checkpoint"), "0").Val(), "operations") {
		time.Sleep(50 * time.Millisecond)
	}
	submit("busy", "acme", "", "hang-1")
	for !strings.Contains(rdb.HGet(ctx, key("busy"), "0").Val(), `"y"`) {
		time.Sleep(50 * time.Millisecond)
	}
	if err := w.Process.Kill(); err != nil {
		log.Panic(err)
	}
	_ = w.Wait()
	submit("pending", "acme", "", "ok-9", "ok-10")
	submit("scheduled", "acme", `,"not_before":"`+time.Now().Add(time.Hour).UTC().Format(time.RFC3339)+`"`, "ok-11")

	// What the old scripts wrote when Redis's clock was set back by 7 ms after the submit.
	for n, raw := range rdb.HMGet(ctx, key("negative"), "0", "1", "2").Val() {
		text, rest, _ := strings.Cut(raw.(string), " {")
		f := strings.Split(text, " ")
		f[2] = "-7"
		if len(f) > 6 && f[6] != "" {
			f[6] = "-7"
		}
		text = strings.Join(f, " ")
		if n == 2 {
			rest = `"f":1,"y":-3,"h":[{"n":1,"b":-7,"e":-2,"o":"w","c":"RESET.1007"}]}`
		}
		if rest != "" {
			text += " {" + rest
		}
		rdb.HSet(ctx, key("negative"), n, text)
	}
	// A record of a version that is not known, whose task is lost.
	now := time.Now().UnixMilli()
	out.Jobs["version1"] = "0123456789abcdef0123456789abcdef"
	must(rdb.HSet(ctx, key("version1"), map[string]any{
		"v": "1", "created": now, "end": now + 24*time.Hour.Milliseconds(), "keep": "604800",
		"tenant": "acme", "queue": "reset-0", "open": "1", "request_id": "KURFLOJJSPT2N52MVF4KGO7VLA",
		"total": "3", "pending": "1", "running": "1", "succeeded": "1", "started": now + 31, "rev": "5",
		"0": `{"i":"ok-21","s":"s","a":1,"b":27,"e":1035}`,
		"1": `{"i":"hang-22","s":"r","a":1,"b":27,"t":"KXZ5QWLQTW4G","k":"Y3VQ7LSGCX2F"}`,
		"2": `{"i":"ok-23","s":"p"}`,
	}).Result())
	for _, index := range []string{"reset:open", "reset:jobs", "reset:jobs:{acme}"} {
		must(rdb.ZAdd(ctx, index, redis.Z{Score: float64(now), Member: out.Jobs["version1"]}).Result())
	}

	out.At = time.Now().UnixMilli()
	for _, k := range rdb.Keys(ctx, "*").Val() {
		if ttl := rdb.PTTL(ctx, k).Val(); ttl > 0 {
			out.TTL[k] = ttl.Milliseconds()
			rdb.Persist(ctx, k)
		}
	}
	must(rdb.Save(ctx).Result())
	must(0, os.WriteFile(filepath.Join(target, "dump.rdb"), must(os.ReadFile(filepath.Join(dir, "dump.rdb"))), 0o644))
	must(0, os.WriteFile(filepath.Join(target, "saved.json"), append(must(json.MarshalIndent(out, "", "  ")), '\n'), 0o644))
	for name := range out.Jobs {
		fmt.Fprintln(os.Stderr, name, rdb.HGetAll(ctx, key(name)).Val())
	}
}
