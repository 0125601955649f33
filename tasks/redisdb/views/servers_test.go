package views

import (
	"strings"
	"testing"
)

// What is said of an embedded Redis holds for a dev that keeps its state, too.
func TestWhatACrashOfAnEmbeddedRedisLoses(t *testing.T) {
	nodes, err := NewServers(nil, true).Nodes(t.Context())
	if err != nil || len(nodes) != 1 || !strings.Contains(nodes[0].Durability, "--state") {
		t.Errorf("%+v, %v", nodes, err)
	}
}

func TestCheckInfo(t *testing.T) {
	for _, row := range []struct{ name, version, policy, role, want string }{
		{"accepts 6.2", "6.2.0", "noeviction", "master", ""},
		{"accepts 7", "7.0.15", "noeviction", "master", ""},
		{"refuses 6.0", "6.0.16", "noeviction", "master", "6.0.16 is too old"},
		{"refuses 5", "5.0.14", "noeviction", "master", "5.0.14 is too old"},
		{"refuses what does not tell", "", "noeviction", "master", "does not tell its version"},
		{"refuses eviction", "7.0.15", "volatile-ttl", "master", "maxmemory-policy volatile-ttl"},
		{"refuses a replica", "7.0.15", "noeviction", "slave", "read-only replica"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := CheckInfo("# Server\r\nredis_version:" + row.version + "\r\nmaxmemory_policy:" + row.policy + "\r\nrole:" + row.role + "\r\n")
			if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
				t.Errorf("got %v, want %q", err, row.want)
			}
		})
	}
}
