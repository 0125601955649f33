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
		{"that evicts keys", []string{"maxmemory 64mb", "maxmemory-policy allkeys-lru"}, "maxmemory-policy allkeys-lru"},
		{"that is a read-only replica", []string{"replicaof " + host + " " + port}, "read-only replica"},
	} {
		t.Run(row.name, func(t *testing.T) {
			_, err := redisdb.Open(t.Context(), redisdb.Options{URL: redistest.Start(t, row.config...).URL()})
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want it to say %q", err, row.want)
			}
		})
	}
}

func TestAFullRedisRefusesAJobWhole(t *testing.T) {
	server := redistest.Start(t, "maxmemory 3mb", "maxmemory-policy noeviction")
	w := open(t, redisdb.Options{URL: server.URL()})
	if err := w.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	_, err := w.db.Records.Submit(t.Context(), tasks.Submission{Tenant: "acme", InstanceIDs: []string{"phone-1"}})
	if tasks.CodeOf(err) != tasks.StorageFull {
		t.Errorf("got %v", err)
	}
	if keys := w.rdb.Keys(t.Context(), "reset:{*").Val(); len(keys) != 0 {
		t.Errorf("left behind: %v", keys)
	}
}
