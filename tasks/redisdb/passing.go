package redisdb

import (
	"crypto/tls"
	"errors"
	"io"
	"net"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

var (
	errReplica error = tasks.Errorf(tasks.Internal, "redis is a read-only replica; connect to the primary")
	errLoading error = tasks.Errorf(tasks.Internal, "redis is loading its data")
)

// Passing reports whether what is wrong with Redis may end by itself, so that waiting is
// worth while: it cannot be reached, it loads its data, it looks for a new primary, or it
// has no room for us just now.
func Passing(err error) bool {
	if _, refused := errors.AsType[tls.AlertError](err); refused {
		return false // it does not like our certificate
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, errReplica) || errors.Is(err, errLoading) || errors.Is(err, errCrowded) ||
		redis.IsLoadingError(err) || redis.IsMasterDownError(err) || redis.IsClusterDownError(err) ||
		redis.IsTryAgainError(err) || redis.IsMaxClientsError(err) || redis.HasErrorPrefix(err, "BUSY")
}
