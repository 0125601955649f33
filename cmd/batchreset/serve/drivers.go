package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/terminal"
)

func newDriversCommand(std *terminal.Streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "drivers",
		Short: "What resets the instances: the file of 'worker --drivers'",
		Long: `A worker resets instances through a driver. Flags are enough for the types http and
simulator. A file has room for all settings of every type:

  drivers:
    - name: default
      type: http
      concurrency: 50            # resets under way in one worker; 0 = no bound
      rate: 5                    # resets that one worker starts per second; 0 = no bound
      attempt_timeout: 10m       # time for one attempt
      url: https://phones.example/{instance_id}/reset
      look_url: https://phones.example/{instance_id}/state
      token_file: /run/secrets/phones
      idempotent: true
      definite: [500]
      words: [done=wiped, failed=broken]

    - name: lab
      type: simulator
      latency: 2s

Everything from url on is a setting of the type. Each type has a document of its own with
its settings and an example: worker/<type> in the source. A key that is not known is refused,
and so is one that is there twice. Secrets are in files of their own.

The fleet says which driver an instance has ('batchreset fleet import', column driver). The
one called default is for all that name none. Each driver has queues, lanes, bounds and a
breaker of its own. Workers may have different drivers: an instance waits for a worker that
has its driver, and its job says so. An instance that gets another driver goes to that one.`,
		Args: terminal.NoArgs,
	}
	cmd.AddCommand(newDriversCheckCommand(std))
	return cmd
}

// checked is what became of the check of a driver.
type checked struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Works bool   `json:"works"`
	Error string `json:"error,omitempty"`
}

func newDriversCheckCommand(std *terminal.Streams) *cobra.Command {
	var output terminal.Output
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Say whether the drivers of a file can work",
		Long: `Reads the file as a worker does, and asks each driver whether it can work now: whether
what it needs is there, can be reached, and lets it in. No instance is touched.
Exit code: 0 if all can, 4 if one cannot, 64 if the file is wrong.`,
		Example:           "  batchreset drivers check drivers.yaml",
		Args:              terminal.ArgsFromUsage,
		ValidArgsFunction: cobra.FixedCompletions([]string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt),
		RunE: func(cmd *cobra.Command, args []string) error {
			entries, err := readDrivers(args[0], slog.New(slog.DiscardHandler))
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			results, failed := checkDrivers(cmd.Context(), entries)
			err = output.Show(std.Out, terminal.View{
				List: "drivers", Columns: []string{"name", "type", "works", "error"},
				Rows: func(add func(any) error) error {
					for _, r := range results {
						if err := add(r); err != nil {
							return err
						}
					}
					return nil
				},
			})
			return errors.Join(err, failed)
		},
	}
	output.Define(cmd.Flags())
	return cmd
}

func checkDrivers(ctx context.Context, entries []driverEntry) (results []checked, failed error) {
	for _, e := range entries {
		defer e.close()
		r := checked{Name: e.Name, Type: e.Type, Works: true}
		if c, ok := e.driver.(interface {
			Check(ctx context.Context) error
		}); ok {
			if err := c.Check(ctx); err != nil {
				r.Works, r.Error = false, err.Error()
				failed = terminal.WithCode(terminal.ExitAway, errors.New("not every driver can work"))
			}
		}
		results = append(results, r)
	}
	return results, failed
}
