package call

import (
	"testing"

	"go.uber.org/goleak"

	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A command line with the commands of this package alone, and what runs it.
var (
	newRootCommand = terminaltest.Root(Commands)
	command        = terminaltest.Runner(newRootCommand)
)

const (
	job1 = "00000000000000000000000000000001"
	job2 = "00000000000000000000000000000002"
)
