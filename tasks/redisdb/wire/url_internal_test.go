package wire

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/cmd/harness"
	"batchreset/tasks"
	"batchreset/tasks/redisdb/redistest"
)

func TestParseAddress(t *testing.T) {
	for url, want := range map[string]redis.UniversalOptions{
		"redis://localhost:6379/0":                    {Addrs: []string{"localhost:6379"}},
		"redis://localhost":                           {Addrs: []string{"localhost:6379"}},
		"REDIS://localhost/":                          {Addrs: []string{"localhost:6379"}},
		"redis://:6380/2":                             {Addrs: []string{"localhost:6380"}, DB: 2},
		"redis://[::1]":                               {Addrs: []string{"[::1]:6379"}},
		"redis://:p@h":                                {Addrs: []string{"h:6379"}, Password: "p"},
		"redis://u:p%23%2F%25%3F%40:%20@h/3":          {Addrs: []string{"h:6379"}, Username: "u", Password: "p#/%?@: ", DB: 3},
		"redis://u:a@b+c[d]@h":                        {Addrs: []string{"h:6379"}, Username: "u", Password: "a@b+c[d]"},
		"redis://h?max_retries=-1":                    {Addrs: []string{"h:6379"}, MaxRetries: -1},
		"redis://h?db=5&pool_size=7":                  {Addrs: []string{"h:6379"}, DB: 5, PoolSize: 7},
		"redis://h?read_timeout=1s&client_name=a%20b": {Addrs: []string{"h:6379"}, ReadTimeout: time.Second, ClientName: "a b"},
		"redis-sentinel://u:p@h1,[::1]:7/5?master=m&sentinel_username=su&sentinel_password=s%2Bp": {
			Addrs: []string{"h1:26379", "[::1]:7"}, MasterName: "m", Username: "u", Password: "p", DB: 5, SentinelUsername: "su", SentinelPassword: "s+p",
		},
		"redis-sentinel://h?sentinel_password=sp&master=m": {Addrs: []string{"h:26379"}, MasterName: "m", SentinelPassword: "sp"},
		"redis-cluster://:p@h1:7000,h2:7001/0?dial_timeout=200ms": {
			Addrs: []string{"h1:7000", "h2:7001"}, Password: "p", DialTimeout: 200 * time.Millisecond,
		},
	} {
		a, err := parseAddress(url, tasks.DidYouMean[string])
		if err != nil || !reflect.DeepEqual(a.UniversalOptions, want) {
			t.Errorf("%s: got %+v, %v", url, a, err)
		}
	}
}

func TestParseAddressWithTLS(t *testing.T) {
	certs := redistest.NewCerts(t)
	for _, scheme := range []string{"rediss", "rediss-sentinel", "rediss-cluster"} {
		parameters := "?sni=redis.example&cacert=" + certs.CA + "&cert=" + certs.Cert + "&key=" + certs.Key
		if scheme == "rediss-sentinel" {
			parameters += "&master=m"
		}
		a, err := parseAddress(scheme+"://h"+parameters, tasks.DidYouMean[string])
		if err != nil {
			t.Fatalf("%s: %v", scheme, err)
		}
		pair, err := a.TLSConfig.GetClientCertificate(nil)
		if err != nil || len(pair.Certificate) == 0 || a.TLSConfig.ServerName != "redis.example" || a.TLSConfig.RootCAs == nil {
			t.Errorf("%s: %+v, %v", scheme, a.TLSConfig, err)
		}
	}
	for _, scheme := range []string{"redis", "redis-cluster"} {
		if a, err := parseAddress(scheme+"://h", tasks.DidYouMean[string]); err != nil || a.TLSConfig != nil {
			t.Errorf("%s: %+v, %v", scheme, a, err)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	certs := redistest.NewCerts(t)
	for url, want := range map[string]string{
		"":                                  "is not a URL",
		"redis://":                          "is not a URL",
		"localhost:6379":                    "is not a URL",
		"http://localhost:6379":             `has the scheme "http"; it must be one of redis, redis-cluster, redis-sentinel, rediss, rediss-cluster, rediss-sentinel`,
		"redis-ring://h":                    `has the scheme "redis-ring"`,
		"p4ss!word://h":                     "has an unknown scheme",
		"redis:///0":                        "has no host",
		"redis://h:99999":                   "has no host, or one with a port",
		"redis://h:x":                       "has no host, or one with a port",
		"redis://::1":                       "brackets around an IPv6 address",
		"redis-cluster://h1,,h2":            "has no host",
		"redis://h1,h2":                     "has 2 hosts; redis:// takes one",
		"redis://h/x":                       `has the database "x"`,
		"redis://h/-1":                      `has the database "-1"`,
		"redis://h/1/2":                     `has the database "1/2"`,
		"redis://h?db=":                     "a parameter without a value",
		"redis://h?db=x":                    `has the database "x"`,
		"redis://h/1?db=1":                  "has the database twice",
		"redis://h?db=1&db=2":               "has the database twice",
		"redis://h?pool_size=1&pool_size=1": `has the parameter "pool_size" 2 times`,
		"redis://h?pool_size=0":             `has the parameter "pool_size", which must be a number from 1 on, not "0"`,
		"redis://h?read_timeout=5":          `has the parameter "read_timeout", which must be a time such as 500ms`,
		"redis://h?read_timeout=-1s":        `has the parameter "read_timeout"`,
		"redis://h?dail_timeout=1s":         `has the unknown parameter "dail_timeout"; did you mean "dial_timeout"?`,
		"redis://h?Pool_size=1":             `has the unknown parameter "Pool_size"; did you mean "pool_size"?`,
		"redis://h?protocol=3":              `has the unknown parameter "protocol"`,
		"redis://h?db=%zz":                  `has a parameter "db" that cannot be read`,
		"redis://h?tls=true":                `has the unknown parameter "tls"; TLS is rediss://`,
		"redis-sentinel://h?master=m&tls=true&db=5":           `has the unknown parameter "tls"; TLS is rediss-sentinel://`,
		"redis-cluster://h?ssl=1":                             `TLS is rediss-cluster://`,
		"rediss://h?skip_verify=true":                         `has the unknown parameter "skip_verify"; certificates are always checked`,
		"redis-sentinel://h?master=m&password=x":              `has the unknown parameter "password"; write redis-sentinel://USER:PASSWORD@HOST`,
		"redis-cluster://h?read_only=true":                    `has the unknown parameter "read_only"`,
		"redis-cluster://h/1":                                 `has the database 1, and a cluster has only one`,
		"redis-cluster://h?db=1":                              `has the database 1, and a cluster has only one`,
		"redis://h?master=m":                                  `has the parameter "master", which is for redis-sentinel:// and rediss-sentinel:// only`,
		"redis-cluster://h?sentinel_password=m":               `has the parameter "sentinel_password", which is for redis-sentinel://`,
		"redis://h?cacert=" + certs.CA:                        `has the parameter "cacert", which is about TLS, which is rediss://`,
		"redis-sentinel://h?master=m&key=x":                   `has the parameter "key", which is about TLS, which is rediss-sentinel://`,
		"rediss://h?cert=" + certs.Cert:                       `has one of the parameters "cert" and "key" without the other`,
		"rediss://h?cacert=/nowhere":                          "parameter cacert: open /nowhere",
		"rediss://h?cacert=" + certs.Key:                      "parameter cacert: no certificate is in " + certs.Key,
		"rediss://h?cert=" + certs.Key + "&key=" + certs.Cert: "parameters cert and key: ",
		"redis-sentinel://h":                                  "needs the master's name: redis-sentinel://HOST:26379?master=NAME",
		"rediss-sentinel://h":                                 "needs the master's name: rediss-sentinel://HOST:26379?master=NAME",
		"redis-sentinel://h?master=m&sentinel_username=u":     `"sentinel_username" without "sentinel_password"`,
		"redis-sentinel://h?master=m&sentinel_password=a+b":   `has a "+" in the parameter "sentinel_password", which could be a space`,
		"redis://u@h":                                         "has a user without a password; write redis://USER:PASSWORD@HOST, or redis://:PASSWORD@HOST",
		"redis://u:@h":                                        "has a user without a password",
		"redis://h/0#1":                                       "has a fragment",
	} {
		if _, err := parseAddress(url, tasks.DidYouMean[string]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %q", url, err, want)
		}
	}
}

// TestARawPasswordIsTaughtAndNotShown takes passwords that cut a URL into pieces, in every place
// where one may be.
func TestARawPasswordIsTaughtAndNotShown(t *testing.T) {
	const left, right = "hunter", "secret"
	for _, sign := range []string{"#", "/", "%", "?", "/@", "?@", "#@", "@/", "//", "%%", "/?#%@"} {
		for _, url := range []string{
			"redis://:%s@h:6379/0", "rediss://u:%s@h", "redis://%s:p@h:6379", "redis-cluster://u:%s@h1:1,h2:2",
			"redis-sentinel://u:%s@h1,h2/0?master=m", "redis-sentinel://u:%s@h1,h2?master=m&sentinel_password=p",
		} {
			url = fmt.Sprintf(url, left+sign+right)
			taught(t, url, left, right)
		}
	}
	for _, sign := range []string{"#", "%", "@", "&", "+", "&=", "=&", "&a=", "/@", "%%"} {
		taught(t, "redis-sentinel://u:p@h1,h2?master=m&sentinel_password="+left+sign+right, left, right)
		taught(t, "rediss-sentinel://h1?sentinel_password="+left+sign+right+"&master=m", left, right)
	}
}

// taught checks that a URL is refused with a hint, and that its pieces are not repeated.
func taught(t *testing.T, url string, pieces ...string) {
	t.Helper()
	_, err := parseAddress(url, tasks.DidYouMean[string])
	if err == nil {
		t.Errorf("%s is taken", url)
		return
	}
	if !slices.ContainsFunc([]string{"%23", "%25", "%26", "%2B"}, func(hint string) bool { return strings.Contains(err.Error(), hint) }) {
		t.Errorf("%s: no hint in %v", url, err)
	}
	for _, piece := range pieces {
		if strings.Contains(err.Error(), piece) {
			t.Errorf("%s: its password is in %v", url, err)
		}
	}
}

func TestTheRunbookHasEveryParameter(t *testing.T) {
	text, err := os.ReadFile("../../../deploy/RUNBOOK.md")
	if err != nil {
		t.Fatal(err)
	}
	runbook := strings.ReplaceAll(string(text), `\|`, "|")
	for name := range parameters {
		if !strings.Contains(runbook, "`"+name+"`") {
			t.Errorf("%s is not there", name)
		}
	}
	if !strings.Contains(runbook, harness.SentinelRights+"`") {
		t.Errorf("it does not have %s", harness.SentinelRights)
	}
}
