package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// configOf writes a file of settings.
func configOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "batchreset.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAFileOfSettingsIsChecked(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, text string
		args       []string
		want       string // in what is said; of a fault after the file's name
		code       int
	}{
		{"nothing in it", "# nothing yet\n", nil, "is good for api\n", 0},
		{"settings for all", "fleet: open\nqueues: 4\n", nil, "is good for api\n", 0},
		{"a driver", "driver: simulator\n", nil, "is good for api, worker\n", 0},
		{"a part", "queues: 4\nworker:\n  driver: simulator\n  concurrency: 7\n", nil, "is good for worker\n", 0},
		{"a list", "api:\n  cors-origins: [https://a.example, 'https://b.example']\n  trusted-proxies:\n  - 10.0.0.0/8\n  - 127.0.0.1/32\n", nil, "is good for api\n", 0},
		{"a part without anything", "fleet: open\nworker:\n", nil, "is good for api\n", 0},
		{"named processes", "driver: simulator\n", []string{"worker", "dev"}, "is good for worker, dev\n", 0},

		{"an unknown name", "fleet: open\nlisten: :80\nredis-fle: x\n", nil, `, line 3: unknown setting "redis-fle"; did you mean "redis-file"?`, 64},
		{"with other dashes", "redis_file: x\n", nil, `, line 1: unknown setting "redis_file"; did you mean "redis-file"?`, 64},
		{"of another process", "worker:\n  driver: simulator\n  fleet: open\n", nil, `, line 3: unknown setting "fleet" of worker`, 64},
		{"a part that is none", "wroker:\n  driver: simulator\n", nil, `, line 1: unknown setting "wroker"; did you mean "worker"?`, 64},
		{"a name that is there twice", "fleet: open\nqueues: 3\nfleet: registered\n", nil, ", line 3: fleet is there twice, on line 1, too", 64},
		{"no value", "fleet:\n", nil, ", line 1: fleet has no value", 64},
		{"keys for a value", "fleet: {open: true}\n", nil, ", line 1: fleet must be a value or a list", 64},
		{"a list for one value", "api:\n  fleet: [open, registered]\n", nil, ", line 2: fleet: takes one value, not a list", 64},
		{"lines for a list", "api:\n  cors-origins: |\n    https://a.example\n    https://b.example\n", nil, ", line 2: cors-origins: has several lines", 64},
		{"a URL of Redis that is none", "redis: redis.example:6379\n", nil, ": api: --redis: ", 64},
		{"a file of Redis that is not there", "redis-file: /nowhere/url\n", nil, ": api: --redis-file: open /nowhere/url: no such file", 64},
		{"a certificate that is not there", "tls-cert: /nowhere/crt\ntls-key: /nowhere/key\n", nil, ": api: --tls-cert, --tls-key, --tls-client-ca: open /nowhere/crt: no such file", 64},
		{"no URL for a worker", "driver: simulator\nworker:\n  redis: '-'\n", nil, ": worker: --redis: ", 64},
		{"no URL for dev", "dev:\n  redis: '-'\n", nil, ": dev: --redis: ", 64},
		{"a number that is none", "queues: many\n", nil, `, line 1: queues: invalid argument "many" for "--queues" flag: it must be a whole number`, 64},
		{"a port alone", "listen: 8080\n", nil, `: api: --listen must be an address such as 127.0.0.1:8080 or :8080, not "8080"`, 64},
		{"a port that is none", "ops-listen: 127.0.0.1:99999\n", nil, ": api: --ops-listen must be an address such as", 64},
		{"a time without a unit", "worker:\n  driver: simulator\n  attempt-timeout: 30\n", nil, ", line 3: attempt-timeout: ", 64},
		{"a value that no process takes", "api:\n  fleet: closed\n", nil, ": api: --fleet must be", 64},
		{"two ways to say one thing", "redis: redis://a:1\nredis-file: b\n", nil, "line 1: redis and ", 64},
		{"a file that is not there", "worker:\n  drivers: /nowhere/drivers.yaml\n", nil, "/nowhere/drivers.yaml: no such file", 64},
		{"a setting of another driver", "worker:\n  driver: simulator\n  driver-url: https://x.example/{instance_id}\n", nil, "--driver-url is a setting of --driver http", 64},
		{"no list of keys", "- fleet\n", nil, ", line 1: there must be lines NAME: VALUE", 64},
		{"no YAML", "fleet: [open\n", nil, "line 1", 64},
		{"two documents", "fleet: open\n---\nfleet: registered\n", nil, "more than one document", 64},
		{"a process that is none", "fleet: open\n", []string{"redis"}, `"redis" is no process: they are api, worker, dev`, 64},
		{"a tab on the first line", "\tfleet: open\n", nil, ", line 1: found character", 64},
		{"a tab later", "queues: 3\n\tfleet: open\n", nil, ", line 2: found", 64},
		{"eight or ten", "queues: 010\n", nil, ", line 1: queues must be a decimal number", 64},
		{"of another base", "worker:\n  driver: simulator\n  concurrency: 0x10\n", nil, ", line 3: concurrency must be a decimal number", 64},
		{"digits in quotes", "queues: '3'\n", nil, "is good for api\n", 0},
		{"config in it", "config: other.yaml\n", nil, `, line 1: unknown setting "config"`, 64},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			path := configOf(t, row.text)
			r := command(t, nil, append([]string{"config", "check", "--config", path}, row.args...)...)
			want := path
			if strings.HasPrefix(row.want, ",") || strings.HasPrefix(row.want, ": ") {
				want += row.want
			}
			if said := r.Out + r.Said; r.Code != row.code || !strings.Contains(said, row.want) || !strings.Contains(said, want) && row.args == nil && row.code == 0 {
				t.Errorf("%d: %s", r.Code, said)
			}
		})
	}
	if r := command(t, nil, "config", "check"); r.Code != 64 || !strings.Contains(r.Said, "--config is missing") {
		t.Errorf("%+v", r)
	}
	if r := command(t, nil, "config", "check", "--config", "/nowhere"); r.Code != 64 || !strings.Contains(r.Said, "/nowhere: no such file") {
		t.Errorf("%+v", r)
	}
	if r := command(t, nil, "config", "check", "--config", t.TempDir()); r.Code != 64 || !strings.Contains(r.Said, "is a directory") || strings.Contains(r.Said, "line") {
		t.Errorf("%+v", r)
	}
}

// What wins: the command line, the environment, the part of the process, what is for all, the default.
func TestWhichSettingsHold(t *testing.T) {
	t.Parallel()
	path := configOf(t, "queues: 4\nfull-at: 70\nredis: redis://batch:secret@redis.example:6379/1?master=x\nmax-attempts: 3\napi:\n  full-at: 80\n  cors-origins: [https://a.example, https://b.example]\n")
	environment := map[string]string{"BATCHRESET_QUEUES": "5", "BATCHRESET_CONFIG": path}
	got := command(t, environment, "config", "print", "--output", "csv", "api", "worker").OK(t).Out
	want := strings.Join([]string{
		"process,name,value,from",
		`api,cors-origins,"[https://a.example,https://b.example]","` + path + `, line 7: cors-origins"`,
		`api,full-at,80,"` + path + `, line 6: full-at"`,
		"api,queues,5,BATCHRESET_QUEUES",
		`api,redis,redis://batch:xxxxx@redis.example:6379/1?master=x,"` + path + `, line 3: redis"`,
		`api,redis-patience,0s,BATCHRESET_REDIS_PATIENCE`,
		`worker,full-at,70,"` + path + `, line 2: full-at"`,
		`worker,max-attempts,3,"` + path + `, line 4: max-attempts"`,
		"worker,queues,5,BATCHRESET_QUEUES",
		`worker,redis,redis://batch:xxxxx@redis.example:6379/1?master=x,"` + path + `, line 3: redis"`,
		`worker,redis-patience,0s,BATCHRESET_REDIS_PATIENCE`,
		"",
	}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if all := command(t, environment, "config", "print", "--all", "worker").OK(t).Out; !strings.Contains(all, "default") || strings.Contains(all, "secret") && !strings.Contains(all, "secret-key-file") {
		t.Errorf("%s", all)
	}

	// Another way to say the same on a stronger layer has the file's count for nothing.
	other := command(t, map[string]string{"BATCHRESET_CONFIG": path, "BATCHRESET_REDIS_FILE": "/run/url"}, "config", "print", "--output", "csv", "api").OK(t).Out
	if strings.Contains(other, "redis.example") || !strings.Contains(other, "api,redis-file,/run/url,BATCHRESET_REDIS_FILE") {
		t.Errorf("%s", other)
	}
	// A driver that the environment names does without the settings of the file's.
	drivers := configOf(t, "worker:\n  driver: http\n  driver-url: https://x.example/{instance_id}\n")
	if r := command(t, map[string]string{"BATCHRESET_DRIVER": "simulator"}, "config", "check", "--config", drivers); r.Code != 0 {
		t.Errorf("%+v", r)
	}
}

// Operators' commands take what they have in common with the processes, and nothing that only has the same name.
func TestOperatorsCommandsTakeTheirPartOfTheFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := configOf(t, "redis-file: "+filepath.Join(dir, "none")+"\ndriver: http\ndriver-url: https://x.example/{instance_id}\n")
	r := command(t, nil, "token", "list", "--config", path)
	if r.Code == 0 || !strings.Contains(r.Said, filepath.Join(dir, "none")) {
		t.Errorf("%+v", r)
	}
	if r := command(t, nil, "fleet", "set", "--help"); !strings.Contains(r.Out, "--config") || !strings.Contains(r.Out, "--driver") {
		t.Errorf("%s", r.Out)
	}
	if r := command(t, nil, "jobs", "--config", path); r.Code != 64 || !strings.Contains(r.Said, "unknown flag: --config") {
		t.Errorf("a caller's command takes the file: %+v", r)
	}
}

// Whatever is wrong with a URL, its password is not shown.
func TestPasswordsOfSettingsAreNotShown(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ value, want string }{
		{"redis://u:secret@h:6379/0", "redis://u:xxxxx@h:6379/0"},
		{"redis://:secret@h", "redis://:xxxxx@h"},
		{"redis://u:sec@ret@h", "redis://u:xxxxx@h"},
		{"redis://secret@h", "redis://xxxxx@h"},
		{"redis-sentinel://u:secret@a:1,b:2?master=m&sentinel_password=secret", "redis-sentinel://u:xxxxx@a:1,b:2?master=m&sentinel_password=xxxxx"},
		{"redis-cluster://u:secret@a:1,b:2", "redis-cluster://u:xxxxx@a:1,b:2"},
		{"redis://h?auth=secret", "redis://h?auth=xxxxx"},
		{"redis://h?pass%77ord=secret", "redis://h?pass%77ord=xxxxx"},
		{"https://h/{instance_id}?zone=1", "https://h/{instance_id}?zone=1"},
		// It ends for who reads a URL at the first of these.
		{"redis://u:12#secret@h:6379/0", "(not shown)"},
		{"redis://u:12/secret@h", "(not shown)"},
		{"redis://u:12?secret@h", "(not shown)"},
		{"redis://u:12?x=secret@h", "(not shown)"},
		{"redis://:pa#secret@h", "(not shown)"},
		{"redis://h?password=x;y=secret", "(not shown)"},
		{"u:secret@h:6379", "(not shown)"},
		{"secret@h", "(not shown)"},
		{"redis://u:sec ret@h", "(not shown)"},
	} {
		r := command(t, map[string]string{"BATCHRESET_REDIS": row.value}, "config", "print", "--output", "json", "api").OK(t)
		if !strings.Contains(r.Out, `"value": `+strconv.Quote(row.want)) || strings.Contains(r.Out, "secret") {
			t.Errorf("%s: %s", row.value, r.Out)
		}
	}
	file := "/run/credentials/batchreset-worker@lab.service/url"
	if r := command(t, map[string]string{"BATCHRESET_REDIS_FILE": file}, "config", "print", "worker").OK(t); !strings.Contains(r.Out, file) {
		t.Errorf("a file's name is not shown: %s", r.Out)
	}
}
