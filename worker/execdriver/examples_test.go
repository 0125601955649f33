package execdriver

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchreset/worker"
)

// bench is a place to try one of the examples: a phone behind a stand-in of its tool.
type bench struct {
	state   string // the folder of the stand-in
	command []string
	cfg     Config
}

// newBench prepares an example of deploy/examples/exec, and the files of its stand-in.
func newBench(t *testing.T, cfg Config, files map[string]string, program string, args ...string) *bench {
	t.Helper()
	tools, err := filepath.Abs("testdata/tools")
	if err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs("../../deploy/examples/exec/" + program)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{state: t.TempDir(), cfg: cfg}
	b.command = append([]string{"env", "STATE=" + b.state, "PATH=" + tools + ":" + os.Getenv("PATH"), "PYTHONDONTWRITEBYTECODE=1", path}, args...)
	for name, text := range files {
		b.write(t, name, text)
	}
	return b
}

func (b *bench) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(b.state, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) read(t *testing.T, name string) string {
	t.Helper()
	return read(t, filepath.Join(b.state, name))
}

// driver is a new one each time, as after the death of a worker.
func (b *bench) driver(t *testing.T) (Driver, *logs) {
	t.Helper()
	cfg := b.cfg
	cfg.Command = b.command
	return open(t, cfg, "")
}

// attempt is one whose checkpoint is kept for the next.
func (b *bench) attempt(address string) *worker.Attempt {
	a := attempt()
	a.Address = address
	a.Save = func(_ context.Context, checkpoint string) error { a.Checkpoint = checkpoint; return nil }
	return &a
}

// reset makes one attempt.
func (b *bench) reset(t *testing.T, a *worker.Attempt) error {
	t.Helper()
	d, said := b.driver(t)
	err := d.Reset(limited(t), *a)
	if len(said.lines) > 0 {
		t.Logf("logged %q", said.lines)
	}
	return err
}

// wantDone makes an attempt that is done.
func (b *bench) wantDone(t *testing.T, a *worker.Attempt) {
	t.Helper()
	if err := b.reset(t, a); err != nil {
		t.Errorf("got %v", err)
	}
}

// wantSight looks.
func (b *bench) wantSight(t *testing.T, a *worker.Attempt, want worker.SightState, evidence string) {
	t.Helper()
	d, _ := b.driver(t)
	sight, err := d.(worker.Looker).Look(limited(t), *a)
	if err != nil || sight.State != want || !strings.Contains(sight.Evidence, evidence) || sight.Evidence == "" {
		t.Errorf("got %+v, %v", sight, err)
	}
}

func (b *bench) wantNoSight(t *testing.T, a *worker.Attempt, why string) {
	t.Helper()
	d, _ := b.driver(t)
	if sight, err := d.(worker.Looker).Look(limited(t), *a); err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("got %+v, %v", sight, err)
	}
}

// orphaned makes an attempt whose program is killed, and prepares the next.
func (b *bench) orphaned(t *testing.T, a *worker.Attempt) {
	t.Helper()
	wantVerdict(t, b.reset(t, a), worker.Unknown)
	a.Number, a.Ambiguous = 2, true
}

func TestTheExampleForADB(t *testing.T) {
	t.Parallel()
	env := adbServer(t)
	run := func(name string, change func(*adbd), test func(t *testing.T, b *bench, d *adbd)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newPhone(t, env), newADBD(t, change))
		})
	}
	wiping := func(how string) func(*adbd) { return func(d *adbd) { d.wipe = how } }
	run("wipes the phone, waits for it and sees that its data is gone", nil, func(t *testing.T, b *bench, d *adbd) {
		a := b.attempt(d.addr)
		b.wantDone(t, a)
		if d.has("/data/local/tmp/photo") || d.wiped() != 1 {
			t.Errorf("it was wiped %d times", d.wiped())
		}
		b.wantSight(t, a, worker.Initial, "batchreset.KEY1, from before the wipe in boot boot-1, is gone")
		d.pass(-time.Since(d.since) - time.Hour)
		b.wantSight(t, a, worker.Unclear, "booting")
		d.leave()
		b.wantNoSight(t, a, "adb does not reach")
		a.Checkpoint = ""
		b.wantSight(t, a, worker.Unclear, "no earlier run")
	})
	run("is not fooled by a phone that does nothing", wiping("lies"), func(t *testing.T, b *bench, d *adbd) {
		a := b.attempt(d.addr)
		wantVerdict(t, b.reset(t, a), worker.Retryable)
		if !d.has("/data/local/tmp/photo") || d.has("/data/local/tmp/batchreset.KEY1") {
			t.Error("the photo is gone, or the mark is not")
		}
		b.wantSight(t, b.marked(a, d), worker.NotInitial, "is still there")
	})
	run("passes on what the phone refuses", wiping("locked"), func(t *testing.T, b *bench, d *adbd) {
		if e := wantVerdict(t, b.reset(t, b.attempt(d.addr)), worker.Permanent); !strings.Contains(e.Message, "lock screen") {
			t.Errorf("got %+v", e)
		}
	})
	for name, row := range map[string]struct {
		change func(*adbd)
		says   string
	}{
		"that is not there":         {func(d *adbd) { d.addr = "gone" }, "not found"},
		"that is offline":           {func(d *adbd) { d.mute = true }, "offline"},
		"that does not know us yet": {func(d *adbd) { d.deny = true }, "unauthorized"},
	} {
		run("does nothing to a phone "+name, row.change, func(t *testing.T, b *bench, d *adbd) {
			if row.says == "not found" {
				d.leave()
			}
			if e := wantVerdict(t, b.reset(t, b.attempt(d.addr)), worker.Unreachable); !strings.Contains(e.Message, row.says) {
				t.Errorf("got %+v", e)
			}
			if d.wiped() > 0 {
				t.Error("it was wiped")
			}
		})
	}
	run("leaves a phone in doubt that does not come back", wiping("gone"), func(t *testing.T, b *bench, d *adbd) {
		ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
		defer cancel()
		a := b.attempt(d.addr)
		driver, _ := b.driver(t)
		if e := wantVerdict(t, driver.Reset(ctx, *a), worker.Unknown); !strings.Contains(e.Message, `its last progress was "away"`) || !e.Repeatable {
			t.Errorf("got %+v", e)
		}
		b.wantNoSight(t, a, "adb does not reach")
		// Somebody switches it on.
		d.listen(d.addr)
		a.Number, a.Ambiguous = 2, true
		b.wantDone(t, a)
		if d.wiped() != 1 {
			t.Errorf("it was wiped %d times", d.wiped())
		}
	})
	for name, wipe := range map[string]string{"before": "hears nothing", "after": "wipes"} {
		run("is stopped "+name+" the wipe", wiping(wipe), func(t *testing.T, b *bench, d *adbd) {
			ctx, cancel := context.WithCancel(limited(t))
			defer cancel()
			d.told = cancel
			a := b.attempt(d.addr)
			driver, _ := b.driver(t)
			wantVerdict(t, driver.Reset(ctx, *a), worker.Unknown)
			a.Number, a.Ambiguous = 2, true
			if wipe == "wipes" {
				b.wantDone(t, a)
			} else {
				b.wantSight(t, a, worker.Unclear, "wiping") // the command may still have its effect
				d.pass(400 * time.Second)
				b.wantSight(t, a, worker.NotInitial, "is still there")
				if e := wantVerdict(t, b.reset(t, a), worker.Retryable); !e.EndsDoubt {
					t.Errorf("got %+v", e)
				}
			}
			if want := map[string]int{"wipes": 1}[wipe]; d.wiped() != want {
				t.Errorf("it was wiped %d times", d.wiped())
			}
		})
	}
}

// marked is the attempt with the phone's mark back, as before the program took it away.
func (b *bench) marked(a *worker.Attempt, d *adbd) *worker.Attempt {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files["/data/local/tmp/batchreset.KEY1"] = true
	return a
}

// newCuttlefish is an instance whose powerwash ends with a status.
func newCuttlefish(t *testing.T, status string) *bench {
	t.Helper()
	return newBench(t, Config{Repeatable: true}, map[string]string{"status": status}, "cuttlefish_powerwash.py")
}

func TestTheExampleForCuttlefish(t *testing.T) {
	t.Parallel()
	t.Run("washes the instance", func(t *testing.T) {
		t.Parallel()
		b := newCuttlefish(t, "0")
		b.wantDone(t, b.attempt("3"))
		if calls := b.read(t, "calls"); calls != "--instance_num=3\n" {
			t.Errorf("called with %q", calls)
		}
	})
	t.Run("does not know how far a wash has come that failed", func(t *testing.T) {
		t.Parallel()
		b := newCuttlefish(t, "1")
		if e := wantVerdict(t, b.reset(t, b.attempt("3")), worker.Unknown); e.Message != "The device did not boot" || !e.Repeatable {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("refuses what is no number", func(t *testing.T) {
		t.Parallel()
		b := newCuttlefish(t, "0")
		for _, address := range []string{"", "3 4", "-1", "٣"} {
			wantVerdict(t, b.reset(t, b.attempt(address)), worker.Permanent)
		}
		if calls := b.read(t, "calls"); calls != "" {
			t.Errorf("called with %q", calls)
		}
	})
	t.Run("does nothing without its tool", func(t *testing.T) {
		t.Parallel()
		b := newCuttlefish(t, "0")
		python, err := filepath.Abs("../../deploy/examples/exec/cuttlefish_powerwash.py")
		if err != nil {
			t.Fatal(err)
		}
		b.command = []string{"env", "PYTHONDONTWRITEBYTECODE=1", python}
		if e := wantVerdict(t, b.reset(t, b.attempt("3")), worker.Unreachable); !strings.Contains(e.Message, "powerwash_cvd cannot be run") {
			t.Errorf("got %+v", e)
		}
	})
}

// cluster is what the stand-in for kubectl works on.
type cluster struct {
	Things map[string]any `json:"things"`
	UIDs   int            `json:"uids"`
	Wipes  int            `json:"wipes"`
	Hasty  bool           `json:"hasty"`
	Away   bool           `json:"away"`
	Die    string         `json:"die"`
}

func (c cluster) text(t *testing.T) string {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// phonePod is a pod of a StatefulSet with one volume, and its claim.
func phonePod(volume map[string]any) map[string]any {
	meta := map[string]any{"name": "redroid-0", "uid": "old-pod", "ownerReferences": []any{map[string]any{"kind": "StatefulSet", "controller": true}}}
	return map[string]any{
		"pods/redroid-0": map[string]any{"metadata": meta, "spec": map[string]any{"volumes": []any{volume}}, "status": map[string]any{}},
		"persistentvolumeclaims/data-redroid-0": map[string]any{
			"metadata": map[string]any{"name": "data-redroid-0", "uid": "old-claim"},
		},
	}
}

// newCluster is a cluster with the pod redroid-0.
func newCluster(t *testing.T, c cluster) *bench {
	t.Helper()
	return newBench(t, Config{Look: true}, map[string]string{"cluster.json": c.text(t)}, "kubernetes_statefulset.py")
}

func TestTheExampleForKubernetes(t *testing.T) {
	t.Parallel()
	const address = "phones/redroid-0"
	claim := map[string]any{"name": "data", "persistentVolumeClaim": map[string]any{"claimName": "data-redroid-0"}}
	after := func(t *testing.T, b *bench) (c cluster) {
		t.Helper()
		if err := json.Unmarshal([]byte(b.read(t, "cluster.json")), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	for name, hasty := range map[string]bool{"replaces claim and pod": false, "replaces a pod that has taken the old claim": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newCluster(t, cluster{Things: phonePod(claim), Hasty: hasty})
			a := b.attempt(address)
			b.wantDone(t, a)
			if c := after(t, b); c.Wipes != 1 || strings.Contains(c.text(t), "old-") {
				t.Errorf("the cluster is %s", c.text(t))
			}
			b.wantSight(t, a, worker.Initial, "before: old-pod")
			a.Checkpoint = ""
			b.wantSight(t, a, worker.Unclear, "no earlier run")
		})
	}
	t.Run("replaces a pod that keeps its data in itself", func(t *testing.T) {
		t.Parallel()
		b := newCluster(t, cluster{Things: phonePod(map[string]any{"name": "data", "emptyDir": map[string]any{}})})
		b.wantDone(t, b.attempt(address))
	})
	for die, seen := range map[string]worker.SightState{
		"persistentvolumeclaims before": worker.NotInitial, "persistentvolumeclaims after": worker.Unclear, "pods before": worker.Unclear, "pods after": worker.Unclear,
	} {
		t.Run("is killed when it deletes "+die, func(t *testing.T) {
			t.Parallel()
			b := newCluster(t, cluster{Things: phonePod(claim), Die: die})
			a := b.attempt(address)
			b.orphaned(t, a)
			b.write(t, "cluster.json", strings.Replace(b.read(t, "cluster.json"), die, "", 1))
			b.wantSight(t, a, seen, "")
			b.wantDone(t, a)
			if c := after(t, b); c.Wipes != 1 {
				t.Errorf("the cluster is %s", c.text(t))
			}
		})
	}
	t.Run("touches nothing that may be another phone's", func(t *testing.T) {
		t.Parallel()
		alone := phonePod(claim)
		delete(alone["pods/redroid-0"].(map[string]any)["metadata"].(map[string]any), "ownerReferences")
		for why, c := range map[string]cluster{
			"not this pod's own": {Things: phonePod(map[string]any{"persistentVolumeClaim": map[string]any{"claimName": "all-phones"}})},
			"no volume to wipe":  {Things: phonePod(map[string]any{"configMap": map[string]any{}})},
			"of no StatefulSet":  {Things: alone},
		} {
			b := newCluster(t, c)
			if e := wantVerdict(t, b.reset(t, b.attempt(address)), worker.Permanent); !strings.Contains(e.Message, why) {
				t.Errorf("%s: got %+v", why, e)
			}
			if calls := b.read(t, "calls"); strings.Contains(calls, "delete") {
				t.Errorf("%s: called %s", why, calls)
			}
		}
		for _, address := range []string{"", "redroid-0", "phones/../pods", "a/b/c", "phones/redroid-0\n"} {
			b := newCluster(t, cluster{})
			wantVerdict(t, b.reset(t, b.attempt(address)), worker.Permanent)
		}
	})
	t.Run("waits for a cluster that is away", func(t *testing.T) {
		t.Parallel()
		b := newCluster(t, cluster{Things: phonePod(claim), Away: true})
		a := b.attempt(address)
		if e := wantVerdict(t, b.reset(t, a), worker.Unreachable); !strings.Contains(e.Message, "connection refused") {
			t.Errorf("got %+v", e)
		}
		a.Ambiguous, a.Checkpoint = true, `{"pod":"old-pod","claims":{"data-redroid-0":"old-claim"}}`
		b.wantNoSight(t, a, "connection refused")
		wantVerdict(t, b.reset(t, a), worker.Unreachable)
	})
}

// newVM is a VM whose rollback goes as rollback says, and which is locked for so many looks at it.
func newVM(t *testing.T, rollback, locks string) *bench {
	t.Helper()
	return newBench(t, Config{Look: true}, map[string]string{
		"config": "name: phone-1\nparent: clean\ntags: phone;lab\n", "status": "running\n", "rollback": rollback, "locks": locks,
	}, "proxmox_rollback.py", "clean")
}

func TestTheExampleForProxmox(t *testing.T) {
	t.Parallel()
	t.Run("rolls back, starts the VM and sees that the tag is gone", func(t *testing.T) {
		t.Parallel()
		b := newVM(t, "works", "0")
		a := b.attempt("101")
		b.wantDone(t, a)
		if b.read(t, "wipes") != "rolled back\n" || b.read(t, "status") != "running\n" {
			t.Errorf("wipes %q, status %q", b.read(t, "wipes"), b.read(t, "status"))
		}
		if calls := b.read(t, "calls"); !strings.Contains(calls, "set 101 --tags phone;lab;batchreset-key1\nrollback 101 clean\n") {
			t.Errorf("called %s", calls)
		}
		b.wantSight(t, a, worker.Initial, "the tag batchreset-key1, from before the rollback, is gone; parent clean")
		b.write(t, "status", "stopped\n")
		b.wantSight(t, a, worker.Unclear, "is gone")
		b.write(t, "locks", "1")
		b.wantSight(t, a, worker.Unclear, "locked (rollback)")
		a.Checkpoint = ""
		b.wantSight(t, a, worker.Unclear, "no earlier run")
	})
	t.Run("tries again when the rollback failed, with the tags as they were", func(t *testing.T) {
		t.Parallel()
		b := newVM(t, "fails", "0")
		wantVerdict(t, b.reset(t, b.attempt("101")), worker.Retryable)
		if config := b.read(t, "config"); !strings.Contains(config, "tags: phone;lab\n") {
			t.Errorf("the settings are %s", config)
		}
	})
	t.Run("is killed before the rollback", func(t *testing.T) {
		t.Parallel()
		b := newVM(t, "dies-before", "0")
		a := b.attempt("101")
		b.orphaned(t, a)
		b.wantSight(t, a, worker.NotInitial, "is still there")
		if e := wantVerdict(t, b.reset(t, a), worker.Retryable); !e.EndsDoubt {
			t.Errorf("got %+v", e)
		}
	})
	t.Run("is killed after the rollback", func(t *testing.T) {
		t.Parallel()
		b := newVM(t, "dies-after", "0")
		a := b.attempt("101")
		b.orphaned(t, a)
		b.wantDone(t, a)
		if b.read(t, "wipes") != "rolled back\n" || b.read(t, "status") != "running\n" {
			t.Errorf("wipes %q, status %q", b.read(t, "wipes"), b.read(t, "status"))
		}
	})
	t.Run("leaves a VM alone that is locked, unknown, or without the snapshot", func(t *testing.T) {
		t.Parallel()
		b := newVM(t, "works", "1")
		wantVerdict(t, b.reset(t, b.attempt("101")), worker.Busy)
		wantVerdict(t, b.reset(t, b.attempt("102")), worker.Permanent)
		wantVerdict(t, b.reset(t, b.attempt("101; reboot")), worker.Permanent)
		b.command[len(b.command)-1] = "other"
		wantVerdict(t, b.reset(t, b.attempt("101")), worker.Permanent)
		if b.read(t, "wipes") != "" {
			t.Error("it was rolled back")
		}
	})
}

func TestTheExamplesDoNotBeginTooLate(t *testing.T) {
	t.Parallel()
	claim := map[string]any{"name": "data", "persistentVolumeClaim": map[string]any{"claimName": "data-redroid-0"}}
	phone := newADBD(t, nil)
	for _, row := range []struct {
		address, want string
		bench         *bench
	}{
		{phone.addr, "retry", newPhone(t, adbServer(t))},
		{"3", "retry", newCuttlefish(t, "0")},
		{"phones/redroid-0", "unknown", newCluster(t, cluster{Things: phonePod(claim)})},
		{"101", "retry", newVM(t, "works", "0")},
	} {
		a := attempt()
		a.Address = row.address
		input, err := encode(a, modeReset, time.Now().Add(-time.Second))
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(limited(t), row.bench.command[0], row.bench.command[1:]...)
		cmd.Stdin = bytes.NewReader(input)
		out, err := cmd.Output()
		if want := `{"result": "` + row.want + `", "message": "it was too late to begin"}`; err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), want) {
			t.Errorf("%s says %s, %v", row.address, out, err)
		}
		if calls := row.bench.read(t, "calls"); phone.wiped() > 0 || strings.Contains(calls, "instance_num") || strings.Contains(calls, "delete") || strings.Contains(calls, "rollback") {
			t.Errorf("%s called %s", row.address, calls)
		}
	}
}

func TestTheExampleOfTheReadme(t *testing.T) {
	t.Parallel()
	readme := read(t, "README.md")
	start := strings.Index(readme, "    #!/bin/sh\n")
	script, _, found := strings.Cut(readme[max(start, 0):], "\n\n## ")
	if start < 0 || !found {
		t.Fatal("the README has no example")
	}
	script = strings.ReplaceAll("\n"+script, "\n    ", "\n")[1:]
	if lines := strings.Count(script, "\n") + 1; lines > 22 {
		t.Errorf("it has %d lines", lines)
	}
	tools, err := filepath.Abs("testdata/tools")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		answer, address string
		want            worker.Verdict
		wipes           string
	}{
		{"wiped", "10.0.0.7:5555", isDone, "wiped\n"},
		{"failed", "10.0.0.7:5555", worker.Retryable, "wiped\n"},
		{"what", "10.0.0.7:5555", worker.Unknown, "wiped\n"},
		{"lost", "10.0.0.7:5555", worker.Unknown, "wiped\n"},
		{"wiped", "10.0.0.8:5555", worker.Unreachable, ""},
	} {
		state := t.TempDir()
		if err := os.WriteFile(filepath.Join(state, "answer"), []byte(row.answer), 0o644); err != nil {
			t.Fatal(err)
		}
		d, said := open(t, Config{Repeatable: true, Command: []string{"env", "STATE=" + state, "PATH=" + tools + ":" + os.Getenv("PATH"), "sh", "-c", script}}, "")
		a := attempt()
		a.Address = row.address
		for n := range 2 { // and a repeat in doubt wipes nothing more
			a.Number, a.Ambiguous = n+1, n > 0
			err := d.Reset(limited(t), a)
			if row.want != isDone {
				wantVerdict(t, err, row.want)
			} else if err != nil {
				t.Errorf("%s: %v, logged %q", row.answer, err, said.lines)
			}
		}
		if wipes := read(t, state+"/wipes"); wipes != row.wipes {
			t.Errorf("%s: wiped so: %q", row.answer, wipes)
		}
	}
}
