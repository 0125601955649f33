package redisdb_test

import (
	"net"
	"strings"
	"testing"

	"batchreset/tasks"
	"batchreset/tasks/redisdb"
	"batchreset/tasks/redisdb/redistest"
)

func TestOpenRefusesAServerThatCannotBeTrusted(t *testing.T) {
	host, port, err := net.SplitHostPort(redistest.Start(t).Addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		config []string
		want   string
	}{
		{"that evicts keys", []string{"--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru"}, "maxmemory-policy allkeys-lru"},
		{"that is a read-only replica", []string{"--replicaof", host, port}, "read-only replica"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := redisdb.Open(t.Context(), redisdb.Options{URL: redistest.Start(t, row.config...).URL()})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want it to say %q", err, row.want)
			}
		})
	}
}

func TestOpenRefusesAURL(t *testing.T) {
	for _, row := range []struct{ name, url, want string }{
		{"that is empty", "", "is not a URL"},
		{"without a scheme", "localhost:6379", "is not a URL"},
		{"of another scheme", "http://localhost:6379", `has the scheme "http"`},
		{"with a database that is not a number", "redis://localhost:6379/x", "database"},
		{"with a parameter that is not known", "redis://localhost:6379/0?dail_timeout=1s", "dail_timeout"},
		{"with a parameter twice", "redis://localhost:6379/0?db=1&db=2", `has the parameter "db" 2 times`},
		{"with half a parameter", "redis://localhost:6379/0?db=%zz", "cannot be read"},
		{"of sentinels with another parameter", "redis-sentinel://localhost:26379?master=m&password=x", `has the unknown parameter "password"`},
		{"of sentinels in another case", "redis-sentinel://localhost:26379?Master=m", `has the unknown parameter "Master"; did you mean "master"?`},
		{"of two masters", "redis-sentinel://localhost:26379?master=a&master=b", `has the parameter "master" 2 times`},
		{"of a cluster with a parameter", "redis-cluster://localhost:7000?read_only=true", `has the unknown parameter "read_only"`},
		{"of a cluster with a database", "redis-cluster://localhost:7000/1", `has the database "1", and a cluster has only one`},
		{"of a cluster with TLS", "rediss-cluster://localhost:7000", "TLS to sentinels and clusters is not supported"},
		{"with a fragment", "redis://localhost:6379/0#1", "a fragment"},
		{"of sentinels without the master's name", "redis-sentinel://localhost:26379", "needs the master's name"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := redisdb.Open(t.Context(), redisdb.Options{URL: row.url})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want it to say %q", err, row.want)
			}
		})
	}
}

func TestAFullRedisRefusesAJobWhole(t *testing.T) {
	server := redistest.Start(t, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
	w := open(t, redisdb.Options{URL: server.URL()})
	if err := w.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	_, err := w.db.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}})
	if tasks.CodeOf(err) != tasks.StorageFull {
		t.Errorf("got %v", err)
	}
	if keys := w.rdb.Keys(t.Context(), "reset:{*").Val(); len(keys) != 0 {
		t.Errorf("left behind: %v", keys)
	}
}
