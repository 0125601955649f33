package call

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

const runSubmitHelp = `Makes a run of instances, whatever their number. It is 'batchreset submit' for those who
want to say how careful the run is; the list, and the flags that both have, mean the same
there. They go in the order of the list.

  --canary 10        these go first, and all must succeed; otherwise the run pauses
  --soak 10m         then wait, so that somebody can look
  --growth 2         then waves of 20, 40, 80, … instances
  --max-parallel 320 never more than so many open at a time
  --max-failures 2%  pause once more have failed, or are unknown: a number (0 = none
                     may), or a percentage of those that have ended, which counts once
                     20 have

The ID of the run is printed to standard output. Unlike 'submit', the command follows the
run only with --wait, as 'run watch' does. Ctrl-C and --timeout leave the run running.

With --run-id the command is safe to repeat: the same list and options under the same ID
are the same run. Another list, or other options, are refused. Without one it makes one up,
and says it if no answer comes.

With --dry-run nothing is reset or kept: each instance is listed with would_reset, unknown
(not registered, or another tenant's), protected, or busy (it would wait for the reset that
is under way). Exit code 0 then means that none would be refused, 2 that some would.

` + exitCodes + `
Without --wait, 0 means that the run was made.`

// runOptions are the flags that say how careful a run is.
type runOptions struct {
	soak   time.Duration
	budget string
}

func newRunSubmitCommand(std *terminal.Streams) *cobra.Command {
	c := submitCommand{submission: submission{isRun: true}}
	var o runOptions
	cmd := &cobra.Command{
		Use:   "submit [ID…]",
		Short: "Reset a list of any length, with a canary, waves and a budget of failures",
		Long:  runSubmitHelp,
		Example: `  batchreset run submit --file phones.txt --name 'recall 7' --canary 10 --soak 10m --max-failures 2% --wait
  batchreset run submit --file phones.txt --max-failures 5 --run-id recall-7 --result recall-7.csv
  batchreset run submit --file phones.txt --dry-run --output csv`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.read(args); err != nil {
				return err
			}
			if err := o.complete(&c.request, cmd.Flags().Changed("growth")); err != nil {
				return err
			}
			return c.run(cmd.Context())
		},
	}
	flags, r := cmd.Flags(), &c.request
	c.define(flags, std)
	flags.StringVar(&r.Name, "name", "", "`name` for people, up to 128 characters")
	flags.IntVar(&r.Canary, "canary", 0, "how many instances go first; all of them must succeed; 0 = none")
	flags.DurationVar(&o.soak, "soak", 0, "how long to wait after the canary, such as 30s or 10m")
	flags.Float64Var(&r.Growth, "growth", 0, "how many times as large each wave after the canary is as the one before (default 2)")
	flags.IntVar(&r.MaxParallel, "max-parallel", tasks.DefaultMaxParallel, "how many instances may be open at a time")
	flags.StringVar(&o.budget, "max-failures", "", "`budget`: pause the run once more than so many have failed or are unknown: a number, or a percentage such as 2% (default: any number may)")
	return cmd
}

// complete checks the options and puts them into the request.
func (o runOptions) complete(r *client.RunRequest, growthGiven bool) error {
	if err := tasks.CheckRunName(r.Name); err != nil {
		return fmt.Errorf("--name %w", err)
	}
	budget, err := tasks.ParseBudget(o.budget)
	if err != nil {
		return fmt.Errorf("--max-failures %w", err)
	}
	r.MaxFailures = client.Budget(o.budget)
	checked := tasks.RunOptions{MaxParallel: r.MaxParallel, Canary: r.Canary, Soak: tasks.Duration(o.soak), Growth: r.Growth, MaxFailures: budget}
	switch {
	case growthGiven && r.Growth < 1:
		return fmt.Errorf("--growth must be from 1 to %d", tasks.MaxGrowth)
	case !growthGiven && r.Canary > 0:
		checked.Growth = tasks.DefaultGrowth
	}
	if err := checked.Check(len(r.InstanceIDs)); err != nil { // a sentence that begins with the option
		return fmt.Errorf("--%s", strings.Replace(err.Error(), "max_parallel", "max-parallel", 1))
	}
	if o.soak > 0 {
		r.Soak = o.soak.String()
	}
	return nil
}
