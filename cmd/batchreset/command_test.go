package main

import (
	"maps"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

const (
	job1 = "00000000000000000000000000000001"
	run1 = "000000000000000000000000000000a0"
	run2 = "000000000000000000000000000000a1"
	job2 = "00000000000000000000000000000002"
)

// command runs a command in this process. It does not wait for Redis.
func command(t *testing.T, environment map[string]string, args ...string) terminaltest.Result {
	t.Helper()
	variables := map[string]string{"PATH": "/bin", "BATCHRESET_REDIS_PATIENCE": "0"}
	maps.Copy(variables, environment)
	return terminaltest.Run(t.Context(), newRootCommand, &terminal.Streams{In: strings.NewReader(""), Environment: variables}, args...)
}
