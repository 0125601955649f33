package main

import (
	"context"
	"fmt"
	"strings"

	"batchreset/cmd/chaos/fault"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"batchreset/cmd/harness"
)

// link is a connection between two of the parts that can be broken.
type link struct {
	proxy *toxiproxy.Proxy
}

// openLink starts a proxy on a free port of the loopback interface.
func openLink(name, upstream string) (*link, error) {
	log := zerolog.Nop()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), log)
	p := toxiproxy.NewProxy(server, name, "127.0.0.1:0", upstream)
	if err := p.Start(); err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return &link{proxy: p}, nil
}

func (l *link) addr() string { return l.proxy.Listen }

// fault breaks the link until load ends or the time is over, and repairs it.
func (l *link) fault(ctx, load context.Context, f fault.Planned) error {
	if f.Kind == fault.LinkCut {
		l.proxy.Stop()
		harness.Pause(load, f.Length)
		return l.proxy.Start()
	}
	toxic := `{"name":"%s","type":"timeout","stream":"%s","attributes":{"timeout":0}}`
	if f.Kind == fault.LinkDelay {
		toxic = `{"name":"%s","type":"latency","stream":"%s","attributes":{"latency":250,"jitter":250}}`
	}
	directions := []string{"upstream", "downstream"}
	for _, direction := range directions {
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(toxic, direction, direction))); err != nil {
			return fmt.Errorf("%s %s: %w", f.Kind, f.Target, err)
		}
	}
	harness.Pause(load, f.Length)
	for _, direction := range directions {
		if err := l.proxy.Toxics.RemoveToxic(ctx, direction); err != nil {
			return fmt.Errorf("repair %s: %w", f.Target, err)
		}
	}
	return nil
}

func (l *link) close() { l.proxy.Stop() }
