package serve

import (
	"testing"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// command runs a command of this package.
var command = terminaltest.Runner(terminaltest.Root(func(std *terminal.Streams) []*cobra.Command {
	return append(Commands(std), NewHealthcheckCommand())
}))
