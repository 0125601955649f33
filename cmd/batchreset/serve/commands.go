// Package serve has the commands that run the service: api, worker, and dev, which is both with a Redis
// inside. This is where the parts of the service meet.
package serve

import (
	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
)

// Commands are the commands that run the service. A signal stops them in the normal course of
// things, so it does not decide their exit code.
func Commands(std *terminal.Streams) []*cobra.Command {
	all := []*cobra.Command{newDevCommand(std), newAPICommand(std), newWorkerCommand(std), newDriversCommand(std), newNotifyCommand(std)}
	for _, cmd := range all {
		terminal.OfferValues(cmd, "fleet", "registered", "open")
		terminal.OfferValues(cmd, "driver", "http", "simulator")
		terminal.OfferValues(cmd, "notify-format", formatNames()...)
	}
	return all
}
