package cph

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"batchreset/api/relaytest"
	"batchreset/cmd/harness/faketime"
	"batchreset/worker"
)

// withToken has a driver log in to IAM, at the same server.
func withToken(t testing.TB, url string) Config {
	t.Helper()
	cfg := settings(t, url)
	cfg.AccessKeyFile, cfg.SecretKeyFile = "", ""
	cfg.IAMEndpoint, cfg.IAMDomain, cfg.IAMUser, cfg.IAMPasswordFile = url, "account", "robot", file(t, "a password")
	return cfg
}

func TestOneTokenServesAllCalls(t *testing.T) {
	fake := newFake()
	others := []string{"b1", "b2", "b3", "b4"}
	for _, id := range others {
		fake.AddPhone(id)
	}
	d := newDriver(t, withToken(t, serve(t, fake)))
	var all sync.WaitGroup
	for _, id := range others {
		all.Go(func() {
			a := attempt()
			a.Address = id
			if err := d.Reset(t.Context(), a); err != nil || fake.Phone(id).Wiped != 1 {
				t.Errorf("%v, %+v", err, fake.Phone(id))
			}
		})
	}
	all.Wait()
	if fake.Logins() != 1 {
		t.Errorf("logged in %d times", fake.Logins())
	}
}

func TestWithoutATokenNothingIsSent(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*Config)
		iam    http.Handler
		says   string
	}{
		"a wrong password":  {func(c *Config) { c.IAMPasswordFile = file(t, "x") }, nil, "iam_password_file"},
		"nobody there":      {func(c *Config) { c.IAMEndpoint = "http://127.0.0.1:1" }, nil, "IAM cannot be reached"},
		"no token":          {nil, says(201, "{}"), "without a token"},
		"too long a token":  {nil, says(201, "{}", "X-Subject-Token", strings.Repeat("x", maxToken+1)), "without a token"},
		"an internal error": {nil, says(500, "<html>"), "500 Internal Server Error"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := newFake()
			cfg := withToken(t, serve(t, fake))
			if row.iam != nil {
				cfg.IAMEndpoint = serve(t, row.iam)
			}
			if row.change != nil {
				row.change(&cfg)
			}
			d := newDriver(t, cfg)
			for range 2 {
				if e := wantVerdict(t, d.Reset(t.Context(), attempt()), worker.Unreachable); !strings.Contains(e.Message, row.says) {
					t.Errorf("%+v", e)
				}
			}
			if fake.Logins() > 1 {
				t.Errorf("logged in %d times at once", fake.Logins())
			}
		})
	}
}

// TestATokenIsRenewedInTime lends the driver a clock.
func TestATokenIsRenewedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := newFake()
		relay := relaytest.Start(t, fake)
		d := newDriver(t, withToken(t, "http://127.0.0.1"))
		relay.Carry(d.client.reader, false)
		relay.Carry(d.client.sender, false)
		check := func(logins int, verdict worker.Verdict) {
			t.Helper()
			err := d.Reset(t.Context(), attempt())
			if verdict == "" && err != nil || fake.Logins() != logins {
				t.Errorf("%v after %d logins, want %d", err, fake.Logins(), logins)
			}
			if verdict != "" {
				wantVerdict(t, err, verdict)
			}
		}
		check(1, "")
		faketime.Pass(tokenLife - time.Hour)
		check(1, "")
		faketime.Pass(2 * time.Hour)
		check(2, "") // it was old
		faketime.Pass(time.Hour)
		fake.ForgetTokens()
		check(3, "") // it was refused
		fake.ForgetTokens()
		check(3, worker.Unreachable) // a new one that is refused, too, is no better
		faketime.Pass(loginPause)
		check(4, "")
		d.Close()
	})
}
