package redistest

import (
	"testing"

	"batchreset/cmd/harness"
)

// Sentinel is one primary and two replicas, watched by three Sentinels that replace a dead
// primary after about two seconds. All end with the test.
type Sentinel struct{ *harness.Redis }

// StartSentinel starts a Sentinel and waits until its members know each other.
func StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	return Setup{}.StartSentinel(t)
}

// StartSentinel starts a Sentinel that is run like this.
func (s Setup) StartSentinel(t testing.TB) *Sentinel {
	t.Helper()
	return &Sentinel{s.run(t, harness.RedisSetup.StartSentinel)}
}

// Primary returns the server that the Sentinels name as the primary.
func (s *Sentinel) Primary(t testing.TB) *Server {
	t.Helper()
	primary, err := s.NamedPrimary(t.Context())
	must(t, err)
	return &Server{primary}
}

// KillPrimary ends the primary with SIGKILL.
func (s *Sentinel) KillPrimary(t testing.TB) {
	t.Helper()
	s.Primary(t).Kill()
}
