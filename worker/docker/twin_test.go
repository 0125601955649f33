package docker

import (
	"encoding/json"
	"strings"
	"testing"

	"batchreset/worker"
)

const phoneID = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// told is what an engine tells of a container.
func told(t *testing.T, text string) *container {
	t.Helper()
	c := &container{}
	if err := json.Unmarshal([]byte(text), c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestATwinIsAllThatTheEngineTells(t *testing.T) {
	for name, test := range map[string]struct{ told, want string }{
		"fields that we do not know": {
			`{"Config":{"Labels":{"a":"b"},"New":{"Deep":[1,2]}},"HostConfig":{"NetworkMode":"default","Newer":12345678901234567890},"Image":"sha256:1"}`,
			`{"HostConfig":{"NetworkMode":"default","Newer":12345678901234567890},"Labels":{"a":"b","batchreset.reset":"KEY"},"New":{"Deep":[1,2]}}`,
		},
		"a host name that is the ID": {
			`{"Config":{"Hostname":"0123456789ab"},"HostConfig":{},"Image":"sha256:1"}`,
			`{"HostConfig":{},"Labels":{"batchreset.reset":"KEY"}}`,
		},
		"a host name that somebody chose": {
			`{"Config":{"Hostname":"phone"},"HostConfig":{},"Image":"sha256:1"}`,
			`{"HostConfig":{},"Hostname":"phone","Labels":{"batchreset.reset":"KEY"}}`,
		},
		"the host's own name": {
			`{"Config":{"Hostname":"server"},"HostConfig":{"UTSMode":"host"},"Image":"sha256:1"}`,
			`{"HostConfig":{"UTSMode":"host"},"Labels":{"batchreset.reset":"KEY"}}`,
		},
		"an image whose name leads elsewhere by now": {
			`{"Config":{"Image":"redroid:12"},"HostConfig":{},"Image":"sha256:2"}`,
			`{"HostConfig":{},"Image":"sha256:2","Labels":{"batchreset.reset":"KEY"}}`,
		},
		"what a network was asked for, and not what it gave": {
			`{"Config":{},"HostConfig":{"NetworkMode":"farm"},"Image":"sha256:1","NetworkSettings":{"Networks":{
				"farm":{"IPAMConfig":{"IPv4Address":"10.1.0.5"},"Aliases":["one","0123456789ab"],"IPAddress":"10.1.0.5","MacAddress":"02:42:0a:01:00:05","GwPriority":0,"Links":null},
				"other":{"Aliases":["two"]}}}}`,
			`{"HostConfig":{"NetworkMode":"farm"},"Labels":{"batchreset.reset":"KEY"},"NetworkingConfig":{"EndpointsConfig":{"farm":{"Aliases":["one"],"IPAMConfig":{"IPv4Address":"10.1.0.5"}}}}}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := told(t, test.told)
			c.ID = phoneID
			before, _ := json.Marshal(c)
			got, err := json.Marshal(twinOf(c, "KEY", image{ID: "sha256:1"}))
			if err != nil || string(got) != test.want {
				t.Errorf("%s, %v\nwant %s", got, err, test.want)
			}
			if now, _ := json.Marshal(c); string(now) != string(before) {
				t.Error("the container was changed")
			}
		})
	}
}

func TestATwinJoinsEveryNetwork(t *testing.T) {
	c := told(t, `{"Config":{},"HostConfig":{"NetworkMode":"farm"},"NetworkSettings":{"Networks":{"farm":{},"b":{},"a":{}}}}`)
	twin := told(t, `{"NetworkSettings":{"Networks":{"farm":{}}}}`)
	if got := strings.Join((scene{madeOf: c, twin: twin}).missingNetworks(), " "); got != "a b" {
		t.Errorf("missing are %s", got)
	}
	if got := (scene{twin: twin}).missingNetworks(); len(got) > 0 {
		t.Errorf("missing are %s, although nobody knows what it was made of", got)
	}
}

func TestOnlyNamesOfTwinsAreCut(t *testing.T) {
	twin := twinName("farm.1", "KEY", phoneID)
	if phoneName(twin) != "farm.1" || !containerName.MatchString(twin) {
		t.Errorf("%s is the twin of %s", twin, phoneName(twin))
	}
	for _, name := range []string{"farm.1", "a.reset-1", "a.reset-0123456789abc", "a.reset-0123456789ag", "reset-0123456789ab"} {
		if phoneName(name) != name {
			t.Errorf("%s is cut to %s", name, phoneName(name))
		}
	}
	for _, other := range []string{twinName("farm.1", "KEY2", phoneID), twinName("farm.1", "KEY", strings.Repeat("0", 64))} {
		if other == twin {
			t.Error("two twins have one name")
		}
	}
}

func TestPhonesThatOurEngineDoesNotHave(t *testing.T) {
	cfg := Config{Host: "unix:///nowhere.sock"}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ host, want string }{
		"a part of a volume":                    {`{"Mounts":[{"Type":"volume","Source":"all","Target":"/data","VolumeOptions":{"Subpath":"3"}}]}`, "/data is a part of a volume"},
		"another's part":                        {`{"Mounts":[{"Type":"volume","Source":"all","Target":"/other","VolumeOptions":{"Subpath":"3"}}]}`, ""},
		"links":                                 {`{"Links":["/db:/phone/db"]}`, "--link"},
		"memory":                                {`{"Binds":null,"Mounts":[{"Type":"tmpfs","Target":"/cache"}]}`, ""},
		"binds of all kinds":                    {`{"Binds":["/srv/1:/data/:rw,Z","all:/other"]}`, ""},
		"a folder that is not among the mounts": {`{"Binds":["/srv/1:/data-1:rw"]}`, "something mounted at /data-1, and"},
		"a volume that is not":                  {`{"Mounts":[{"Type":"volume","Source":"v","Target":"/data-1"}]}`, "something mounted at /data-1, and"},
		"binds of another shape":                {`{"Binds":[{"Source":"v"}]}`, "HostConfig.Binds is [{"},
		"mounts of another shape":               {`{"Mounts":"none"}`, "HostConfig.Mounts is \"none\""},
	} {
		t.Run(name, func(t *testing.T) {
			err := cfg.checkPhone(told(t, `{"Config":{},"HostConfig":`+test.host+`,"Mounts":[{"Type":"bind","Source":"/srv/1","Destination":"/data","RW":true},
				{"Type":"volume","Name":"all","Destination":"/other"}]}`))
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			_ = mustFail(t, err, worker.Permanent, test.want)
		})
	}
}

func TestWhatTouchesAMount(t *testing.T) {
	bind := func(source string, rw bool) mount { return mount{Type: "bind", Source: source, RW: rw} }
	volume := func(name string) mount {
		return mount{Type: "volume", Name: name, Source: "/var/lib/docker/volumes/" + name + "/_data", RW: true}
	}
	for name, test := range map[string]struct {
		data, other mount
		want        bool
	}{
		"the same folder":                {bind("/srv/1", true), bind("/srv/1", true), true},
		"the same folder, to read":       {bind("/srv/1", true), bind("/srv/1", false), true},
		"a folder in it":                 {bind("/srv/1", true), bind("/srv/1/media", false), true},
		"a folder around it":             {bind("/srv/1", true), bind("/srv", true), true},
		"a folder around it, to read":    {bind("/srv/1", true), bind("/", false), false},
		"a folder whose name goes on":    {bind("/srv/1", true), bind("/srv/11", true), false},
		"another folder":                 {bind("/srv/1", true), bind("/srv/2", true), false},
		"the same volume":                {volume("one"), volume("one"), true},
		"another volume":                 {volume("one"), volume("two"), false},
		"the folder of the volume":       {volume("one"), bind("/var/lib/docker/volumes/one/_data", false), true},
		"the folder of all volumes":      {volume("one"), bind("/var/lib/docker/volumes", true), false},
		"memory":                         {bind("/srv/1", true), mount{Type: "tmpfs", RW: true}, false},
		"volumes whose place nobody has": {mount{Type: "volume", Name: "a"}, mount{Type: "volume", Name: "b"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.data.touches(test.other); got != test.want {
				t.Errorf("touches: %t", got)
			}
		})
	}
}
