package main

import (
	"math/rand/v2"
	"testing"
	"time"

	"batchreset/cmd/chaos/fault"
)

func TestTheCharacterOfARunFollowsFromItsSeed(t *testing.T) {
	draw := func(seed uint64, list string) character {
		faults, err := fault.Parse(list, always.replicated())
		if err != nil {
			t.Fatal(err)
		}
		return plan{seed: seed, faults: faults}.draw(rand.New(rand.NewPCG(seed, 0)))
	}
	slots, late := 0, 0
	for seed := range uint64(100) {
		c := draw(seed, "all")
		if c != draw(seed, "all") {
			t.Fatalf("seed %d has two characters", seed)
		}
		if c.repeatable != (seed%2 == 0) {
			t.Errorf("seed %d: keys are honoured: %t", seed, c.repeatable)
		}
		if looks := seed%4 >= 2; c.looks != looks || looks && (c.lookPatience <= 0 || c.lookPatience > c.attemptTimeout/2) {
			t.Errorf("seed %d: the workers look: %t, for %s", seed, c.looks, c.lookPatience)
		}
		if c.slots > 0 {
			slots++
		}
		if c.giveUpAfter > 0 {
			late++
		}
	}
	if slots < 10 || slots > 60 || late < 10 || late > 60 {
		t.Errorf("of 100 runs with all faults %d have few slots and %d little time", slots, late)
	}
	if c := draw(1, "few-slots,give-up,cut"); c.slots == 0 || c.giveUpAfter == 0 {
		t.Errorf("what was asked for is not there: %+v", c)
	}
	if c := draw(1, "cut,cancel"); c.slots != 0 || c.giveUpAfter != 0 || c.attemptTimeout != 5*time.Second {
		t.Errorf("what nobody asked for is there: %+v", c)
	}
}
