//go:build engine

package docker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"batchreset/worker"
)

func TestAResetPutsAFreshContainerInThePhonesPlace(t *testing.T) {
	t.Parallel()
	p := newPhone(t, nil)
	d := p.e.driver(t, nil)
	first := p.attempt("KEY1")
	mustLook(t, d, first, worker.Unclear) // nothing is known of this key
	p.mustReset(d, first)
	now := p.mustBeFresh()
	evidence := mustLook(t, d, first, worker.Initial)
	t.Log(evidence)
	for _, want := range []string{short(now.ID), now.State.StartedAt, "data of 20", "sys.boot_completed=1"} {
		if !strings.Contains(evidence, want) {
			t.Errorf("the evidence does not have %q", want)
		}
	}
	p.mustReset(d, again(first)) // the answer was lost, and it is asked once more
	if p.now().ID != now.ID {
		t.Error("a repeat under the same key reset the phone once more")
	}
	p.use()
	p.mustReset(d, p.attempt("KEY2"))
	if p.mustBeFresh().ID == now.ID {
		t.Error("another key did nothing")
	}
	mustLook(t, d, first, worker.Unclear)
}

func TestAPhoneIsFoundByItsAddress(t *testing.T) {
	t.Parallel()
	p := newPhone(t, func(config, _ fields) { config["Labels"] = nil })
	a := p.attempt("KEY")
	mustFail(t, p.e.driver(t, nil).Reset(t.Context(), a), worker.Permanent, "no container has the label")
	a.Address = p.name
	p.mustReset(p.e.driver(t, nil), a)
	p.mustBeFresh()
	mustLook(t, p.e.driver(t, nil), a, worker.Initial)
}

func TestThePhoneIsUntouchedIfMaySendSaysNo(t *testing.T) {
	t.Parallel()
	p := newPhone(t, nil)
	a := p.attempt("KEY")
	a.MaySend = func() error { return errors.New("the tenant is halted") }
	mustFail(t, p.e.driver(t, nil).Reset(t.Context(), a), worker.NotSent, "the tenant is halted")
	p.mustBeUntouched()
}

// neighbour makes a container beside a phone, which does not run.
func (p *phone) neighbour(config fields) {
	p.t.Helper()
	config["Image"] = phoneImage
	p.e.create(p.t, p.name+".neighbour", config)
}

func TestPhonesThatAreRefused(t *testing.T) {
	t.Parallel()
	usual := newPhone(t, nil)
	for name, test := range map[string]struct {
		change  func(config, host fields)
		share   func(sidecar string, config, host fields) // with another container
		beside  func(p *phone)
		attempt func(p *phone, a *worker.Attempt)
		cfg     func(*Config)
		want    string
	}{
		"another container mounts its data": {
			beside: func(p *phone) { p.neighbour(fields{"HostConfig": fields{"Binds": []string{p.folder + ":/backup:ro"}}}) },
			want:   "where this phone has its data",
		},
		"another container mounts a part of its data": {
			beside: func(p *phone) {
				p.neighbour(fields{"HostConfig": fields{"Binds": []string{p.folder + "/media:/media:ro"}}})
			},
			want: "where this phone has its data",
		},
		"another container writes above its data": {
			beside: func(p *phone) {
				p.neighbour(fields{"HostConfig": fields{"Binds": []string{filepath.Dir(p.folder) + ":/all"}}})
			},
			want: "where this phone has its data",
		},
		"another container has its volumes": {
			change: func(config, host fields) {
				delete(host, "Binds")
				config["Volumes"] = fields{"/data": fields{}}
			},
			beside: func(p *phone) { p.neighbour(fields{"HostConfig": fields{"VolumesFrom": []string{p.name}}}) },
			want:   "where this phone has its data",
		},
		"another container uses its network": {
			beside: func(p *phone) { p.neighbour(fields{"HostConfig": fields{"NetworkMode": "container:" + p.name}}) },
			want:   "uses the network of this phone",
		},
		"it uses another container's network": {
			share: func(sidecar string, config, host fields) {
				host["NetworkMode"] = "container:" + sidecar
				delete(host, "PortBindings")
				delete(host, "ExtraHosts")
				delete(config, "ExposedPorts")
			},
			want: "the network of another container",
		},
		"the label is not unique": {
			beside: func(p *phone) { p.neighbour(fields{"Labels": map[string]string{labelInstance: p.instance}}) },
			want:   "is not unique",
		},
		"the address leads to another instance": {
			attempt: func(p *phone, a *worker.Attempt) { a.InstanceID, a.Address = "another", p.name },
			want:    "which is another instance",
		},
		"the address leads nowhere": {
			attempt: func(_ *phone, a *worker.Attempt) { a.Address = "nowhere" },
			want:    "there is no container nowhere",
		},
		"the address is no name": {
			attempt: func(_ *phone, a *worker.Attempt) { a.Address = "../a" },
			want:    "is not the name of a container",
		},
		"nobody has said what a mount is": {
			change: func(_, host fields) {
				host["Mounts"] = []fields{{"Type": "volume", "Source": "diff", "Target": "/data-diff"}}
			},
			want: "/data-diff is writable, and is neither in the setting data nor in keep",
		},
		"its data is read-only": {
			change: func(_, host fields) {
				host["Mounts"] = []fields{{"Type": "volume", "Source": "base", "Target": "/data-base", "ReadOnly": true}}
			},
			cfg:  func(c *Config) { c.Data = []string{"/data", "/data-base"} },
			want: "/data-base is read-only",
		},
		"a mount lies in its data": {
			change: func(_, host fields) {
				host["Mounts"] = []fields{{"Type": "volume", "Source": "apps", "Target": "/data/apps"}}
			},
			want: "/data/apps lies in another one of the phone's data",
		},
		"it has another container's volumes": {
			share: func(sidecar string, _, host fields) { host["VolumesFrom"] = []string{sidecar} },
			want:  "the volumes of another container",
		},
		"the new image is not there": {
			cfg:  func(c *Config) { c.Image = "phone:9" },
			want: "no image phone:9: pull it first",
		},
		"a label names no property": {
			attempt: func(_ *phone, a *worker.Attempt) { a.Labels = map[string]string{"docker.property.": "1"} },
			want:    "the labels docker.property.NAME of the instance",
		},
		"there is no driver key": {
			attempt: func(_ *phone, a *worker.Attempt) { a.Key = "" },
			want:    "there is no driver key",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := usual // which stays as it was, and serves many
			if test.change != nil || test.share != nil {
				t.Parallel()
				if test.share != nil {
					sidecar := newPhone(t, func(config, _ fields) { config["Labels"] = nil })
					test.change = func(config, host fields) { test.share(sidecar.name, config, host) }
				}
				p = newPhone(t, test.change)
			}
			if test.beside != nil {
				test.beside(p)
			}
			a := p.attempt("KEY")
			times := asked(&a)
			if test.attempt != nil {
				test.attempt(p, &a)
			}
			err := p.e.driver(t, test.cfg).Reset(t.Context(), a)
			mustFail(t, err, worker.Permanent, test.want)
			if times.Load() > 0 {
				t.Error("MaySend was asked")
			}
			if test.beside != nil {
				p.removeNeighbour()
			}
			p.mustBeUntouched()
		})
	}
}

func (p *phone) removeNeighbour() {
	p.t.Helper()
	for _, c := range p.containers(p.t.Context()) {
		if c.name() == p.name+".neighbour" {
			if err := p.e.engine.remove(p.t.Context(), c.ID); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

func TestAMonitorThatReadsTheWholeHostIsNoNeighbour(t *testing.T) {
	t.Parallel()
	p := newPhone(t, nil)
	p.neighbour(fields{"HostConfig": fields{"Binds": []string{p.e.Dir + ":/host:ro"}}})
	p.mustReset(p.e.driver(t, nil), p.attempt("KEY"))
	p.removeNeighbour()
	p.mustBeFresh()
}

func TestAWipeCommandThatLiesIsFoundOut(t *testing.T) {
	for name, test := range map[string]struct{ argument, want string }{
		"lies":  {"-lie", "the wipe command ended well and left \"data/"},
		"fails": {"-fail", "the wipe command ended with status 1: find: /data: Permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPhone(t, nil)
			d := p.e.driver(t, func(c *Config) { c.WipeCommand = []string{"/system/bin/find", "/data", test.argument} })
			a := p.attempt("KEY")
			if e := mustFail(t, d.Reset(t.Context(), a), worker.Unknown, test.want); !e.Repeatable {
				t.Error("it is not to be repeated")
			}
			mustLook(t, d, a, worker.Unclear)
			// Somebody mends the setting, and the worker tries again.
			p.mustReset(p.e.driver(t, nil), again(a))
			p.mustBeFresh()
		})
	}
}

func TestAWipeCommandThatCannotBeStartedIsInNobodysWay(t *testing.T) {
	t.Parallel()
	p := newPhone(t, nil)
	d := p.e.driver(t, func(c *Config) { c.WipeCommand = []string{"/system/bin/nowhere"} })
	a := p.attempt("KEY")
	mustFail(t, d.Reset(t.Context(), a), worker.Unknown, "the start of container")
	mustFail(t, d.Reset(t.Context(), again(a)), worker.Unknown, "the start of container")
	// Somebody mends the setting, and asks for another reset.
	p.mustReset(p.e.driver(t, nil), p.attempt("KEY2"))
	p.mustBeFresh()
}

func TestAPhoneThatDoesNotBootLeavesDoubt(t *testing.T) {
	for name, test := range map[string]struct {
		boot, want string
		change     func(config, host fields)
	}{
		"it hangs":            {"never", "the phone has not booted in time: sys.boot_completed=", nil},
		"it ends":             {"exit", "ended while it booted: exited, status 7", noRestart},
		"it ends and is gone": {"exit", "ended while it booted", removesItself},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPhone(t, test.change)
			d := p.e.driver(t, func(c *Config) { c.Properties = map[string]string{"phone.boot": test.boot} })
			a := p.attempt("KEY")
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if e := mustFail(t, d.Reset(ctx, a), worker.Unknown, test.want); !e.Repeatable {
				t.Error("it is not to be repeated")
			}
			eventually(t, "the engine says how it is", func() bool { // it may be removing the container
				sight, err := d.Look(t.Context(), a)
				return err == nil && sight.State == worker.Unclear
			})
			if exists(p.photo()) {
				t.Error("the data of the last user is there")
			}
			if len(p.containers(t.Context())) == 0 {
				t.Error("the phone's configuration is lost")
			}
			// A reset under another key, with the old properties, brings it back.
			p.mustReset(p.e.driver(t, func(c *Config) { c.Properties = map[string]string{"phone.boot": "50ms"} }), p.attempt("KEY2"))
			p.now()
		})
	}
}

func TestTheNextAttemptGoesOnWaitingForASlowBoot(t *testing.T) {
	t.Parallel()
	p := newPhone(t, nil)
	d := p.e.driver(t, func(c *Config) { c.Properties = map[string]string{"phone.boot": "never"} })
	a := p.attempt("KEY")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	first := make(chan error, 1)
	go func() { first <- d.Reset(ctx, a) }()
	var container string
	eventually(t, "the new container runs", func() bool {
		for _, c := range p.containers(t.Context()) {
			if c.name() == p.name && c.Labels[labelReset] == "KEY" && c.State == "running" {
				container = c.ID
			}
		}
		return container != ""
	})
	cancel()
	mustFail(t, <-first, worker.Unknown, "has not booted in time")
	next := again(a)
	times := asked(&next)
	second := make(chan error, 1)
	go func() { second <- d.Reset(t.Context(), next) }()
	if _, err := p.e.engine.exec(t.Context(), container, "/system/bin/boot"); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil || p.now().ID != container {
		t.Errorf("it ended with %v, in container %s", err, p.now().ID)
	}
	if times.Load() > 0 {
		t.Error("MaySend was asked, and there was nothing to send")
	}
}

func noRestart(_, host fields) { delete(host, "RestartPolicy") }

func TestAHealthCheckSaysWhenThePhoneHasBooted(t *testing.T) {
	t.Parallel()
	p := newPhone(t, func(config, _ fields) { config["Image"] = healthImage })
	d := p.e.driver(t, nil)
	a := p.attempt("KEY")
	p.mustReset(d, a)
	p.mustBeFresh()
	if evidence := mustLook(t, d, a, worker.Initial); !strings.Contains(evidence, "health healthy") {
		t.Errorf("the evidence is %q", evidence)
	}
}

func TestVolumes(t *testing.T) {
	t.Parallel()
	p := newPhone(t, func(config, host fields) {
		delete(host, "Binds")
		// One with a name, one that is to stay, and one that has no name.
		host["Mounts"] = []fields{
			{"Type": "volume", "Source": "data-of-a-phone", "Target": "/data"},
			{"Type": "volume", "Source": "kept", "Target": "/kept"},
		}
		config["Volumes"] = fields{"/scratch": fields{}}
	})
	kept, scratch := p.mounted(p.first, "/kept"), p.mounted(p.first, "/scratch")
	for _, folder := range []string{kept, scratch} {
		if err := os.WriteFile(filepath.Join(folder, "file"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.mustReset(p.e.driver(t, func(c *Config) { c.Keep = []string{"/kept"} }), p.attempt("KEY"))
	now := p.mustBeFresh()
	if p.mounted(now, "/kept") != kept || !exists(filepath.Join(kept, "file")) {
		t.Error("what is to be kept is gone")
	}
	if p.mounted(now, "/scratch") == scratch || exists(scratch) {
		t.Error("the volume without a name is still there")
	}
}

// mounted is the folder on the host that a container has there.
func (p *phone) mounted(c *container, destination string) string {
	p.t.Helper()
	for _, m := range c.Mounts {
		if m.Destination == destination {
			return m.Source
		}
	}
	p.t.Fatalf("nothing is mounted at %s", destination)
	return ""
}

func TestAnotherImageAndProperties(t *testing.T) {
	t.Parallel()
	p := newPhone(t, nil)
	d := p.e.driver(t, func(c *Config) {
		c.Image = "phone:9" // the fleet says otherwise
		c.Properties = map[string]string{"androidboot.redroid_width": "1080", "androidboot.redroid_dpi": "320"}
	})
	a := p.attempt("KEY")
	a.Labels = map[string]string{"docker.image": otherImage, "docker.property.androidboot.redroid_dpi": "480", "rack": "7"}
	p.mustReset(d, a)
	now := p.now()
	var cmd, env, entrypoint []string
	now.Config.get("Cmd", &cmd)
	now.Config.get("Env", &env)
	now.Config.get("Entrypoint", &entrypoint)
	slices.Sort(env)
	if want := []string{"phone.boot=50ms", "androidboot.redroid_dpi=480", "androidboot.redroid_width=1080"}; !slices.Equal(cmd, want) {
		t.Errorf("the command is %q", cmd)
	}
	env = slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "PATH=") })
	if want := []string{"BOTH=1", "IMAGE=2", "OWN=1"}; !slices.Equal(env, want) {
		t.Errorf("the environment is %q", env)
	}
	if want := []string{"/init", "androidboot.hardware=other"}; !slices.Equal(entrypoint, want) {
		t.Errorf("the entry point is %q", entrypoint)
	}
	if now.label("image") != "2" || now.label(labelInstance) != p.instance {
		t.Errorf("the labels are %s", now.Config["Labels"])
	}
}

func TestATwinDoesNotRunWhenTheEngineStartsAgain(t *testing.T) {
	p := newPhone(t, nil)
	d := p.e.driver(t, nil)
	dies(d, 1)
	a := p.attempt("KEY1")
	mustFail(t, d.Reset(t.Context(), a), worker.Unreachable, "")
	if err := p.e.Process.Stop(30 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := p.e.Process.Restart(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := p.e.Process.WaitReady(t.Context(), 30*time.Second, p.e.driver(t, nil).Check); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the phone runs", func() bool { return p.e.inspect(t, p.first.ID).State.Running })
	for _, c := range p.containers(t.Context()) {
		if c.ID != p.first.ID && c.State != "created" {
			t.Errorf("the twin is %s", c.State)
		}
	}
	p.mustReset(p.e.driver(t, nil), p.attempt("KEY2"))
	p.mustBeFresh()
}

func TestLookingAtAResetThatHasNotHappened(t *testing.T) {
	t.Parallel()
	p := newPhone(t, nil)
	d := p.e.driver(t, nil)
	dies(d, 1) // the twin is there, and the phone as it was
	a := p.attempt("KEY")
	_ = d.Reset(t.Context(), a)
	evidence := mustLook(t, p.e.driver(t, nil), a, worker.NotInitial)
	if !strings.Contains(evidence, short(p.first.ID)+" is still there") {
		t.Errorf("the evidence is %q", evidence)
	}
}

func TestDataThatIsOlderThanTheResetIsNotInitial(t *testing.T) {
	t.Parallel()
	p := newPhone(t, nil)
	d := p.e.driver(t, nil)
	a := p.attempt("KEY")
	p.mustReset(d, a)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(p.folder, old, old); err != nil { // as if it was another's folder
		t.Fatal(err)
	}
	mustLook(t, d, a, worker.Unclear)
}

func TestCheckSaysWhetherTheEngineCanBeUsed(t *testing.T) {
	t.Parallel()
	if err := dockerd(t).driver(t, nil).Check(t.Context()); err != nil {
		t.Error(err)
	}
	nowhere, err := New(Config{Host: "unix://" + filepath.Join(t.TempDir(), "nobody.sock")})
	if err != nil {
		t.Fatal(err)
	}
	if err := nowhere.Check(t.Context()); err == nil {
		t.Error("nobody listens, and it can be used")
	}
}
