package redistest

import (
	"testing"

	"batchreset/cmd/harness"
)

// Cluster is a Redis Cluster of three primaries with a replica each, which
// replaces a dead primary after about four seconds. All end with the test.
type Cluster struct{ *harness.Redis }

// StartCluster starts a Cluster and waits until every node can serve.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	return Setup{}.StartCluster(t)
}

// StartCluster starts a Cluster that is run like this.
func (s Setup) StartCluster(t testing.TB) *Cluster {
	t.Helper()
	return &Cluster{s.run(t, harness.RedisSetup.StartCluster)}
}

// KillPrimary ends the primary that owns the key with SIGKILL.
func (c *Cluster) KillPrimary(t testing.TB, key string) {
	t.Helper()
	owner, err := c.Owner(t.Context(), key)
	must(t, err)
	owner.Kill()
}
