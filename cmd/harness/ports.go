package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync/atomic"
)

// nextPort is where FreeAddr looks next: below the ports that systems hand out for outgoing
// connections, and elsewhere in each process. What is started again must find its port free,
// and nobody else's server behind it.
var nextPort atomic.Int32

// portStep is the golden section of the ports: processes that are started one after the other, as the tests of several packages
// are, begin hundreds of ports apart.
const portStep = 12361

func init() { nextPort.Store(int32(os.Getpid() * portStep % 20000)) }

// FreeAddr returns an address of the loopback interface, with a port that was free a moment
// ago and that this process has not been given before.
func FreeAddr(ctx context.Context) (addr string, err error) {
	return freeAddr(func(addr string) error {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return l.Close()
	})
}

// freeAddr returns the next address that can be used.
func freeAddr(try func(addr string) error) (addr string, err error) {
	for range 1000 {
		addr = fmt.Sprintf("127.0.0.1:%d", 10000+nextPort.Add(1)%20000)
		if err = try(addr); err == nil {
			return addr, nil
		}
	}
	return "", fmt.Errorf("no free port on 127.0.0.1: %w", err)
}

// Listens returns an error unless somebody accepts connections at the address.
func Listens(ctx context.Context, addr string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}
