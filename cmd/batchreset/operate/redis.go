package operate

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/spf13/cobra"

	"batchreset/cmd/batchreset/redisflags"
	"batchreset/tasks/redisdb"
)

// withRedis runs an operator's command on the Redis of the flags.
func withRedis(cmd *cobra.Command, flags redisflags.Flags, do func(*redisdb.DB) error) error {
	return withRedisAnd(cmd, flags, redisdb.Options{}, do)
}

func withRedisAnd(cmd *cobra.Command, flags redisflags.Flags, opts redisdb.Options, do func(*redisdb.DB) error) error {
	opts.Audited = sayWhatIsMissing(cmd.ErrOrStderr())
	opts.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil)) // what a list leaves out
	db, err := flags.Open(cmd.Context(), opts)
	if _, unreachable := errors.AsType[net.Error](err); unreachable {
		return fmt.Errorf("%w; --redis or --redis-file name another one, and 'batchreset dev' prints the URL of the one inside it", err)
	} else if err != nil {
		return err
	}
	err = do(db)
	if closing := db.Close(); err == nil {
		err = closing
	}
	return redisflags.Failed(err)
}
