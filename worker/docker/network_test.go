//go:build engine

package docker

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"
)

// newNetwork makes a network of two machines' worth of addresses that leads nowhere. Its bridge is
// gone with it; there are no firewall rules.
func (e *testEngine) newNetwork(t *testing.T, name, subnet string) {
	t.Helper()
	change := func(ctx context.Context, method, path string, body any) {
		if err := e.engine.call(ctx, call{what: "network " + name, method: method, path: path, body: body}, nil); err != nil {
			t.Error(err)
		}
	}
	change(t.Context(), http.MethodPost, "/networks/create", fields{
		"Name": name, "Driver": "bridge", "Internal": true, "IPAM": fields{"Config": []fields{{"Subnet": subnet}}},
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // the test's own has ended
		defer cancel()
		change(ctx, http.MethodDelete, "/networks/"+name, nil)
	})
}

func TestAPhoneStaysInItsNetworks(t *testing.T) {
	t.Parallel()
	e := dockerd(t)
	e.newNetwork(t, "farm", "10.213.7.0/29")
	e.newNetwork(t, "side", "10.213.8.0/29")
	p := newPhone(t, func(config, host fields) {
		host["NetworkMode"] = "farm"
		delete(host, "PortBindings")
		config["NetworkingConfig"] = fields{"EndpointsConfig": fields{
			"farm": fields{"Aliases": []string{"one"}, "IPAMConfig": fields{"IPv4Address": "10.213.7.5"}},
		}}
	})
	// Engines before API 1.44 connect a container with a second network only when it is there.
	if err := e.engine.connectNetwork(t.Context(), "side", p.first.ID, object{"Aliases": json.RawMessage(`["two"]`)}); err != nil {
		t.Fatal(err)
	}
	before := e.inspect(t, p.first.ID)
	p.mustReset(e.driver(t, nil), p.attempt("KEY"))
	now := p.mustBeFresh()
	if len(now.NetworkSettings.Networks) != 2 {
		t.Errorf("it is in the networks %v", now.NetworkSettings.Networks)
	}
	for name, want := range map[string]string{
		"farm": `{"Aliases":["one"],"IPAMConfig":{"IPv4Address":"10.213.7.5"}}`,
		"side": `{"Aliases":["two"]}`,
	} {
		for when, c := range map[string]*container{"before": before, "after": now} {
			if got, err := json.Marshal(c.wants(name)); err != nil || string(got) != want {
				t.Errorf("%s it has %s in %s, %v", when, got, name, err)
			}
		}
	}
}
