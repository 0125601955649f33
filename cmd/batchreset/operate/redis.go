package operate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
	"batchreset/tasks/redisdb"
)

// operation is what an operator's command does on the Redis of the service.
type operation struct {
	redis   redisflags.Flags
	options redisdb.Options
	seals   redisflags.Seals // for what makes or uses a secret that Redis keeps
	// sealsNew says that it makes a secret that Redis keeps.
	sealsNew bool
	output   terminal.Output
}

// defineSeals is for what makes a secret that Redis keeps.
func (op *operation) defineSeals(flags *pflag.FlagSet) {
	op.sealsNew = true
	op.seals.DefineNew(flags)
}

// define gives cmd the flags that all operators' commands have.
func (op *operation) define(cmd *cobra.Command) {
	op.redis.Define(cmd.Flags(), "redis://127.0.0.1:6379/0")
	op.output.Define(cmd.Flags())
}

// run opens the Redis of the flags, does something with it, and closes it.
func (op *operation) run(cmd *cobra.Command, do func(*redisdb.DB) error) error {
	opts := op.options
	seals, err := op.seals.Read()
	if err != nil {
		return err
	}
	opts.Seals = seals
	opts.Audited = sayWhatIsMissing(cmd.ErrOrStderr())
	opts.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)) // what a list leaves out
	db, err := op.redis.Open(cmd.Context(), opts)
	if _, unreachable := errors.AsType[net.Error](err); unreachable {
		return fmt.Errorf("%w; --redis or --redis-file name another one, and 'batchreset dev' prints the URL of the one inside it", err)
	} else if err != nil {
		return err
	}
	if op.sealsNew {
		err = op.seals.CheckOpens(cmd.Context(), db)
	}
	if err == nil {
		err = do(db)
	}
	if errors.Is(err, tasks.ErrOperatorsReadOnly) {
		err = errors.New("the Redis user of this command must not write operators: use one that may, see deploy/redis/users.acl")
	}
	if closing := db.Close(); err == nil {
		err = closing
	}
	return redisflags.Failed(err)
}

// list is what a command shows of all entries of a kind.
type list[T any] struct {
	name    string   // of the array in JSON
	columns []string // of CSV: names of fields as they are in JSON
	read    func(ctx context.Context, db *redisdb.DB, args []string) ([]T, error)
	head    []string // of the table
	row     func(entry T, now time.Time) []string
}

// newListCommand makes a command that lists what is read.
func newListCommand[T any](std *terminal.Streams, l list[T], cmd *cobra.Command) *cobra.Command {
	var op operation
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return op.run(cmd, func(db *redisdb.DB) error {
			entries, err := l.read(cmd.Context(), db, args)
			if err != nil {
				return err
			}
			return op.output.Show(std.Out, terminal.View{
				List: l.name, Rows: terminal.Each(entries), Columns: l.columns,
				Table: func(w io.Writer) error {
					table := terminal.NewTable(w, l.head...)
					for _, entry := range entries {
						table.Row(l.row(entry, db.Redis.Now())...)
					}
					return table.Flush()
				},
			})
		})
	}
	op.define(cmd)
	return cmd
}
