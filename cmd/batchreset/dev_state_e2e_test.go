package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/api/client"
	"batchreset/cmd/harness"
)

// devOn is a dev that keeps its state, as a process of its own.
type devOn struct {
	*process
	redis  string
	client *client.Client
	env    map[string]string // for commands
}

var (
	devRedis = regexp.MustCompile(`fleet list --redis (\S+)\n`)
	devAPI   = regexp.MustCompile(`API +(http://\S+)`)
)

func startDevOn(t *testing.T, dir string, args ...string) devOn {
	t.Helper()
	p := start(t, append([]string{"dev", "--state", dir, "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"}, args...)...)
	harness.Eventually(t, patience, "dev greets", func() bool { return devRedis.MatchString(p.said()) })
	d := devOn{process: p, redis: devRedis.FindStringSubmatch(p.said())[1]}
	server := devAPI.FindStringSubmatch(p.said())[1]
	d.env = map[string]string{"BATCHRESET_REDIS": d.redis, "BATCHRESET_SERVER": server, "BATCHRESET_TOKEN": "demo-token"}
	var err error
	if d.client, err = client.New(server, "demo-token"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.client.Close)
	return d
}

func (d devOn) command(args string) string {
	d.t.Helper()
	return command(d.t, d.env, strings.Fields(args)...).OK(d.t).Out
}

func (d devOn) submit(instances ...string) string {
	d.t.Helper()
	return d.submitBatch(client.Batch{InstanceIDs: instances})
}

func (d devOn) submitBatch(batch client.Batch) string {
	d.t.Helper()
	job, err := d.client.Submit(d.t.Context(), batch)
	if err != nil {
		d.t.Fatal(err)
	}
	return job.JobID
}

func (d devOn) job(id string) client.Job {
	d.t.Helper()
	job, err := d.client.Job(d.t.Context(), id)
	if err != nil {
		d.t.Fatal(err)
	}
	return job
}

func (d devOn) wait(id string) client.Job {
	d.t.Helper()
	job, err := d.client.Wait(d.t.Context(), id, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return job
}

// saves waits for a snapshot that was taken after now, and has a text in it.
func (d devOn) saves(dir, text string) {
	d.t.Helper()
	after := time.Now().Add(time.Second) // it is written within that after it was taken
	file := filepath.Join(dir, "redis.state")
	harness.Eventually(d.t, patience, "dev saves "+text, func() bool {
		info, err := os.Stat(file)
		if err != nil || info.ModTime().Before(after) {
			return false
		}
		content, err := os.ReadFile(file)
		return err == nil && bytes.Contains(content, []byte(text))
	})
}

// wantOneAtATime wants attempts of which none began before the one before had ended.
func wantOneAtATime(t *testing.T, item client.Item) {
	t.Helper()
	var ended time.Time
	for _, past := range item.History {
		if past.StartedAt.Before(ended) || past.FinishedAt.IsZero() {
			t.Errorf("attempt %d of %s began at %v, and the one before it ended at %v", past.Number, item.InstanceID, past.StartedAt, ended)
		}
		ended = past.FinishedAt
	}
	if item.StartedAt.IsZero() || item.FinishedAt.Before(ended) {
		t.Errorf("%+v", item)
	}
}

func TestDevGoesOnWhereItEnded(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	hooks := newReceiver(t)
	hooks.open(t)
	args := []string{"--simulator-latency", "100ms", "--webhook-url", "http://" + hooks.addr}
	d := startDevOn(t, dir, args...)
	if said := d.said(); !strings.Contains(said, "This is no durability") || !strings.Contains(said, dir) {
		t.Errorf("it says %s", said)
	}
	secret := regexp.MustCompile(`signed with (\S+)`).FindStringSubmatch(d.said())[1]
	done := d.submit("phone-1", "phone-2")
	d.wait(done)
	other := strings.TrimSpace(d.command("token add --tenant acme"))
	list := filepath.Join(t.TempDir(), "fleet.csv")
	if err := os.WriteFile(list, []byte("instance_id,tenant\nphone-9,demo\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.command("fleet import " + list)
	d.command("fleet protect phone-9 --reason lawyers")
	d.command("halt --all --reason storm")
	// The halt is seen within a second.
	held := d.submitBatch(client.Batch{InstanceIDs: []string{"phone-3", "phone-4"}, NotBefore: time.Now().Add(2 * time.Second)})
	first := d.redis
	d.stop()

	d = startDevOn(t, dir, args...)
	if strings.Contains(d.said(), "did not end by itself") || d.redis == first {
		t.Errorf("it says %s", d.said())
	}
	if again := regexp.MustCompile(`signed with (\S+)`).FindStringSubmatch(d.said())[1]; again != secret || strings.Count(d.command("webhook list"), hooks.addr) != 1 {
		t.Errorf("the endpoint is not the same: %s\n%s", again, d.command("webhook list"))
	}
	if job := d.job(done); job.State != "succeeded" || job.Items[0].Attempts != 1 {
		t.Errorf("the job is %+v", job)
	}
	for what, want := range map[string]string{"fleet list": "phone-9", "tenant list": "storm", "audit": "halt", "token list": "acme"} {
		if got := d.command(what); !strings.Contains(got, want) {
			t.Errorf("%s lacks %s:\n%s", what, want, got)
		}
	}
	if n := strings.Count(d.command("token list"), "demo"); n != 1 {
		t.Errorf("the demo tenant has %d tokens:\n%s", n, d.command("token list"))
	}
	if job := d.job(held); job.State != "pending" {
		t.Errorf("what waited is %+v", job)
	}
	d.command("resume --all")
	if job := d.wait(held); job.State != "succeeded" || slices.ContainsFunc(job.Items, func(i client.Item) bool { return i.Attempts != 1 }) {
		t.Errorf("what waited is %+v", job)
	}
	d.env["BATCHRESET_TOKEN"] = other
	d.command("submit --wait phone-5")
	harness.Eventually(t, patience, "both jobs are told", func() bool {
		_, told := hooks.got()
		return told[done+"-finished-2"] && told[held+"-finished-2"]
	})
	d.command("token revoke " + strings.Fields(lineWith(t, d.command("token list"), "demo"))[0])
	d.stop()

	d = startDevOn(t, dir, args...)
	if _, err := d.client.Job(t.Context(), done); err == nil || !strings.Contains(d.said(), "was revoked or has expired") {
		t.Errorf("a token that was revoked works again: %v\n%s", err, d.said())
	}
	d.stop()
}

func lineWith(t *testing.T, text, part string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	t.Fatalf("no line has %s:\n%s", part, text)
	return ""
}

// TestDevEndsInTheMiddleOfResets has items under way when dev ends, in each way.
func TestDevEndsInTheMiddleOfResets(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(devOn){
		"told to stop": func(d devOn) { d.stop() },
		"killed": func(d devOn) {
			d.Kill()
			if err := <-d.done; err == nil {
				d.t.Error("it ended well")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			d := startDevOn(t, dir, "--simulator-latency", "1h", "--shutdown-timeout", "100ms", "--concurrency", "2", "--lanes", "1")
			job := d.submit("phone-1", "phone-2", "phone-3")
			waited := map[string]bool{}
			harness.Eventually(t, patience, "two run", func() bool {
				now := d.job(job)
				for _, item := range now.Items {
					waited[item.InstanceID] = item.State != "running"
				}
				return now.Counts.Running == 2
			})
			d.saves(dir, job)
			end(d)

			d = startDevOn(t, dir, "--simulator-latency", "10ms")
			if killed := strings.Contains(d.said(), "did not end by itself"); killed != (name == "killed") {
				t.Errorf("it says %s", d.said())
			}
			got := d.wait(job)
			for _, item := range got.Items {
				wantOneAtATime(t, item)
				if item.State != "succeeded" && (item.State != "unknown" || waited[item.InstanceID]) {
					t.Errorf("%+v", item)
				}
				if waited[item.InstanceID] && item.Attempts != 1 {
					t.Errorf("it waited, and has %d attempts: %+v", item.Attempts, item)
				}
			}
			d.stop()
		})
	}
}
