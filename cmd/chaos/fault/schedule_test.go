package fault

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func planned(seed uint64, replicated bool) []Planned {
	kinds, _ := Parse("all", replicated)
	return Schedule(rand.New(rand.NewPCG(seed, 0)), 10*time.Minute, kinds, map[string][]string{
		"api": {"api-1"}, "worker": {"worker-1", "worker-2"}, "workers": {"workers"}, "leases": {"leases"},
		"redis": {"redis"}, "operator": {"operator"}, "link": {APIToRedis, WorkerToRedis, WorkerToUpstream},
	})
}

func TestASeedAlwaysGivesTheSameSchedule(t *testing.T) {
	if !reflect.DeepEqual(planned(7, false), planned(7, false)) {
		t.Error("two schedules from one seed differ")
	}
	if reflect.DeepEqual(planned(7, false), planned(8, false)) {
		t.Error("two seeds give one schedule")
	}
}

func TestAScheduleHasEveryKindAndNeverTwoOnOneTarget(t *testing.T) {
	seen, until := map[Kind]bool{}, map[string]time.Duration{}
	for _, f := range planned(1, true) {
		seen[f.Kind] = true
		if f.Kind == RedisKill {
			t.Error("a Cluster has no single Redis to kill")
		}
	}
	for _, f := range planned(1, false) {
		seen[f.Kind] = true
		if f.At+f.Length > 10*time.Minute {
			t.Errorf("%+v is not over by the end", f)
		}
		if f.Target != "" && f.At < until[f.Target] {
			t.Errorf("%+v hits what is already broken", f)
		}
		until[f.Target] = f.At + f.Length
	}
	for _, kind := range All() {
		if !seen[kind] && !slices.Contains(conditions, kind) {
			t.Errorf("no %s in ten minutes", kind)
		}
	}
}

func TestFaultListsAreChecked(t *testing.T) {
	kinds, err := Parse("cut, redis-kill, failover", false)
	if err != nil || !reflect.DeepEqual(kinds, []Kind{LinkCut, RedisKill}) {
		t.Errorf("%v, %v", kinds, err)
	}
	if _, err := Parse("cut,earthquake", false); err == nil || !strings.HasPrefix(err.Error(), `--faults: "earthquake" is none of`) {
		t.Errorf("got %v", err)
	}
}
