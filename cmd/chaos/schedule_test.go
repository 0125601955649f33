package main

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

func planned(seed uint64) []plannedFault {
	kinds, _ := parseFaults("all")
	return schedule(rand.New(rand.NewPCG(seed, 0)), 10*time.Minute, kinds, []string{"api-1"}, []string{"worker-1", "worker-2"})
}

func TestASeedAlwaysGivesTheSameSchedule(t *testing.T) {
	if !reflect.DeepEqual(planned(7), planned(7)) {
		t.Error("two schedules from one seed differ")
	}
	if reflect.DeepEqual(planned(7), planned(8)) {
		t.Error("two seeds give one schedule")
	}
}

func TestAScheduleHasEveryKindAndNeverTwoOnOneTarget(t *testing.T) {
	seen, until := map[faultKind]bool{}, map[string]time.Duration{}
	for _, f := range planned(1) {
		seen[f.kind] = true
		if f.at+f.length > 10*time.Minute {
			t.Errorf("%+v is not over by the end", f)
		}
		if f.target != "" && f.at < until[f.target] {
			t.Errorf("%+v hits what is already broken", f)
		}
		until[f.target] = f.at + f.length
	}
	for _, k := range faultKinds {
		if !seen[k.kind] {
			t.Errorf("no %s in ten minutes", k.kind)
		}
	}
}

func TestFaultListsAreChecked(t *testing.T) {
	kinds, err := parseFaults("cut, redis-kill")
	if err != nil || !reflect.DeepEqual(kinds, []faultKind{linkCut, redisKill}) {
		t.Errorf("%v, %v", kinds, err)
	}
	if _, err := parseFaults("cut,earthquake"); err == nil || !strings.HasPrefix(err.Error(), `--faults: "earthquake" is none of`) {
		t.Errorf("got %v", err)
	}
}
