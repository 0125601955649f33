package operate

import (
	"testing"

	"go.uber.org/goleak"

	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// command runs a command of this package.
var command = terminaltest.Runner(terminaltest.Root(Commands))
