package ratelimit_test

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"batchreset/api/ratelimit"
)

func TestALimiterLetsABurstGoAndThenOneAtATime(t *testing.T) {
	start := time.Now()
	l, at := ratelimit.New[string](5, 10*time.Second, start), start
	take := func(after time.Duration, wantBefore int, wantOK bool) {
		t.Helper()
		at = at.Add(after)
		if before, ok := l.Take("alice", at); before != wantBefore || ok != wantOK {
			t.Errorf("at %s: %d before, %t; want %d, %t", at.Sub(start), before, ok, wantBefore, wantOK)
		}
	}
	for before := range 5 {
		take(0, before, true)
	}
	take(0, 5, false)
	take(9*time.Second, 5, false)
	take(time.Second, 4, true)
	take(0, 5, false)
	take(time.Hour, 0, true)
	if before, ok := l.Take("bob", at); before != 0 || !ok {
		t.Errorf("somebody else: %d before, %t", before, ok)
	}
}

// Somebody who fills the memory with other addresses gains nothing by that, and does not shut
// others out.
func TestNothingIsForgottenForOthers(t *testing.T) {
	start := time.Now()
	l := ratelimit.New[netip.Addr](5, 10*time.Second, start)
	address := netip.MustParseAddr("192.0.2.1")
	for range 5 {
		l.Take(address, start)
	}
	other := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}) }
	for n := range 20_000 {
		if _, ok := l.Take(other(n), start); !ok {
			t.Fatalf("number %d of those who come once may not", n)
		}
	}
	for n := range 200_000 {
		l.Take(other(n), start)
	}
	if _, ok := l.Take(address, start); ok {
		t.Error("a sixth try")
	}
}

func TestWhatIsGivenBackDoesNotCount(t *testing.T) {
	start := time.Now()
	l := ratelimit.New[string](20, time.Second, start)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 10_000 {
				if _, ok := l.Take("alice", start); !ok {
					t.Error("refused")
					return
				}
				l.GiveBack("alice")
			}
		})
	}
	all.Wait()
	for before := range 20 {
		if got, ok := l.Take("alice", start); got != before || !ok {
			t.Fatalf("%d before, %t; want %d", got, ok, before)
		}
	}
	if _, ok := l.Take("alice", start); ok {
		t.Error("one more than the burst")
	}
	l.GiveBack("alice")
	if before, ok := l.Take("alice", start); before != 19 || !ok {
		t.Errorf("after one was given back: %d before, %t", before, ok)
	}
}

func TestWhatAnAddressCountsAs(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "2001:db8:1:2::9": "2001:db8:1:2::/64", "2001:db8:1:3::9": "2001:db8:1:3::/64",
		"fe80::1%eth0": "fe80::/64", "": "invalid Prefix", "@": "invalid Prefix",
	} {
		if got := ratelimit.Network(address).String(); got != want {
			t.Errorf("%q counts as %s, want %s", address, got, want)
		}
	}
}
