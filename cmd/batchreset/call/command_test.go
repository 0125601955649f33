package call

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"batchreset/cmd/batchreset/terminal"
	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newRootCommand makes a command line with the commands of this package alone.
func newRootCommand(std *terminal.Streams) *cobra.Command {
	root := &cobra.Command{Use: "batchreset"}
	root.AddCommand(Commands(std)...)
	terminal.Setup(root, std)
	return root
}

// command runs a command of this package.
func command(t *testing.T, environment map[string]string, args ...string) terminaltest.Result {
	t.Helper()
	return terminaltest.Run(t.Context(), newRootCommand, &terminal.Streams{In: strings.NewReader(""), Environment: environment}, args...)
}

const (
	job1 = "00000000000000000000000000000001"
	job2 = "00000000000000000000000000000002"
)
