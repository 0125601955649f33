//go:build engine

package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"batchreset/worker"
)

// fields are a JSON object that a test writes.
type fields = map[string]any

// phone is a container that stands in for a phone that somebody has used.
type phone struct {
	t        *testing.T
	e        *testEngine
	instance string
	name     string
	folder   string // on the host, where its data is
	first    *container
}

var phones atomic.Int32

// newPhone makes a phone and starts it. change may change what it is created with.
func newPhone(t *testing.T, change func(config, host fields)) *phone {
	t.Helper()
	e, n := dockerd(t), phones.Add(1)
	p := &phone{t: t, e: e, instance: fmt.Sprintf("instance-%d", n), name: fmt.Sprintf("phone-%d", n)}
	p.folder = filepath.Join(e.Dir, "phones", p.name, "data")
	host := fields{
		"Binds": []string{p.folder + ":/data"}, "NetworkMode": "none", "RestartPolicy": fields{"Name": "always"},
		"Memory": 64 << 20, "Tmpfs": fields{"/cache": ""}, "ExtraHosts": []string{"gateway:10.0.0.1"},
		"CapDrop": []string{"NET_RAW"}, "Ulimits": []fields{{"Name": "nofile", "Soft": 1024, "Hard": 2048}},
		"PortBindings": fields{"5555/tcp": []fields{{"HostPort": "5555"}}}, "ShmSize": 1 << 20,
		"LogConfig": fields{"Type": "json-file", "Config": fields{"max-size": "1m"}},
	}
	config := fields{
		"Image": phoneImage, "Cmd": []string{"phone.boot=50ms", "androidboot.redroid_width=720"},
		"Env": []string{"OWN=1"}, "ExposedPorts": fields{"5555/tcp": fields{}}, "Tty": true, "OpenStdin": true,
		"Labels": map[string]string{labelInstance: p.instance, "com.docker.compose.service": p.name}, "HostConfig": host,
	}
	if change != nil {
		change(config, host)
	}
	t.Cleanup(p.remove)
	id := e.create(t, p.name, config)
	if err := e.engine.start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	p.first = e.inspect(t, id)
	for _, m := range p.first.Mounts {
		if m.Destination == "/data" {
			p.folder = m.Source
		}
	}
	p.use()
	return p
}

// use leaves something in the phone's data, as its user does. The phone has made its own before.
func (p *phone) use() {
	p.t.Helper()
	eventually(p.t, "the phone starts", func() bool { return exists(filepath.Join(p.folder, "system")) })
	if err := os.MkdirAll(filepath.Join(p.folder, "media", ".hidden"), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(p.photo(), []byte("private"), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *phone) photo() string { return filepath.Join(p.folder, "media", ".hidden", "photo") }

// containers are all that has the phone's name or a temporary one.
func (p *phone) containers(ctx context.Context) []listed {
	p.t.Helper()
	all, err := p.e.engine.list(ctx, filters{"name": {"^/?" + p.name + `(\..*)?$`}})
	if err != nil {
		p.t.Error(err)
	}
	return all
}

func (p *phone) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // the test's own has ended
	defer cancel()
	for _, c := range p.containers(ctx) {
		err := p.e.engine.act(ctx, "the forced removal", http.MethodDelete, c.ID, "", url.Values{"force": {"1"}, "v": {"1"}})
		if err != nil && !answered(err, http.StatusNotFound) {
			p.t.Error(err)
		}
	}
}

// now is the phone's only container.
func (p *phone) now() *container {
	p.t.Helper()
	all := p.containers(p.t.Context())
	if len(all) != 1 || all[0].name() != p.name {
		p.t.Fatalf("the phone has the containers %v", names(all))
	}
	return p.e.inspect(p.t, all[0].ID)
}

func names(all []listed) (names []string) {
	for _, c := range all {
		names = append(names, c.name()+" "+c.State)
	}
	return names
}

// mustBeFresh makes sure that the phone has been reset, runs, and is what it was.
func (p *phone) mustBeFresh() *container {
	p.t.Helper()
	now := p.now()
	switch {
	case now.ID == p.first.ID:
		p.t.Fatal("the phone has its old container")
	case !now.State.Running:
		p.t.Fatalf("the phone is %s", now.State.Status)
	case exists(p.photo()):
		p.t.Fatal("the data of the last user is there")
	case !exists(filepath.Join(p.folder, "system")):
		p.t.Fatal("the phone has not booted with its data")
	}
	var changed []string
	for _, line := range differences(p.first, now) {
		p.t.Log("differs: ", line)
		field, _, _ := strings.Cut(line, ":")
		changed = append(changed, field)
	}
	if want := []string{"Config.Hostname", "Config.Labels." + labelReset}; !slices.Equal(changed, want) {
		p.t.Errorf("these differ: %v", changed)
	}
	return now
}

// mustBeUntouched makes sure that nothing has been done to the phone, and nothing is left.
func (p *phone) mustBeUntouched() {
	p.t.Helper()
	now := p.now()
	if now.ID != p.first.ID || now.State.StartedAt != p.first.State.StartedAt || !now.State.Running || !exists(p.photo()) {
		p.t.Error("the phone was touched")
	}
}

// differences between two containers, in everything but what the engine counts and measures.
func differences(a, b *container) (lines []string) {
	flat := func(c *container) map[string]string {
		all := map[string]string{"Image": c.Image, "Name": c.Name}
		flatten(all, "Config", c.Config)
		flatten(all, "HostConfig", c.HostConfig)
		return all
	}
	before, after := flat(a), flat(b)
	all := maps.Clone(before)
	maps.Copy(all, after)
	for _, field := range slices.Sorted(maps.Keys(all)) {
		if before[field] != after[field] {
			lines = append(lines, fmt.Sprintf("%s: %s -> %s", field, before[field], after[field]))
		}
	}
	return lines
}

func flatten(all map[string]string, name string, value any) {
	text, _ := json.Marshal(value)
	if string(text) == "[]" || string(text) == "{}" {
		text = []byte("null") // an engine that was started again tells of some lists the one way, and of others the other
	}
	var inner map[string]json.RawMessage
	if json.Unmarshal(text, &inner) != nil || len(inner) == 0 {
		all[name] = string(text)
		return
	}
	for field, value := range inner {
		flatten(all, name+"."+field, value)
	}
}

func (e *testEngine) create(t *testing.T, name string, config fields) (id string) {
	t.Helper()
	body := object{}
	for field, value := range config {
		body.set(field, value)
	}
	id, err := e.engine.create(t.Context(), name, body)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (e *testEngine) inspect(t *testing.T, id string) *container {
	t.Helper()
	c, err := e.engine.inspect(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// driver returns a driver of the engine. change may change its settings.
func (e *testEngine) driver(t *testing.T, change func(*Config)) *Driver {
	t.Helper()
	cfg := Config{Host: e.Host()}
	if change != nil {
		change(&cfg)
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	d.pause = 20 * time.Millisecond
	t.Cleanup(d.Close)
	return d
}

func (p *phone) attempt(key string) worker.Attempt {
	return worker.Attempt{InstanceID: p.instance, ItemID: "job-0", Number: 1, Key: key, MaySend: func() error { return nil }}
}

// again is what the worker gives a driver after an attempt of which it does not know what came.
func again(a worker.Attempt) worker.Attempt {
	a.Number++
	a.Ambiguous = true
	return a
}

func (p *phone) mustReset(d *Driver, a worker.Attempt) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 30*time.Second)
	defer cancel()
	if err := d.Reset(ctx, a); err != nil {
		p.t.Fatalf("%v; the phone has the containers %v", err, names(p.containers(p.t.Context())))
	}
}

// mustLook makes sure that the driver sees this state, and returns its evidence.
func mustLook(t *testing.T, d *Driver, a worker.Attempt, want worker.SightState) string {
	t.Helper()
	sight, err := d.Look(t.Context(), a)
	if err != nil || sight.State != want {
		t.Fatalf("sees %q (%s), %v; want %q", sight.State, sight.Evidence, err, want)
	}
	if len(sight.Evidence) == 0 || len(sight.Evidence) > worker.MaxEvidence {
		t.Errorf("%d bytes of evidence", len(sight.Evidence))
	}
	return sight.Evidence
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

func TestDifferencesAreFound(t *testing.T) {
	a := &container{Config: object{"Env": json.RawMessage(`["A=1"]`)}, HostConfig: object{"Memory": json.RawMessage("1")}}
	b := &container{Config: object{"Env": json.RawMessage(`["A=2"]`)}, HostConfig: object{"Memory": json.RawMessage("1"), "New": json.RawMessage(`{"X":1}`)}}
	want := []string{`Config.Env: ["A=1"] -> ["A=2"]`, `HostConfig.New.X:  -> 1`}
	if got := differences(a, b); !reflect.DeepEqual(got, want) {
		t.Errorf("differences are %q", got)
	}
}
