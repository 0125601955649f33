package operate

import (
	"context"
	"errors"
	"slices"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// offerToOperator tells the shells what may follow an operator's command or the commands
// below it.
func offerToOperator(std *terminal.Streams, cmd *cobra.Command) {
	terminal.OfferValues(cmd, "scope", terminal.Strings(tasks.Scopes)...)
	terminal.OfferValues(cmd, "role", terminal.Strings(tasks.Roles)...)
	terminal.OfferValues(cmd, "action", terminal.Strings(tasks.Actions)...)
	terminal.OfferValues(cmd, "events", terminal.Strings(tasks.Topics)...)
	completeTenants(std, cmd)
}

func completeTenants(std *terminal.Streams, cmd *cobra.Command) {
	if cmd.CommandPath() == "tenant list" {
		cmd.ValidArgsFunction = std.Completion(offerTenants)
	}
	std.CompleteFlag(cmd, "tenant", offerTenants)
	for _, sub := range cmd.Commands() {
		completeTenants(std, sub)
	}
}

// offerTenants offers those that have a token, a halt or limits.
func offerTenants(ctx context.Context, cmd *cobra.Command, args []string) (names []string, err error) {
	cmd.SetContext(ctx)
	op := operation{redis: redisflags.Flags{URL: cmd.Flag("redis").Value.String(), File: cmd.Flag("redis-file").Value.String()}}
	err = op.run(cmd, func(db *redisdb.DB) error {
		policies, err := db.Policies.List(ctx)
		for _, p := range policies {
			if p.Tenant != "" {
				names = append(names, p.Tenant)
			}
		}
		more, others := db.Tokens.Tenants(ctx)
		names = append(names, more...)
		return errors.Join(err, others)
	})
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return slices.Contains(args, name) }), err
}
