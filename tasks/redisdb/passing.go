package redisdb

import (
	"crypto/tls"
	"errors"
	"io"
	"net"

	"batchreset/tasks/redisdb/views"
	"batchreset/tasks/redisdb/wire"

	"github.com/redis/go-redis/v9"
)

// Passing reports whether what is wrong with Redis may end by itself, so that waiting is
// worth while: it cannot be reached, it loads its data, it looks for a new primary, or it
// has no room for us just now.
func Passing(err error) bool {
	if _, refused := errors.AsType[tls.AlertError](err); refused {
		return false // it does not like our certificate
	}
	_, network := errors.AsType[net.Error](err)
	return network || errors.Is(err, io.EOF) || errors.Is(err, views.ErrReplica) || errors.Is(err, views.ErrLoading) || errors.Is(err, wire.ErrCrowded) ||
		redis.IsLoadingError(err) || redis.IsMasterDownError(err) || redis.IsClusterDownError(err) ||
		redis.IsTryAgainError(err) || redis.IsMaxClientsError(err) || redis.HasErrorPrefix(err, "BUSY")
}
