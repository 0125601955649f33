package webhook

import (
	"net/netip"
	"strings"
	"testing"
)

func TestOnlyPublicAddressesAreDialled(t *testing.T) {
	for address, want := range map[string]bool{
		"93.184.215.14":        true,
		"8.8.8.8":              true,
		"2606:2800:21f:cb07::": true,

		"127.0.0.1":              false, // loopback
		"127.8.9.10":             false,
		"::1":                    false,
		"0.0.0.0":                false, // unspecified: this machine
		"::":                     false,
		"10.1.2.3":               false, // private
		"172.16.0.1":             false,
		"172.31.255.255":         false,
		"192.168.1.1":            false,
		"fd12:3456::1":           false,
		"100.64.0.1":             false, // shared, for carriers
		"100.100.100.200":        false, // metadata of Alibaba
		"169.254.169.254":        false, // link-local: metadata of most clouds
		"fe80::1":                false,
		"fd00:ec2::254":          false,
		"168.63.129.16":          false, // metadata of Azure
		"192.0.0.192":            false, // metadata of Oracle
		"224.0.0.1":              false, // multicast
		"ff02::1":                false,
		"255.255.255.255":        false,
		"240.0.0.1":              false,
		"198.18.0.1":             false, // benchmarks
		"::ffff:127.0.0.1":       false, // IPv4 in IPv6, in its many forms
		"::ffff:10.0.0.1":        false,
		"::ffff:169.254.169.254": false,
		"64:ff9b::7f00:1":        false,
		"2002:7f00:1::":          false,
		"::7f00:1":               false,
	} {
		err := public.Safe("tcp4", netip.AddrPortFrom(netip.MustParseAddr(address), 443).String(), nil)
		if (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestURLsOfEndpoints(t *testing.T) {
	for _, row := range []struct {
		name, url string
		private   bool // allowed
		want      string
	}{
		{"a public address", "https://93.184.215.14/hooks?a=b", false, ""},
		{"another port", "https://93.184.215.14:8443/", false, ""},
		{"http to a private address, where allowed", "http://127.0.0.1:8080/hooks", true, ""},
		{"https to a private address, where allowed", "https://[fd00::1]/hooks", true, ""},
		{"nothing", "", false, "must be an https URL"},
		{"no scheme", "example.com/hooks", false, "must be an https URL"},
		{"another scheme", "ftp://93.184.215.14/", true, "must be an https URL"},
		{"http", "http://93.184.215.14/", false, "http is for tests, with --webhook-allow-private"},
		{"no URL", "https://exa mple.com", false, "is not a URL"},
		{"no host", "https:///hooks", false, "has no host"},
		{"only a port", "https://:443/hooks", false, "has no host"},
		{"a password", "https://me:secret@93.184.215.14/", false, "user or password"},
		{"a fragment", "https://93.184.215.14/#top", false, "fragment"},
		{"a port that does not exist", "https://93.184.215.14:65536/", false, "port 65536"},
		{"port 0", "https://93.184.215.14:0/", false, "port 0"},
		{"too long", "https://93.184.215.14/" + strings.Repeat("a", MaxURL), false, "the limit is 2048"},
		{"a name that does not resolve", "https://nowhere.invalid/", false, "cannot be resolved"},
		{"loopback by name", "https://localhost/", false, "is not a public address"},
		{"loopback", "https://127.0.0.1/", false, "leads to 127.0.0.1, which is not a public address; --webhook-allow-private"},
		{"IPv4 in IPv6", "https://[::ffff:10.0.0.1]/", false, "leads to 10.0.0.1"},
		{"metadata", "https://169.254.169.254/latest", false, "is not a public address"},
	} {
		t.Run(row.name, func(t *testing.T) {
			err := CheckURL(t.Context(), row.url, row.private)
			switch {
			case row.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Errorf("got %v, want %q", err, row.want)
			case err != nil && strings.Contains(err.Error(), "secret"):
				t.Errorf("the error tells the password: %v", err)
			}
		})
	}
}
