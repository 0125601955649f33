// Package call has the commands of callers: those who submit resets and follow their jobs. They ask
// the service over HTTP as anybody else could, with api/client, and need neither Redis nor a worker.
package call

import (
	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
)

// Commands are the commands of those who submit and follow jobs.
func Commands(std *terminal.Streams) []*cobra.Command {
	all := []*cobra.Command{
		newLoginCommand(std), newLogoutCommand(std), newWhoamiCommand(std), newContextCommand(std),
		newSubmitCommand(std), newStatusCommand(std), newWatchCommand(std), newJobsCommand(std),
		newCancelCommand(std), newRetryCommand(std), newProofCommand(std),
	}
	for _, cmd := range all {
		terminal.EndEarly(cmd)
		offerToCaller(std, cmd)
	}
	return all
}
