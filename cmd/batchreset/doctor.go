package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/call"
	"batchreset/cmd/batchreset/operate"
	"batchreset/cmd/batchreset/terminal"
)

func newDoctorCommand(std *terminal.Streams) *cobra.Command {
	var (
		caller   call.Doctor
		operator operate.Doctor
	)
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look what is wrong, and say what to do",
		Long: `Looks at the service with whatever it is given, and says of each thing whether it is ok,
and if not, what to do. It changes nothing.

As a caller, with the server and the token of all callers' commands: is the server there,
which version is it, and does it take new work; TLS; this machine's clock; whose the token
is, what it allows, and when it ends.

As an operator, with --redis or --redis-file: Redis's version, settings, durability and
memory, what the user of that URL may do, the clocks; which workers live and for which
drivers, instances that no worker serves, the sweeper, halts, queues; of each server what fills
it, by kind of key and with the largest ones, keys that should expire and do not, and its
files. It looks at up to about 20,000 keys of a server, for up to 5 s, and says what is an
estimate. What it can tell of the rights depends on the user: give it the URL that an api or
a worker has.

Each line is ok, warn (works, and should be another way) or fail. The last lines say what was
not looked at, and why. Exit code: 0 if nothing fails, 2 if something does, 64 if the command
line is wrong or there is nothing to look at.`,
		Example: `  batchreset doctor
  batchreset doctor --context lab --output json
  batchreset doctor --redis-file redis-url.txt`,
		Args: terminal.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var found terminal.Checkup
			if err := errors.Join(caller.Examine(cmd.Context(), &found), operator.Examine(cmd.Context(), &found)); err != nil {
				return err
			}
			if found.Findings == nil {
				return errors.New("there is nothing to look at: give --server and --token-file, or --redis-file")
			}
			if err := caller.Show(&found); err != nil {
				return err
			}
			if n := found.Failed(); n > 0 {
				return &terminal.ExitError{Code: terminal.ExitSome, Err: fmt.Errorf("%s", terminal.Plural(n, "failure"))}
			}
			return nil
		},
	}
	caller.Define(cmd, std)
	operator.Define(cmd)
	terminal.EndEarly(cmd)
	return cmd
}
