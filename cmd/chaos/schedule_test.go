package main

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func planned(seed uint64, s setup) []plannedFault {
	kinds, _ := parseFaults("all", s)
	return schedule(rand.New(rand.NewPCG(seed, 0)), 10*time.Minute, kinds, map[string][]string{
		"api": {"api-1"}, "worker": {"worker-1", "worker-2"}, "workers": {"workers"}, "leases": {"leases"},
		"redis": {"redis"}, "operator": {"operator"}, "link": {linkAPIToRedis, linkWorkerToRedis, linkToUpstream},
	})
}

func TestASeedAlwaysGivesTheSameSchedule(t *testing.T) {
	if !reflect.DeepEqual(planned(7, always), planned(7, always)) {
		t.Error("two schedules from one seed differ")
	}
	if reflect.DeepEqual(planned(7, always), planned(8, always)) {
		t.Error("two seeds give one schedule")
	}
}

func TestAScheduleHasEveryKindAndNeverTwoOnOneTarget(t *testing.T) {
	seen, until := map[faultKind]bool{}, map[string]time.Duration{}
	for _, f := range planned(1, cluster) {
		seen[f.kind] = true
		if f.kind == redisKill {
			t.Error("a Cluster has no single Redis to kill")
		}
	}
	for _, f := range planned(1, always) {
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
		if !seen[k.kind] && !slices.Contains(conditions, k.kind) {
			t.Errorf("no %s in ten minutes", k.kind)
		}
	}
}

func TestFaultListsAreChecked(t *testing.T) {
	kinds, err := parseFaults("cut, redis-kill, failover", everysec)
	if err != nil || !reflect.DeepEqual(kinds, []faultKind{linkCut, redisKill}) {
		t.Errorf("%v, %v", kinds, err)
	}
	if _, err := parseFaults("cut,earthquake", always); err == nil || !strings.HasPrefix(err.Error(), `--faults: "earthquake" is none of`) {
		t.Errorf("got %v", err)
	}
}
