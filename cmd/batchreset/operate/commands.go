// Package operate has the commands of operators: tokens, fleet, limits, halts, webhooks, who may log in, and
// the audit trail. They work on the Redis of the service, so whoever may use that Redis may use them.
package operate

import (
	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
)

// Commands are the commands of those who operate the service. They work on its Redis.
func Commands(std *terminal.Streams) []*cobra.Command {
	all := []*cobra.Command{
		newOperatorCommand(std), newTokenCommand(std), newKeyCommand(std), newSecretCommand(std), newFleetCommand(std), newWebhookCommand(std),
		newTenantCommand(std), newHaltCommand(std), newResumeCommand(std), newAuditCommand(std),
	}
	for _, cmd := range all {
		terminal.EndEarly(cmd)
		offerToOperator(std, cmd)
	}
	return all
}
