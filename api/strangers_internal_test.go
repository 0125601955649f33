package api

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
)

// Whoever asks from many addresses gets no address back that has asked too much, nor does he
// shut others out.
func TestTheLimitOfStrangersCannotBeChurned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStrangers()
		exhausted := addressOf("192.0.2.1")
		for s.take(exhausted) == 0 {
		}
		turned := 0
		for n := range 200_000 {
			if s.take(addressOf(fmt.Sprintf("2001:db8:%x:%x::1", n>>16, n&0xffff))) != 0 {
				turned++
			}
		}
		if s.take(exhausted) == 0 {
			t.Error("an address that has asked too much may ask again")
		}
		if turned > 1 {
			t.Errorf("%d of 200,000 are turned away because of one other", turned)
		}
	})
}

func TestWhatIsGivenBackDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStrangers()
		address := addressOf("192.0.2.1")
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 10_000 {
					if s.take(address) != 0 {
						t.Error("turned away")
						return
					}
					s.giveBack(address)
				}
			})
		}
		all.Wait()
		n := 0
		for ; s.take(address) == 0; n++ {
		}
		if n != strangerBurst {
			t.Errorf("%d more may be asked, want %d", n, strangerBurst)
		}
	})
}
