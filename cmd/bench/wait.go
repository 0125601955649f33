package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// until calls f every few milliseconds until it succeeds, at most for d.
func until(ctx context.Context, d time.Duration, f func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		err := f(limited)
		if err == nil {
			return nil
		}
		if pause(limited, 2*time.Millisecond) != nil {
			return errors.Join(fmt.Errorf("waited for %s: %w", d, err), ctx.Err())
		}
	}
}

// pause waits, unless ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// nextPort is where freeAddr looks next: below the ports that systems hand out for
// outgoing connections, and elsewhere in another benchmark at the same time.
var nextPort atomic.Int32

func init() { nextPort.Store(int32(os.Getpid() % 200 * 100)) }

// freeAddr returns an address of the loopback interface that was free a moment ago and
// that nobody else in this process will get.
func freeAddr(ctx context.Context) (addr string, err error) {
	for range 1000 {
		addr = fmt.Sprintf("127.0.0.1:%d", 10000+nextPort.Add(1)%20000)
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err == nil {
			return addr, l.Close()
		}
	}
	return "", errors.New("no free port on 127.0.0.1")
}
